"""TensorBoard logs that are on the disk after each step, and whose disk may be full."""

from __future__ import annotations

from riskpo_openrlhf.console import say


class SafeLogger:
    """OpenRLHF's `TensorboardLogger`, flushed after each call. A full disk is told once, and training goes on.

    Without the flush, up to two minutes of points would be lost with a driver that is killed.
    """

    def __init__(self, logger):
        self._logger, self._failed = logger, False

    def log_train(self, global_step, logs_dict) -> None:
        self._try(self._logger.log_train, global_step, logs_dict)

    def log_eval(self, global_step, logs_dict) -> None:
        self._try(self._logger.log_eval, global_step, logs_dict)

    def close(self) -> None:
        self._try(self._logger.close)

    def _try(self, method, *args) -> None:
        if self._failed:
            return
        try:
            method(*args)
            self._logger.writer.flush()
        except OSError as error:
            self._failed = True
            say(f"TensorBoard logs end here, training goes on: {error}; mend --logger.tensorboard_dir and resume")
