"""The vLLM engine's actor, in a module of its own: OpenRLHF keeps DeepSpeed out of the engines' processes."""

from __future__ import annotations

import asyncio
import atexit
import gc
import os

import openrlhf.trainer.ray.vllm_engine as vllm_engine

from riskpo_openrlhf.integration import determinism
from riskpo_openrlhf.integration.contract import plain_class
from riskpo_openrlhf.integration.engine_restarts import BROKEN, KNOWN, NEW
from riskpo_openrlhf.integration.launch import ENGINE, replace_names
from riskpo_openrlhf.integration.reward_calls import RewardCalls
from riskpo_openrlhf.integration.watch import beat, join
from riskpo_openrlhf.runtime import ERROR_FILE, ERROR_VARIABLE, RUNTIME_VARIABLE


class RiskPORolloutActor(plain_class(vllm_engine.RolloutRayActor)):
    """A vLLM engine that checks and limits its calls for rewards, and keeps their last error.

    It also drops its image embeddings when it gets new weights. OpenRLHF clears the prefix cache only, so an image
    seen again would come from the old encoder (and a CPU engine, whose worker has dropped it, dies).
    """

    async def __init__(self, *args, **kwargs):
        join("vLLM engine", self._fault)
        replace_names(ENGINE)  # OpenRLHF's constructor loads the user's file
        if os.environ.get(RUNTIME_VARIABLE) == "cpu":
            kwargs |= whole_prompts(kwargs) | one_process(kwargs)
        # An engine process writes there why it failed; vLLM itself says "see above". The file ends with this process.
        self._errors = os.memfd_create(ERROR_FILE)
        os.environ[ERROR_VARIABLE] = f"/proc/{os.getpid()}/fd/{self._errors}"
        try:
            await super().__init__(*args, **kwargs)
        except RuntimeError as error:
            raise RuntimeError(f"{error}{self._root_cause()}") from error
        finally:
            del os.environ[ERROR_VARIABLE]
        self._draw = None
        self._known = self._replaceable = self._syncing = False
        self.rewards = RewardCalls(self.executor)
        # The objects that vLLM and torch have made by now stay. Python's collector would visit all of them about every
        # thousand responses, and every request would wait half a second for it.
        gc.collect()
        gc.freeze()
        atexit.register(gc.unfreeze)  # or Triton's binding reports them all as leaks

    def _fault(self) -> str:
        """Return an error if a process of the engine died: this actor lives on, and the weight sync waits for it."""
        if not getattr(self, "llm", None) or not self.llm.errored:
            return ""
        if self._replaceable and not self._syncing:  # the driver will notice
            return ""
        return f"EngineDeadError: class_name: {type(self).__name__} pid: {os.getpid()}{self._root_cause()}"

    def _root_cause(self) -> str:
        error = os.pread(self._errors, 2000, 0).decode(errors="replace")
        return f" root cause: {error}" if error else ""

    def begin_run(self, reward_timeout: float, replaceable: bool) -> None:
        """Take the run's settings: seconds for one reward, and whether the driver replaces engines that die."""
        self._known, self._replaceable, self.rewards.seconds = True, replaceable, reward_timeout

    def state(self) -> str:
        """Tell the driver whether this process is the one that it knows, a new one in its place, or of no use."""
        return BROKEN if self.llm.errored else KNOWN if self._known else NEW

    async def generate(self, *args, **kwargs):
        try:
            output = await super().generate(*args, **kwargs)
        except Exception as error:
            if cause := self._root_cause():
                error.add_note(cause)  # Ray shows notes
            raise
        beat("generation")
        return output

    async def update_weight(self, name, dtype, shape, empty_cache=False, **more):
        return await self._take(super().update_weight(name, dtype, shape, empty_cache, **more), empty_cache)

    async def update_weight_cuda_ipc(self, name, dtype, shape, ipc_handles, empty_cache=False, **more):
        update = super().update_weight_cuda_ipc(name, dtype, shape, ipc_handles, empty_cache, **more)
        return await self._take(update, empty_cache)

    async def _take(self, update, last: bool):
        """Take one parameter of a weight sync. `last`: OpenRLHF sets `empty_cache` on the last one."""
        self._syncing = True
        result = await update
        self._syncing = not last
        if last:
            await self.llm.reset_encoder_cache()
        return result

    def begin_draw(self, name: str) -> None:
        """Give each sample from now on a seed of its own, made of `name`, its prompt and its number."""
        self._draw = name

    async def generate_responses(self, prompt, label, sampling_params, *args, num_samples=1, **more):
        if self._draw is None:
            return await super().generate_responses(
                prompt, label, sampling_params, *args, num_samples=num_samples, **more
            )
        params = [determinism.seeded(sampling_params, self._draw, prompt, i) for i in range(num_samples)]
        single = super().generate_responses
        found = await asyncio.gather(*(single(prompt, label, one, *args, num_samples=1, **more) for one in params))
        return [response for (response,) in found]

    def last_reward_error(self) -> str:
        return self.rewards.last_error


def one_process(kwargs: dict) -> dict:
    """Return what lets a CPU engine compute in its own process. `kwargs`: those of vLLM's engine.

    vLLM turns "uni" into a process more, which binds threads to cores. Ours are not bound, and it takes ten seconds of
    a core to start.
    """
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    return {"distributed_executor_backend": UniProcExecutor} if kwargs["tensor_parallel_size"] == 1 else {}


def whole_prompts(kwargs: dict) -> dict:
    """Return what lets a CPU engine read each prompt at once. `kwargs`: those of vLLM's engine.

    Of a prompt that is read in parts, vLLM throws samples away and rewinds the prompt's random numbers. torch can't
    rewind those of a CPU, and the engine would die.
    """
    given = {"enable_chunked_prefill": False}
    if "max_num_batched_tokens" in kwargs:  # vLLM's own default is large enough
        given["max_num_batched_tokens"] = max(kwargs["max_num_batched_tokens"], kwargs["max_model_len"])
    return given
