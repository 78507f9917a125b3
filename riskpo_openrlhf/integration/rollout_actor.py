"""The vLLM engine's actor, in a module of its own: OpenRLHF keeps DeepSpeed out of the engines' processes."""

from __future__ import annotations

import gc
import os
import tempfile

import openrlhf.trainer.ray.vllm_engine as vllm_engine

from riskpo_openrlhf.integration.contract import plain_class
from riskpo_openrlhf.integration.watch import beat, join
from riskpo_openrlhf.runtime import ERROR_VARIABLE


class RiskPORolloutActor(plain_class(vllm_engine.RolloutRayActor)):
    """A vLLM engine that keeps the reward function's last error, which OpenRLHF only logs.

    It also drops its image embeddings when it gets new weights. OpenRLHF clears the prefix cache only, so an image
    seen again would come from the old encoder (and a CPU engine, whose worker has dropped it, dies).
    """

    async def __init__(self, *args, **kwargs):
        join("vLLM engine")
        with tempfile.TemporaryDirectory(prefix="riskpo-") as folder:
            os.environ[ERROR_VARIABLE] = path = os.path.join(folder, "error")
            try:
                await super().__init__(*args, **kwargs)
            except RuntimeError as error:
                if os.path.exists(path):  # an engine process wrote why it failed; vLLM itself says "see above"
                    with open(path, encoding="utf-8") as file:
                        raise RuntimeError(f"{error} root cause: {file.read()}") from error
                raise
            finally:
                del os.environ[ERROR_VARIABLE]
        self._reward_error = ""
        for name in ("_fetch_rewards_via_func", "_fetch_rewards_via_http"):
            if hasattr(self.executor, name):
                setattr(self.executor, name, self._keep_error(getattr(self.executor, name)))
        # The objects that vLLM and torch have made by now stay. Python's collector would visit all of them about every
        # thousand responses, and every request would wait half a second for it.
        gc.collect()
        gc.freeze()

    async def generate(self, *args, **kwargs):
        output = await super().generate(*args, **kwargs)
        beat("generation")
        return output

    def _keep_error(self, fetch):
        async def fetch_rewards(*args):
            try:
                rewards = await fetch(*args)
            except Exception as error:
                self._reward_error = f"{type(error).__name__}: {error}"
                raise
            beat("reward")
            for reward in rewards:  # a verifier service sends its error beside the missing verdict
                if isinstance(reward, dict) and isinstance(reward.get("error"), str):
                    self._reward_error = reward["error"]
            return rewards

        return fetch_rewards

    async def update_weight(self, name, dtype, shape, empty_cache=False, **more):
        result = await super().update_weight(name, dtype, shape, empty_cache, **more)
        await self._forget_images(empty_cache)
        return result

    async def update_weight_cuda_ipc(self, name, dtype, shape, ipc_handles, empty_cache=False, **more):
        result = await super().update_weight_cuda_ipc(name, dtype, shape, ipc_handles, empty_cache, **more)
        await self._forget_images(empty_cache)
        return result

    async def _forget_images(self, last: bool) -> None:
        if last:  # OpenRLHF sets empty_cache on the last parameter
            await self.llm.reset_encoder_cache()

    def last_reward_error(self) -> str:
        return self._reward_error
