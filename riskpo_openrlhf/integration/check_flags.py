"""Find flags that OpenRLHF, DeepSpeed, transformers or vLLM refuse only once models are loaded, or never."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from riskpo_openrlhf.integration.faults import Problem
from riskpo_openrlhf.integration.final_flags import flat, names
from riskpo_openrlhf.verifiers import built_in

# flag: lowest, highest (None: no limit), what is allowed
BOUNDS = {
    "rollout.top_p": (1e-9, 1, "(0, 1]"),
    "vllm.gpu_memory_utilization": (1e-9, 1, "(0, 1]"),
    "actor.lr_warmup_ratio": (0, 1, "[0, 1]"),
    "eval.temperature": (0, None, "[0, inf)"),
    "ds.zero_stage": (0, 3, "0, 1, 2 or 3"),
    "ckpt.max_num": (1, None, "1 or more"),
    "train.max_tokens_per_gpu": (1, None, "1 or more"),
    "rollout.max_tokens_per_gpu": (1, None, "1 or more"),
    "reward.stop_properly_penalty_coef": (None, 1, "[0, 1] scales a cut-off response's reward, below 0 replaces it"),
    "reward.overlong_buffer_len": (0, None, "[0, inf)"),
}


def value_problems(values: dict) -> Iterator[Problem]:
    """Find values that would end the job late. `values`: the final flags by dotted name."""
    from transformers.trainer_utils import SchedulerType

    schedulers = [one.value for one in SchedulerType]
    for model in ("actor", "critic") if values["algo.advantage.estimator"] == "gae" else ("actor",):
        if (name := values[f"{model}.lr_scheduler"]) not in schedulers:
            yield Problem(f"--{model}.lr_scheduler", f" {name} is not known: one of {', '.join(schedulers)}")
    yield from _correction(values)
    for name, (low, high, allowed) in BOUNDS.items():
        value = values[name]
        if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
            yield Problem(f"--{name}", f" {value:g} is not allowed: {allowed}")
    if values["actor.optim"] == "adam" and values["actor.adam.lr"] <= 0:
        yield Problem("--actor.adam.lr", f" {values['actor.adam.lr']:g} would train nothing: a value above 0")
    low = min(values["actor.eps_clip_low_high"] or [0])
    if low < 0:
        yield Problem("--actor.eps_clip", f" {low:g} is not allowed: 0 or more")
    if values["ds.param_dtype"] != "bf16":
        yield Problem(
            "--ds.param_dtype",
            f" {values['ds.param_dtype']}: OpenRLHF's engines hold bf16 and refuse other weights at the first weight "
            "sync. Take bf16",
        )
    if values["ds.load_in_4bit"]:
        yield Problem(
            "--ds.load_in_4bit", ": OpenRLHF's engines refuse quantised weights at the first weight sync. Leave it out"
        )
    if values["reward.overlong_buffer_len"] is not None and values["rollout.max_new_tokens"] is None:
        yield Problem(
            "--reward.overlong_buffer_len", " is counted from --rollout.max_new_tokens, which is missing: give it"
        )


def _correction(values: dict) -> Iterator[Problem]:
    """What `PolicyLoss` refuses in the policy workers."""
    given = {name: values[f"algo.advantage.is_correction_{name}"] for name in ("level", "mode", "gating", "threshold")}
    if given["level"] == "off":
        return
    low, high = ([0.0, *given["threshold"]] if len(given["threshold"]) == 1 else given["threshold"])[:2]
    if low >= high:
        yield Problem(
            "--algo.advantage.is_correction_threshold",
            f" {low:g} {high:g} lets nothing pass: LOW below HIGH, or HIGH alone",
        )
    if given["mode"] == "clip" and (given["level"] == "seq" or given["gating"] != "ratio"):
        yield Problem(
            "--algo.advantage.is_correction_mode",
            " clip needs --algo.advantage.is_correction_level token and --algo.advantage.is_correction_gating ratio",
        )
    if given["gating"] != "ratio" and low > 0:
        yield Problem(
            "--algo.advantage.is_correction_threshold",
            f" {low:g} {high:g}: --algo.advantage.is_correction_gating {given['gating']} takes one number, the "
            "highest divergence",
        )


def flag_problems(values: dict) -> Iterator[Problem]:
    """Find flags that can't go together."""
    if not values["data.prompt_dataset"]:
        yield Problem("--data.prompt_dataset", " is missing: a prepared file, or a data set's name on the hub")
    zone, longest = values["reward.overlong_buffer_len"], values["rollout.max_new_tokens"]
    if zone and longest and zone > longest:
        yield Problem(
            "--reward.overlong_buffer_len", f" {zone:g} is longer than a response, --rollout.max_new_tokens {longest}"
        )
    if longest and longest >= values["data.max_len"]:
        yield Problem(
            "--rollout.max_new_tokens",
            f" {longest} leaves no room for a prompt in --data.max_len {values['data.max_len']}: OpenRLHF would cut "
            "prompts from the left",
        )
    if values["algo.kl.target"] and values["algo.kl.init_coef"] <= 0:
        yield Problem(
            "--algo.kl.target",
            f" {values['algo.kl.target']:g} adapts --algo.kl.init_coef, which is 0 (as in every preset) and stays 0: "
            "give a coefficient above 0, or leave the target out",
        )
    if values["train.enable_ema"] and values["riskpo.runtime"] == "cpu":
        yield Problem("--train.enable_ema", " needs a GPU: OpenRLHF copies the average to one. Leave it out")
    if values["algo.kl.target"] is not None and values["algo.kl.target"] <= 0:
        yield Problem("--algo.kl.target", f" {values['algo.kl.target']:g} divides the KL: above 0, or leave it out")
    if values["algo.kl.target"] and values["algo.kl.horizon"] <= 0:
        yield Problem("--algo.kl.horizon", f" {values['algo.kl.horizon']:g} divides the adaptation: above 0")
    if values["rollout.temperature"] <= 0:
        yield Problem(
            "--rollout.temperature",
            f" {values['rollout.temperature']:g}: log-probabilities are divided by it, and greedy responses of a "
            "prompt are all equal. Take a value above 0, such as 1",
        )
    if values["eval.dataset"] and values["eval.temperature"] == 0 and values["eval.n_samples_per_prompt"] > 1:
        yield Problem(
            "--eval.n_samples_per_prompt",
            f" {values['eval.n_samples_per_prompt']}: greedy responses (--eval.temperature 0) are all equal. Take 1",
        )
    # The built-in verifiers grade by the label; a reward function of one's own may do without.
    if str(built_in.PATH) in reward_names(values) and not values["data.label_key"]:
        yield Problem("--data.label_key", " is missing: the built-in verifiers compare with the label")
    if not values["reward.remote_url"] and not values["train.agent_func_path"]:
        if not values["reward.model_name_or_path"]:
            yield Problem(
                "--reward.remote_url",
                " is missing: nothing would give a reward. Take `riskpo`, a file with `reward_func`, the address of a "
                "verifier service, --train.agent_func_path or --reward.model_name_or_path",
            )


