"""Find sizes that OpenRLHF silently mishandles: ranks that wait for each other, steps that never come.

How OpenRLHF shares a rollout of R responses out among k ranks (data-parallel: without ring attention and tensor
parallelism):

    without dynamic batching
        It cuts R into micro-batches of --rollout.micro_batch_size, in order, and gives each rank ceil(n / k) of the n.
        Ranks then hold equally many responses only if k whole micro-batches divide R. Else some ranks make fewer
        collective calls than others, and all wait for ever.
    with dynamic batching
        It deals responses out one by one, at least one to a rank, and trains as many whole steps of --train.batch_size
        as there are.

An episode of N prompts ends with a rollout of N modulo --rollout.batch_size prompts. The same holds for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from riskpo_openrlhf.integration.faults import Problem
from riskpo_openrlhf.integration.placement import data_ranks, engine_gpus, engines_share_gpus, model_gpus, models


def fault(values: dict, responses: int) -> str:
    """Say what goes wrong with a rollout of so many responses; "" if OpenRLHF shares it out equally."""
    dynamic, stage_3 = values["train.dynamic_batch_enable"], values["ds.zero_stage"] == 3
    micro = values["rollout.micro_batch_size"]
    for model in models(values):
        ranks = data_ranks(values, model)
        # With dynamic batching OpenRLHF makes a multiple of the policy's ranks of them.
        batches = min(responses, data_ranks(values)) if dynamic else -(-responses // micro)
        if batches < ranks:
            return f"are {batches} micro-batches for {ranks} ranks: OpenRLHF stops with `Insufficient batch size`"
        trained = model in ("actor", "critic")
        uneven = batches % ranks or (trained and not dynamic and ranks > 1 and responses % micro)
        if uneven and (trained or stage_3):  # ranks of a model that is not trained meet under ZeRO-3 only
            return f"give {ranks} ranks unequal work: they would wait for each other for ever"
    return ""


def size_problems(values: dict, rows: int | None = None) -> Iterator[Problem]:
    """Find sizes that OpenRLHF would refuse late, or silently change.

    Args:
        values: the final flags by dotted name.
        rows: prompts of the data set; None if that is not known.
    """
    problems = list(_counts(values))
    if not problems:
        problems = list(_groups(values))
        if all(data_ranks(values, model) for model in models(values)):
            problems += _batches(values)
    if not problems:
        problems = list(_rollouts(values, rows))
    yield from problems


AT_LEAST_1 = (
    "actor.num_nodes", "actor.num_gpus_per_node", "rollout.batch_size", "rollout.n_samples_per_prompt",
    "rollout.micro_batch_size", "train.batch_size", "train.micro_batch_size", "train.num_episodes", "train.max_epochs",
    "vllm.tensor_parallel_size", "ds.ring_attn_size", "ds.tensor_parallel_size", "data.max_len", "data.max_samples",
    "logger.logging_steps", "eval.n_samples_per_prompt", "train.async_queue_size", "rollout.max_new_tokens",
    "rollout.vllm_generate_batch_size",
)  # fmt: skip
EVERY = ("eval.steps", "ckpt.save_steps")  # -1 is never


def _counts(values: dict) -> Iterator[Problem]:
    for name in AT_LEAST_1:
        if values.get(name) is not None and values[name] < 1:
            yield Problem(f"--{name}", f" {values[name]} is not allowed: 1 or more")
    for name in EVERY:
        if values[name] < 1 and values[name] != -1:
            yield Problem(f"--{name}", f" {values[name]:g} is not allowed: 1 or more, or -1 for never")
    if not values["vllm.num_engines"] or values["vllm.num_engines"] < 1:
        yield Problem("--vllm.num_engines", f" {values['vllm.num_engines']}: no engine would answer: 1 or more")


def _groups(values: dict) -> Iterator[Problem]:
    """What OpenRLHF's `train` asserts once it runs, and the ranks of each model."""
    gpus, engines = model_gpus(values), engine_gpus(values)
    if engines_share_gpus(values) and gpus != engines:
        yield Problem(
            "--train.colocate_all",
            f" shares the actor's {gpus} GPUs with the engines, which need {engines} (--vllm.num_engines x "
            "--vllm.tensor_parallel_size): make them equal",
        )

    def differ(flag: str, first: str, second: str) -> Iterator[Problem]:
        (a, b), (c, d) = ((values[f"{one}.num_nodes"], values[f"{one}.num_gpus_per_node"]) for one in (first, second))
        if values[flag] and (a, b) != (c, d):
            yield Problem(
                f"--{flag}",
                f" shares the GPUs of {first}, {a} x {b}, with {second}, {c} x {d} (--{second}.num_nodes x "
                f"--{second}.num_gpus_per_node): make them equal",
            )

    present, everything_shared = set(models(values)), values["train.colocate_all"]
    if "ref" in present:
        yield from differ("train.colocate_all" if everything_shared else "train.colocate_actor_ref", "actor", "ref")
    if "critic" in present:
        yield from differ("train.colocate_critic_reward", "critic", "reward")
    pair_apart = "critic" in present and values["train.colocate_critic_reward"]
    shared = values["ds.ring_attn_size"] * values["ds.tensor_parallel_size"]
    for model in models(values):
        own, each = model_gpus(values, model), values[f"{model}.num_gpus_per_node"]
        if everything_shared and model in ("critic", "reward") and not pair_apart and own > gpus:
            yield Problem(
                f"--{model}.num_gpus_per_node",
                f" {each}: {own} GPUs are more than the actor's {gpus}, which --train.colocate_all lets the {model} "
                f"model share: take at most {gpus} (--{model}.num_nodes x --{model}.num_gpus_per_node)",
            )
        if own % shared or own < shared:
            yield Problem(
                f"--{model}.num_gpus_per_node",
                f" {each}: {own} GPUs can't be shared out among groups of --ds.ring_attn_size "
                f"{values['ds.ring_attn_size']} x --ds.tensor_parallel_size {values['ds.tensor_parallel_size']}",
            )
        group = max(1, min(values["ds.zpg"], own))  # ranks that hold all weights together
        if model in ("actor", "critic") and values["ds.zero_stage"] == 3 and own % group:
            yield Problem("--ds.zpg", f" {values['ds.zpg']} does not divide the {own} GPUs of the {model}: take 1")
    if values["train.dynamic_batch_enable"] and values["ds.zero_stage"] in (1, 2):
        yield Problem(
            "--ds.zero_stage",
            f" {values['ds.zero_stage']} keeps only the last micro-batch's gradient with "
            "--train.dynamic_batch_enable: take --ds.zero_stage 3, or leave out dynamic batching",
        )
    if values["ds.lora.rank"]:
        yield Problem(
            "--ds.lora.rank",
            f" {values['ds.lora.rank']}: OpenRLHF sends LoRA's own names to the engines, which don't know them: "
            "the job would end at the first weight sync. Leave it out",
        )


