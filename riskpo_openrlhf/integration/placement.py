"""How many GPUs a command line asks for: OpenRLHF itself waits for ever when a cluster has fewer."""

from __future__ import annotations


def gpus_needed(values: dict) -> int:
    """Count the GPUs that OpenRLHF's placements ask for. `values`: its flags by dotted name, from its parser.

    With `--train.colocate_all` all models share the policy's GPUs, engines too unless the job is asynchronous. With
    `--train.colocate_critic_reward` critic and reward model share a placement of their own.
    """

    def group(name):
        return values[f"{name}.num_nodes"] * values[f"{name}.num_gpus_per_node"]

    engines = (values["vllm.num_engines"] or 0) * values["vllm.tensor_parallel_size"]
    reward = 0 if values["reward.remote_url"] or values["train.agent_func_path"] else group("reward")
    critic = group("critic") if values["algo.advantage.estimator"] == "gae" else 0
    together = critic and values["train.colocate_critic_reward"]
    if values["train.colocate_all"]:
        return group("actor") + (critic if together else 0) + (engines if values["train.async_enable"] else 0)
    ref = 0 if values["train.colocate_actor_ref"] or values["algo.kl.init_coef"] <= 0 else group("ref")
    return group("actor") + engines + ref + critic + (0 if together else reward)
