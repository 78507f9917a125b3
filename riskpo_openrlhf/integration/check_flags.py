"""Find flags that OpenRLHF, DeepSpeed, transformers or vLLM refuse only once models are loaded, or never."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from riskpo_openrlhf.integration.faults import Problem
from riskpo_openrlhf.integration.final_flags import flat, names
from riskpo_openrlhf.verifiers import built_in

# flag: lowest, highest (None: no limit), what is allowed. Of two numbers each.
BOUNDS = {
    "rollout.top_p": (1e-9, 1, "(0, 1]"),
    "vllm.gpu_memory_utilization": (1e-9, 1, "(0, 1]"),
    "actor.dual_clip": (1 + 1e-9, None, "(1, inf)"),
    "actor.aux_loss_coef": (0, None, "[0, inf)"),
    "critic.value_clip": (0, None, "[0, inf]"),
    "algo.kl.init_coef": (0, None, "[0, inf); OpenRLHF would take it for 0"),
    "algo.advantage.gamma": (0, 1, "[0, 1]"),
    "algo.advantage.lambd": (0, 1, "[0, 1]"),
    "eval.temperature": (0, None, "[0, inf)"),
    "data.dataloader_num_workers": (0, None, "0 or more"),
    "data.max_images_per_prompt": (0, None, "0 or more"),
    "ds.zero_stage": (0, 3, "0, 1, 2 or 3"),
    "ds.zpg": (0, None, "0 or more"),
    "ckpt.max_num": (1, None, "1 or more"),
    "ckpt.max_mem": (0, None, "[0, inf] GiB"),
    "train.ema_beta": (0, 1, "[0, 1]"),
    "train.max_tokens_per_gpu": (1, None, "1 or more"),
    "rollout.max_tokens_per_gpu": (1, None, "1 or more"),
    "reward.stop_properly_penalty_coef": (None, 1, "[0, 1] scales a cut-off response's reward, below 0 replaces it"),
    "reward.overlong_buffer_len": (0, None, "[0, inf)"),
    "reward.overlong_penalty_factor": (0, None, "[0, inf)"),
}
# Of the policy, and of the critic if there is one.
OPTIMIZER_BOUNDS = {
    "adam.lr": (0, None, "[0, inf)"),
    "adam.betas": (0, 1 - 1e-9, "[0, 1)"),
    "adam.eps": (0, None, "[0, inf)"),
    "adam.weight_decay": (0, None, "[0, inf)"),
    "muon.lr": (0, None, "[0, inf)"),
    "muon.momentum": (0, 1 - 1e-9, "[0, 1)"),
    "lr_warmup_ratio": (0, 1, "[0, 1]"),
    "min_lr_ratio": (0, 1, "[0, 1]"),
}
# Infinity means no limit. Everywhere else it is a mistake, and NaN is one everywhere.
MAY_BE_INFINITE = (
    "ckpt.max_mem", "actor.max_norm", "critic.max_norm", "actor.eps_clip", "actor.eps_clip_low_high",
    "critic.value_clip", "reward.clip_range", "algo.dynamic_filtering_range",
    "algo.advantage.is_correction_threshold",
)  # fmt: skip
SYNC_BACKENDS = ("nccl", "gloo", "mpi", "ucc", "xccl", "hccl")
GRADIENT_TYPES = ("fp32", "float32", "float", "torch.float32", "bf16", "bfloat16", "torch.bfloat16")


def value_problems(values: dict) -> Iterator[Problem]:
    """Find values that would end the job late. `values`: the final flags by dotted name."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.trainer_utils import SchedulerType

    schedulers = [one.value for one in SchedulerType]
    trained, bounds = ["actor"] + ["critic"] * (values["algo.advantage.estimator"] == "gae"), dict(BOUNDS)
    for model in trained:
        bounds |= {f"{model}.{name}": bound for name, bound in OPTIMIZER_BOUNDS.items()}
        if (name := values[f"{model}.lr_scheduler"]) not in schedulers:
            yield Problem(f"--{model}.lr_scheduler", f" {name} is not known: one of {', '.join(schedulers)}")
    yield from _correction(values)
    for name, value in values.items():
        beyond = math.isnan if name in MAY_BE_INFINITE else lambda number: not math.isfinite(number)
        if any(isinstance(number, float) and beyond(number) for number in numbers(value)):
            yield Problem(f"--{name}", f" {shown(value)} is not allowed: a finite number")
    for name, (low, high, allowed) in bounds.items():
        if any((low is not None and n < low) or (high is not None and n > high) for n in numbers(values[name])):
            yield Problem(f"--{name}", f" {shown(values[name])} is not allowed: {allowed}")
    low = min(values["actor.eps_clip_low_high"] or [0])
    if low < 0:
        yield Problem("--actor.eps_clip", f" {low:g} is not allowed: 0 or more")
    rate = f"actor.{values['actor.optim']}.lr"
    if values[rate] == 0:
        yield Problem(f"--{rate}", " 0 would train nothing: a value above 0")
    highest = 2**32 - max(1, values["vllm.num_engines"] or 1)  # each engine adds its number
    if not 0 <= values["train.seed"] <= highest:
        yield Problem("--train.seed", f" {values['train.seed']} is not allowed: 0 to {highest}")
    if values["reward.clip_range"][0] >= values["reward.clip_range"][1]:
        yield Problem(
            "--reward.clip_range", f" {shown(values['reward.clip_range'])} makes all rewards equal: LOW HIGH"
        )
    if values["critic.freezing_steps"] > 0 and "critic" not in trained:
        yield Problem(
            "--critic.freezing_steps",
            f" {values['critic.freezing_steps']} keeps the policy untrained so long, and --algo.advantage.estimator "
            f"{values['algo.advantage.estimator']} has no critic that learns meanwhile. Leave it out",
        )
    if values["ds.grad_accum_dtype"] not in (None, *GRADIENT_TYPES):
        yield Problem("--ds.grad_accum_dtype", f" {values['ds.grad_accum_dtype']} is not allowed: fp32 or bf16")
    if values["vllm.sync_backend"] not in SYNC_BACKENDS:
        yield Problem(
            "--vllm.sync_backend", f" {values['vllm.sync_backend']} is not known: one of {', '.join(SYNC_BACKENDS)}"
        )
    attention = values["ds.attn_implementation"]
    if "/" not in attention and attention not in (known := ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]):
        yield Problem("--ds.attn_implementation", f" {attention} is not known: one of {', '.join(known)}")
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


def numbers(value) -> tuple:
    """Return the numbers in the value of a flag: none, one, or several."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def shown(value) -> str:
    """Write the value of a flag as it stands on a command line."""
    return " ".join(f"{number:g}" if isinstance(number, float) else str(number) for number in numbers(value))


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
    if values["ds.ring_attn_size"] > 1 and values["riskpo.runtime"] == "cpu":
        yield Problem("--ds.ring_attn_size", " needs flash-attn, which does not run on a CPU. Leave it out")
    if len(names(values["reward.model_name_or_path"])) > 1 and not values["reward.remote_url"]:
        yield Problem("--reward.model_name_or_path", " names several models, and OpenRLHF loads one. Name one")
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
    if values["data.input_template"] and values["data.apply_chat_template"]:
        yield "--data.input_template has no effect beside --data.apply_chat_template"
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
