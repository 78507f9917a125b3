"""`--riskpo.dry_run`: every check of a command line that needs neither a GPU nor Ray, and its final settings.

OpenRLHF's parser and its assertions have run by then. What is left are the mistakes that would show minutes later, on
the cluster: a missing model, data file or reward file, data that can't be read, sizes that don't fit.
"""

from __future__ import annotations

from types import SimpleNamespace

from riskpo_openrlhf.console import say
from riskpo_openrlhf.integration.arguments import config_from_args, method_flags, uses_riskpo
from riskpo_openrlhf.integration.check_start import check, resume_problems
from riskpo_openrlhf.integration.faults import as_json
from riskpo_openrlhf.integration.final_flags import flat
from riskpo_openrlhf.integration.placement import engines_share_gpus, gpus_needed


def report(args: SimpleNamespace) -> int:
    """Print the final settings (`args`, nested) and their problems. Return the exit code: 0, or 2 with problems."""
    values = flat(args)
    problems, notes, needs = check(values, call_reward=True)
    problems = [*problems, *resume_problems(args)]
    if args.riskpo.dry_run == "json":
        known = {"gpus": gpus_needed(values), "rollout": rollout(values), "flags": values, "notes": notes}
        print(as_json(problems, **known, memory=needs and needs._asdict()), flush=True)
        return 2 if problems else 0
    for name, value in sorted(values.items()):
        if not name.startswith("critic.") or values["algo.advantage.estimator"] == "gae":
            print(f"--{name} {_shown(value)}")
    if uses_riskpo(args):
        say(f"dry run: {config_from_args(args).describe(args.algo.riskpo.preset, method_flags(args))}")
    say(f"dry run: {summary(values)}")
    if values["riskpo.runtime"] != "cpu":
        model = values["actor.model_name_or_path"]
        say(
            f"dry run: {needs or f'note: memory is not estimated, since the config of {model} is not on this machine'}"
        )
    for note in notes:
        say(f"dry run: note: {note}")
    for problem in problems:
        say(f"dry run: {problem}")
    say(f"dry run: {f'{len(problems)} problems' if problems else 'ok'}")
    return 2 if problems else 0


def rollout(values: dict) -> dict[str, int]:
    """Return what a rollout is made of, and how many optimizer steps follow it. `values`: flags by dotted name."""
    prompts, group = values["rollout.batch_size"], values["rollout.n_samples_per_prompt"]
    batch = min(prompts * group, values["train.batch_size"])
    return {
        "prompts": prompts,
        "group": group,
        "responses": prompts * group,
        "optimizer_steps": prompts * group // values["train.batch_size"] * values["train.max_epochs"],
        "batch": batch,
    }


def summary(values: dict) -> str:
    """Say in one line what a rollout is made of and which GPUs the job asks for."""
    get, of = values.get, rollout(values)
    together = ", colocated" if engines_share_gpus(values) else ""
    return (
        f"{of['prompts']} prompts x {of['group']} responses = {of['responses']} a rollout, {of['optimizer_steps']} "
        f"optimizer steps of {of['batch']}; {gpus_needed(values)} GPUs: {get('actor.num_nodes')} x "
        f"{get('actor.num_gpus_per_node')} for the actor, {get('vllm.num_engines')} engines of "
        f"{get('vllm.tensor_parallel_size')}{together}"
    )


def _shown(value) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return "''" if value == "" else str(value)
