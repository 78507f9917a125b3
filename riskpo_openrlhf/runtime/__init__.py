"""Where a run takes place. On GPUs there is little to do; `cpu` holds what OpenRLHF needs without one."""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading

RUNTIME_VARIABLE = "RISKPO_RUNTIME"  # set to "cpu" by `--riskpo.runtime cpu`, inherited by every process of the run
RUN_VARIABLE = "RISKPO_RUN"  # names the run; inherited by every process of the run
ERROR_VARIABLE = "RISKPO_ENGINE_ERROR"  # file in the memory of an engine's actor, for the error of its processes
ERROR_FILE = "riskpo-engine-error"


def vllm_plugin() -> None:
    """Prepare a vLLM process, as entry point of the group `vllm.general_plugins`: each vLLM process calls it.

    Does nothing, and imports nothing, in a process that belongs to no run of ours.
    """
    if os.environ.get(RUN_VARIABLE):
        end_with_parent()
    if os.environ.get(ERROR_VARIABLE) and multiprocessing.parent_process():
        logging.getLogger("vllm").addHandler(_FirstError())
    if os.environ.get(RUNTIME_VARIABLE) == "cpu":
        from riskpo_openrlhf.runtime import cpu

        cpu.prepare_engine()


class _FirstError(logging.Handler):
    """Keeps the first exception that vLLM logs, for the actor, which only learns that a process died."""

    def emit(self, record: logging.LogRecord) -> None:
        path, error = os.environ[ERROR_VARIABLE], (record.exc_info or (None, None))[1]
        if not error or str(record.msg).startswith("Invocation of"):  # which goes to the caller, and the engine lives
            return
        with contextlib.suppress(OSError):  # the actor is gone
            if ERROR_FILE in os.readlink(path) and not os.path.getsize(path):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(" ".join(f"{type(error).__name__}: {error}".split()))


def end_with_parent() -> None:
    """End this process as soon as the process that started it is gone, however that one ended.

    vLLM's engine core and its workers would outlive a killed Ray actor and hold their memory. Does nothing in a
    process that `multiprocessing` did not start. A second call does nothing.
    """
    parent = multiprocessing.parent_process()
    if parent is None or any(thread.name == "end-with-parent" for thread in threading.enumerate()):
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
