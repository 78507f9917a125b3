"""OpenRLHF's reference, reward and critic actors, whose rendezvous ports stay their own until they are bound."""

from __future__ import annotations

import openrlhf.trainer.ray.launcher as launcher
import openrlhf.trainer.ray.ppo_critic as ppo_critic

from riskpo_openrlhf.integration.contract import plain_class
from riskpo_openrlhf.integration.ports import HoldsPort


class RiskPOReferenceActor(HoldsPort, plain_class(launcher.ReferenceModelActor)):
    """The reference model's actor."""


class RiskPORewardActor(HoldsPort, plain_class(launcher.RewardModelActor)):
    """The reward model's actor."""


class RiskPOCriticActor(HoldsPort, plain_class(ppo_critic.CriticModelActor)):
    """The critic's actor."""
