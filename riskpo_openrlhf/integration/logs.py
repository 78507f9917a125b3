"""TensorBoard logs whose disk may be full."""

from __future__ import annotations

from riskpo_openrlhf.console import say


class SafeLogger:
    """OpenRLHF's `TensorboardLogger`: an error of its disk is told once, and training goes on without the logs."""

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
        except OSError as error:
            self._failed = True
            say(f"TensorBoard logs end here, training goes on: {error}; mend --logger.tensorboard_dir and resume")