def flag_notes(values: dict, evaluated: int | None) -> Iterator[str]:
    """Say what is allowed, and may surprise."""
    if not values["data.label_key"] and str(built_in.PATH) not in reward_names(values):
        yield "without --data.label_key the reward function gets empty labels"
    if values["train.async_enable"] and values["algo.advantage.is_correction_level"] == "off":
        yield (
            "--train.async_enable trains on responses of older weights, and nothing corrects for it: consider "
            "--algo.advantage.is_correction_level token"
        )
    best = values["ckpt.best_metric_key"]
    if best and best != "none" and not (values["eval.dataset"] and values["eval.steps"] > 0):
        yield f"--ckpt.best_metric_key {best} has no effect without --eval.dataset and --eval.steps"
    if evaluated and evaluated > values["data.max_samples"]:
        yield (
            f"--data.max_samples {values['data.max_samples']} cuts the evaluation, too: {values['data.max_samples']} "
            f"of its {evaluated} rows are used, those of the first file first"
        )


def reward_names(values: dict) -> list[str]:
    """Return the files and addresses of the reward function; none with an agent."""
    return [] if values["train.agent_func_path"] else names(values["reward.remote_url"])


def refused_by_openrlhf(error: Exception, trace: TracebackType) -> Problem | None:
    """Read an error of OpenRLHF's own checks after parsing: the flags of the failing statement, and its text.

    Returns None if the error comes from anywhere else.
    """
    while trace.tb_next:
        trace = trace.tb_next
    frame, line = trace.tb_frame, trace.tb_lineno
    args = frame.f_globals.get("args")
    if frame.f_code.co_name != "<module>" or not hasattr(args, "rollout"):
        return None
    tree = ast.parse(Path(frame.f_code.co_filename).read_text(encoding="utf-8"))
    around = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and node.lineno <= line <= node.end_lineno]
    statement = ast.unparse(min(around, key=lambda node: node.end_lineno - node.lineno))
    named = [(statement.find(f"args.{name}"), name, value) for name, value in flat(args).items()]
    flags = [(name, value) for place, name, value in sorted(named, key=lambda found: found[0]) if place >= 0]
    text = str(error) if isinstance(error, AssertionError) else "it is missing"
    if not isinstance(error, AssertionError):
        flags = [(name, value) for name, value in flags if value is None and not name.startswith("critic.")] or flags
    shown = ", ".join(f"--{name} {value}" for name, value in flags)
    first = f"--{flags[0][0]}" if flags else ""
    return Problem(first, f"{shown.removeprefix(first)}: OpenRLHF refuses that: {text}")