def _batches(values: dict) -> Iterator[Problem]:
    """A training batch must be shared out among ranks, and a rollout must hold one."""
    batch, micro, ranks = values["train.batch_size"], values["train.micro_batch_size"], data_ranks(values)
    dynamic = values["train.dynamic_batch_enable"]
    prompts, group = values["rollout.batch_size"], values["rollout.n_samples_per_prompt"]
    responses, generated = prompts * group, values["rollout.vllm_generate_batch_size"]
    if generated and generated < prompts:
        yield Problem(
            "--rollout.vllm_generate_batch_size",
            f" {generated} is less than --rollout.batch_size {prompts}: OpenRLHF would train on {generated} prompts a "
            f"step. Leave it out, or take at least {prompts}",
        )
    units = {  # DeepSpeed asserts it of models that are not trained, too
        model: data_ranks(values, model) * (1 if dynamic and model in ("actor", "critic") else micro)
        for model in models(values)
    }
    take = _fitting(batch, math.lcm(*units.values()), prompts, group)
    if batch % units["actor"]:
        by = f"{ranks} ranks" if dynamic else f"--train.micro_batch_size {micro} x {ranks} ranks"
        yield Problem("--train.batch_size", f" {batch} is not a multiple of {by}: take {take}")
        return
    for model, unit in units.items():
        if batch % unit:
            yield Problem(
                "--train.batch_size",
                f" {batch} is not a multiple of --train.micro_batch_size {micro} x the {data_ranks(values, model)} "
                f"ranks of the {model} model, which DeepSpeed asks for: take {take}",
            )
            return
    if batch > responses:
        yield Problem(
            "--train.batch_size",
            f" {batch} is more than the {responses} responses of a rollout (--rollout.batch_size {prompts} x "
            f"--rollout.n_samples_per_prompt {group}): no optimizer step would be made. Take at most {responses}",
        )
    elif responses % batch:
        yield Problem(
            "--rollout.batch_size",
            f" {prompts}: its {responses} responses are not a multiple of --train.batch_size {batch}: what is left "
            f"over would train in a later step, or never. Take a --train.batch_size that divides {responses}",
        )


