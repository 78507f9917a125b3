"""The vLLM engine's actor, in a module of its own: OpenRLHF keeps DeepSpeed out of the engines' processes."""

from __future__ import annotations

import gc

import openrlhf.trainer.ray.vllm_engine as vllm_engine

from riskpo_openrlhf.integration.contract import plain_class
from riskpo_openrlhf.integration.reward_calls import RewardCalls


class RiskPORolloutActor(plain_class(vllm_engine.RolloutRayActor)):
    """A vLLM engine that checks and limits its calls for rewards, and keeps their last error.

    It also drops its image embeddings when it gets new weights. OpenRLHF clears the prefix cache only, so an image
    seen again would come from the old encoder (and a CPU engine, whose worker has dropped it, dies).
    """

    async def __init__(self, *args, **kwargs):
        await super().__init__(*args, **kwargs)
        self.rewards = RewardCalls(self.executor)
        # The objects that vLLM and torch have made by now stay. Python's collector would visit all of them about every
        # thousand responses, and every request would wait half a second for it.
        gc.collect()
        gc.freeze()

    def limit_rewards(self, seconds: float) -> None:
        """Set the time limit of one reward, `--riskpo.reward_timeout`."""
        self.rewards.seconds = seconds

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
        return self.rewards.last_error
