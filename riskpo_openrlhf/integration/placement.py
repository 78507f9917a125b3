"""How many GPUs a command line asks for: OpenRLHF itself waits for ever when a cluster has fewer."""

from __future__ import annotations


def gpus_needed(values: dict) -> int:
    """Count the GPUs that OpenRLHF's placements ask for. `values`: its flags by dotted name, from its parser."""

    def group(name):
        return values[f"{name}.num_nodes"] * values[f"{name}.num_gpus_per_node"]

    actor = group("actor")
    engines = (values["vllm.num_engines"] or 0) * values["vllm.tensor_parallel_size"]
    ref = group("ref") if values["algo.kl.init_coef"] > 0 else 0
    reward = 0 if values["reward.remote_url"] or values["train.agent_func_path"] else group("reward")
    critic = group("critic") if values["algo.advantage.estimator"] == "gae" else 0
    if values["train.colocate_all"]:  # a reference model shares the actor's GPUs, engines too unless asynchronous
        return actor + reward + critic + (engines if values["train.async_enable"] else 0)
    if values["train.colocate_actor_ref"]:
        ref = 0
    return actor + engines + ref + reward + critic