def _rollouts(values: dict, rows: int | None) -> Iterator[Problem]:
    """Every rollout, the short last one of an episode too, must give all ranks equal work."""
    prompts, group, batch = (
        values["rollout.batch_size"],
        values["rollout.n_samples_per_prompt"],
        values["train.batch_size"],
    )
    if wrong := fault(values, prompts * group):
        yield Problem(
            "--rollout.micro_batch_size",
            f" {values['rollout.micro_batch_size']}: the {prompts * group} responses of a rollout {wrong}. "
            f"{_cure(values)}",
        )
        return
    if rows is None:
        return
    rows = min(rows, values["data.max_samples"])
    if rows < 1:
        yield Problem("--data.prompt_dataset", " holds no row: nothing would be trained")
        return
    last = rows % prompts * group
    # With dynamic filtering nobody knows the last rollout; `whole_groups` cuts it when it comes.
    wrong = "" if values["algo.dynamic_filtering_enable"] or not last else fault(values, last)
    if wrong:
        fits = next(
            (n for n in range(rows - 1, 0, -1) if not n % prompts or not fault(values, n % prompts * group)), 0
        )
        other = f"--data.max_samples {fits}" if fits else "more rows"
        yield Problem(
            "--data.max_samples",
            f": {rows} rows end with a rollout of {rows % prompts} prompts, whose {last} responses {wrong}. "
            f"Take {other}",
        )
    elif rows < prompts and last < batch:
        yield Problem(
            "--data.prompt_dataset",
            f" holds {rows} rows: their {last} responses are less than --train.batch_size {batch}: no optimizer step "
            f"would be made. Take --rollout.batch_size {rows}, and a --train.batch_size that divides {last}",
        )


def whole_groups(values: dict, responses: int) -> int:
    """Return how many responses of a rollout to keep, whole groups from the first on, so that ranks get equal work."""
    group = values["rollout.n_samples_per_prompt"]
    return next((n for n in range(responses // group * group, 0, -group) if not fault(values, n)), 0)


def _cure(values: dict) -> str:
    """Name sizes that work: a smaller micro-batch, or another number of prompts."""
    group, batch = values["rollout.n_samples_per_prompt"], values["train.batch_size"]
    for micro in range(values["rollout.micro_batch_size"] - 1, 0, -1):
        smaller = {**values, "rollout.micro_batch_size": micro}
        if not fault(smaller, values["rollout.batch_size"] * group):
            return f"Take --rollout.micro_batch_size {micro}"
    prompts = range(values["rollout.batch_size"] + 1, values["rollout.batch_size"] + 4096)
    fits = next((n for n in prompts if n * group % batch == 0 and not fault(values, n * group)), None)
    return f"Take --rollout.batch_size {fits}" if fits else "Take other numbers of ranks"


def size_notes(values: dict, rows: int | None) -> Iterator[str]:
    """Say what is allowed, and may surprise."""
    if rows is None:
        return
    rows = min(rows, values["data.max_samples"])
    prompts, batch = values["rollout.batch_size"], values["train.batch_size"]
    last = rows % prompts * values["rollout.n_samples_per_prompt"]
    if last and last % batch and rows >= prompts:
        fate = "are left out" if values["train.dynamic_batch_enable"] else "enter the next optimizer step"
        yield (
            f"the last rollout of an episode has {rows % prompts} prompts: {last % batch} of its {last} responses "
            f"fill no --train.batch_size {batch} and {fate}; --data.max_samples {rows - rows % prompts} drops them"
        )


def _fitting(batch: int, unit: int, prompts: int, group: int) -> str:
    """Name the multiples of `unit` next to a batch that divide the rollout; else those of the next larger rollout."""
    fits = [n for n in range(unit, prompts * group + 1, unit) if prompts * group % n == 0]
    if not fits:
        step = unit // math.gcd(unit, group)
        larger = -(-prompts // step) * step
        return f"{_fitting(batch, unit, larger, group)} with --rollout.batch_size {larger}"
    near = [max((n for n in fits if n <= batch), default=0), min((n for n in fits if n > batch), default=0)]
    return " or ".join(str(n) for n in near if n)
