"""Where a run takes place. On GPUs there is nothing to do; `cpu` holds what OpenRLHF needs without one."""

import os

RUNTIME_VARIABLE = "RISKPO_RUNTIME"  # set to "cpu" by `--riskpo.runtime cpu`, inherited by every process of the run


def vllm_plugin() -> None:
    """Prepare a vLLM process, as entry point of the group `vllm.general_plugins`: each vLLM process calls it.

    Does nothing, and imports nothing, unless the run was started with `--riskpo.runtime cpu`.
    """
    if os.environ.get(RUNTIME_VARIABLE) == "cpu":
        from riskpo_openrlhf.runtime import cpu

        cpu.prepare_engine()
