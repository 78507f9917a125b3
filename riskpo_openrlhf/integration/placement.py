"""Which models a job has, and on how many GPUs and ranks. `values` are OpenRLHF's flags by dotted name."""

from __future__ import annotations

from collections.abc import Iterator


def models(values: dict) -> Iterator[str]:
    """Name the models that every rollout goes through: the policy, and those that the flags add."""
    yield "actor"
    if values["algo.kl.init_coef"] > 0:
        yield "ref"
    if values["algo.advantage.estimator"] == "gae":
        yield "critic"
    if not values["reward.remote_url"] and not values["train.agent_func_path"]:
        yield "reward"


def model_gpus(values: dict, model: str = "actor") -> int:
    return values[f"{model}.num_nodes"] * values[f"{model}.num_gpus_per_node"]


def engine_gpus(values: dict) -> int:
    return (values["vllm.num_engines"] or 0) * values["vllm.tensor_parallel_size"]


def data_ranks(values: dict, model: str = "actor") -> int:
    """Count the ranks of a model that see different data: its GPUs, but one for each ring and tensor group."""
    return model_gpus(values, model) // (values["ds.ring_attn_size"] * values["ds.tensor_parallel_size"])


def engines_share_gpus(values: dict) -> bool:
    """Tell whether the engines run on the policy's GPUs."""
    return values["train.colocate_all"] and not values["train.async_enable"]


def gpus_needed(values: dict) -> int:
    """Count the GPUs that OpenRLHF's placements ask for. OpenRLHF itself waits for ever when a cluster has fewer.

    With `--train.colocate_all` all models share the policy's GPUs, engines too unless the job is asynchronous. With
    `--train.colocate_critic_reward` critic and reward model share a placement of their own.
    """
    gpus = {model: model_gpus(values, model) for model in models(values)}
    pair = "critic" in gpus and values["train.colocate_critic_reward"]
    if values["train.colocate_all"]:
        gpus = {model: gpus[model] for model in ("actor", "critic") if model == "actor" or pair}
    if pair:
        gpus.pop("reward", None)
    if values["train.colocate_actor_ref"]:
        gpus.pop("ref", None)
    return sum(gpus.values()) + (0 if engines_share_gpus(values) else engine_gpus(values))
