"""RiskPO's flags in OpenRLHF's own parser, and the checks that need no GPU."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

from riskpo_openrlhf.config import (
    FIXED_BY_RELEASED,
    FLAG_PREFIX,
    KNOBS,
    METHOD_FLAGS,
    PRESETS,
    RiskPOConfig,
    bounds_text,
)
from riskpo_openrlhf.verifiers import built_in

ESTIMATOR = "riskpo"
POLICY_LOSSES = ("riskpo", "gmpo", "gpg")
MEANS_OVER_RESPONSES = ("riskpo", "gmpo")  # losses that are one unless `--actor.loss_agg_mode` is given
DEFAULT_PRESET = "paper"
FOR_ALL = ("max_error_share",)  # knobs that hold for every estimator
_NAMES = [knob.name for knob in KNOBS]
_GROUP = FLAG_PREFIX.removeprefix("--")  # the flags' names in the parser's result
_METHOD_FLAGS = tuple(METHOD_FLAGS[DEFAULT_PRESET])


@dataclass(frozen=True)
class NotGiven:
    """The default of an OpenRLHF flag that a preset may set: tells a flag that was given from one that was not."""

    default: Any

    def __str__(self) -> str:  # where a help text shows the default
        return str(self.default)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: true or false")
    return text.lower() == "true"


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: a number of seconds, 0 or more")
    return found


def _positive_seconds(text: str) -> float:
    if not (seconds := _seconds(text)):
        raise argparse.ArgumentTypeError(f"{text} is not allowed: (0, inf)")
    return seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--algo.riskpo.*`, `--riskpo.*` and the new choices to OpenRLHF's parser, in place, once."""
    if "--riskpo.runtime" in parser._option_string_actions:
        return
    for flag, added in (("--algo.advantage.estimator", (ESTIMATOR,)), ("--actor.policy_loss_type", POLICY_LOSSES)):
        action = parser._option_string_actions[flag]
        action.choices = [*action.choices, *(choice for choice in added if choice not in action.choices)]
    reward = parser._option_string_actions["--reward.remote_url"]
    reward.type = built_in.reward_path
    reward.help = f"reward: a .py file, URLs of services, or {built_in.NAME} for the built-in verifiers"
    for name in _METHOD_FLAGS:
        action = parser._option_string_actions[f"--{name}"]
        by_preset = ", ".join(f"{preset} {flags[name]}" for preset, flags in METHOD_FLAGS.items())
        action.help = f"{action.help or ''} (default: {action.default}; with estimator riskpo by preset: {by_preset})"
        action.default = NotGiven(action.default)
    about = "Used with --algo.advantage.estimator riskpo. A knob that is not given has its preset's value."
    add = parser.add_argument_group("RiskPO", about).add_argument
    method = "the method: it sets every knob below and OpenRLHF's flags of the loss; flags that are given win"
    add(FLAG_PREFIX + "preset", choices=list(PRESETS), help=f"{method} (default: {DEFAULT_PRESET})")
    for knob in KNOBS:
        kind = _boolean if isinstance(knob.default, bool) else type(knob.default)
        presets = (f", {name}: {values[knob.name]}" for name, values in PRESETS.items() if knob.name in values)
        text = f"{knob.metadata['meaning']}; {bounds_text(knob.metadata)}; default: {knob.default}{''.join(presets)}"
        add(FLAG_PREFIX + knob.name, type=kind, metavar=knob.name.upper(), help=text.replace("%", "%%"))
    runtime = "cpu: run the same job without a GPU, for development and tests (default: gpu)"
    add("--riskpo.runtime", choices=["gpu", "cpu"], default="gpu", help=runtime)
    at_start = "evaluate once before the first step (synchronous mode)"
    add("--riskpo.eval_at_start", action="store_true", help=at_start)
    max_steps = "end training after N steps (rollouts), even if episodes are left; steps before a resume count, too"
    add("--riskpo.max_steps", type=int, metavar="N", help=max_steps)
    eval_tokens = "response tokens in evaluations during training (default: --rollout.max_new_tokens)"
    add("--riskpo.eval_max_new_tokens", type=int, metavar="N", help=eval_tokens)
    reward_timeout = (
        "seconds to wait for a reward; a response whose reward comes later has no verdict (default: %(default)g)"
    )
    add("--riskpo.reward_timeout", type=_positive_seconds, default=600.0, metavar="SECONDS", help=reward_timeout)
    wait = "seconds to wait at the start for nodes with GPUs to join the Ray cluster (default: 0)"
    add("--riskpo.wait_for_gpus", type=_seconds, default=0, metavar="SECONDS", help=wait)
    dry_run = "check all that needs no GPU, print the final settings, and end; json: the last line is one JSON object"
    stall = "end the run after SECONDS without progress, with stacks of its parts; 0: never (default: 3600)"
    add("--riskpo.stall_timeout", type=float, default=3600.0, metavar="SECONDS", help=stall)
    restarts = (
        "after a fault of machines, replace the vLLM engine that died, or restart from the last checkpoint, each at "
        "most N times (default: 0)"
    )
    add("--riskpo.max_restarts", type=int, default=0, metavar="N", help=restarts)
    add("--riskpo.dry_run", nargs="?", choices=["text", "json"], const="text", help=dry_run)


def config_from_flags(flat: argparse.Namespace) -> RiskPOConfig:
    """Build the configuration of dotted flags: the preset, with the knobs that are not None."""
    return _config({name: vars(flat)[_GROUP + name] for name in ("preset", *_NAMES)})


def config_from_args(args: SimpleNamespace) -> RiskPOConfig:
    """Build the configuration inside OpenRLHF's nested `args`, as `resolve` left it."""
    return _config(vars(args.algo.riskpo))


def _config(given: Mapping[str, Any]) -> RiskPOConfig:
    changed = {name: given[name] for name in _NAMES if given[name] is not None}
    return RiskPOConfig.preset(given["preset"] or DEFAULT_PRESET, **changed)


def uses_riskpo(args: SimpleNamespace) -> bool:
    """Tell whether OpenRLHF's nested `args` ask for RiskPO advantages."""
    return args.algo.advantage.estimator == ESTIMATOR


def method_flags(args: SimpleNamespace) -> dict[str, Any]:
    """Select the flags of the loss and the objective from OpenRLHF's nested `args`, by dotted name, for `describe`."""
    found = {name: attrgetter(name)(args) for name in _METHOD_FLAGS}
    low, high = args.actor.eps_clip_low_high or (args.actor.eps_clip, args.actor.eps_clip)
    found["actor.eps_clip"] = low if low == high else (low, high)  # OpenRLHF reads the pair and no other
    return found


def resolve(flat: argparse.Namespace) -> RiskPOConfig | None:
    """Check the flags together and put the preset's values into `flat`. Returns None for other estimators.

    Raises `ValueError` that names the flags, before Ray or a GPU is touched.
    """
    values = vars(flat)
    config = config_from_flags(flat)
    own_estimator = values["algo.advantage.estimator"] == ESTIMATOR
    kl_given = not isinstance(values["algo.kl.init_coef"], NotGiven)
    _fill_method_flags(values, values[_GROUP + "preset"] or DEFAULT_PRESET if own_estimator else None)
    if values["actor.policy_loss_type"] in POLICY_LOSSES:
        check_policy_loss(values)
    if own_estimator:
        check_combination(config, values, kl_given)
    elif given := [name for name in ("preset", *_NAMES) if values[_GROUP + name] is not None and name not in FOR_ALL]:
        raise ValueError(
            f"{FLAG_PREFIX}{given[0]} needs --algo.advantage.estimator {ESTIMATOR}, "
            f"not {values['algo.advantage.estimator']}"
        )
    for name in ("riskpo.stall_timeout", "riskpo.max_restarts"):
        if not values[name] >= 0:
            raise ValueError(f"--{name} {values[name]:g} is not allowed: [0, inf)")
    if values["riskpo.eval_at_start"] and not values["eval.dataset"]:
        raise ValueError("--riskpo.eval_at_start needs --eval.dataset: there is nothing to evaluate on")
    if values["riskpo.eval_at_start"] and values["train.async_enable"]:
        raise ValueError(
            "--riskpo.eval_at_start does not work with --train.async_enable: OpenRLHF's asynchronous generator "
            "would save a best checkpoint of step 0 that can't be resumed; leave one of them out"
        )
    _check_lengths(values)
    _check_template(values)
    values[_GROUP + "preset"] = values[_GROUP + "preset"] or DEFAULT_PRESET
    for name in _NAMES:  # None where the authors' code decides
        values[_GROUP + name] = None if config.released and name in FIXED_BY_RELEASED else getattr(config, name)
    return config if own_estimator else None


def _check_lengths(values: dict) -> None:
    """Refuse lengths of training and evaluation that can't be. Raises `ValueError`."""
    steps, tokens, room = (values[name] for name in ("riskpo.max_steps", "riskpo.eval_max_new_tokens", "data.max_len"))
    if steps is not None and steps < 1:
        raise ValueError(f"--riskpo.max_steps {steps} is not allowed: at least 1, or leave it out to train to the end")
    if tokens is None:
        return
    if not values["eval.dataset"]:
        raise ValueError("--riskpo.eval_max_new_tokens needs --eval.dataset: there is nothing to evaluate on")
    if not 0 < tokens < room:
        raise ValueError(
            f"--riskpo.eval_max_new_tokens {tokens} is not allowed: 1 to {room - 1}, since prompt and response share "
            f"--data.max_len {room}"
        )


def _check_template(values: dict) -> None:
    """Refuse a template that OpenRLHF would drop, or that loses the prompt. Raises `ValueError`."""
    template = values["data.input_template"]
    if not template or values["data.apply_chat_template"]:  # OpenRLHF reads it without a chat template only
        return
    flag, cure = f"--data.input_template {template!r}", "write {} once, where the prompt goes, and other braces twice"
    if "{}" not in template:
        raise ValueError(f"{flag} has no {{}}, so OpenRLHF would leave the template out: {cure}")
    try:
        filled = template.format("PROBE")
    except (IndexError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"{flag} can't be filled in ({type(error).__name__}: {error}): {cure}") from error
    if "PROBE" not in filled:
        raise ValueError(f"{flag} gives every prompt the same text, {filled!r}: {cure}")


def _fill_method_flags(values: dict, preset: str | None) -> None:
    """Replace each `NotGiven`: by the preset's value, or by OpenRLHF's default without a preset."""
    chosen = dict(METHOD_FLAGS[preset]) if preset else {}
    loss = values["actor.policy_loss_type"]
    loss = chosen.get("actor.policy_loss_type", loss.default) if isinstance(loss, NotGiven) else loss
    if loss in POLICY_LOSSES:
        chosen["actor.entropy_coef"] = 0.0  # OpenRLHF's way to log the entropy without a bonus
    if loss in MEANS_OVER_RESPONSES:
        chosen["actor.loss_agg_mode"] = "seq-mean-token-mean"
    if loss in ("gmpo", "gpg"):
        chosen.pop("actor.dual_clip", None)  # it has no meaning there
    for name in _METHOD_FLAGS:
        if isinstance(values[name], NotGiven):
            values[name] = chosen.get(name, values[name].default)


def check_combination(config: RiskPOConfig, values: dict, kl_given: bool = False) -> None:
    """Refuse what RiskPO can't honour. `values`: OpenRLHF's flags by dotted name. Raises `ValueError`."""
    group_size, prompts = values["rollout.n_samples_per_prompt"], values["rollout.batch_size"]
    config.require_group_size(group_size)
    if prompts < config.bundle_size:
        raise ValueError(
            f"--rollout.batch_size {prompts} is below {FLAG_PREFIX}bundle_size {config.bundle_size}: no full bundle "
            "could ever be formed and the quantile tracker would never move; raise the one or lower the other"
        )
    if values["algo.advantage.gamma"] != 1:
        raise ValueError(
            f"--algo.advantage.gamma {values['algo.advantage.gamma']} is not allowed with riskpo: the advantage "
            "belongs to the whole response; use 1"
        )
    # Whoever gives 0 beside --algo.kl.use_loss, as OpenRLHF's example for images does, knows that there is no KL.
    if values["algo.kl.use_loss"] and not kl_given and values["algo.kl.init_coef"] == 0:
        raise ValueError(
            "--algo.kl.use_loss has no effect with --algo.kl.init_coef 0, the value of every preset: give a "
            "coefficient above 0 (OpenRLHF's default without RiskPO is 0.01), or leave it out"
        )
    penalties = [
        f"--{name}"
        for name in ("reward.overlong_buffer_len", "reward.stop_properly_penalty_coef")
        if values[name] is not None
    ]
    if penalties and not config.shaped_rewards:
        raise ValueError(
            f"{penalties[0]} changes rewards, and RiskPO's statistics read raw scores, so it would have no effect: "
            f"add {FLAG_PREFIX}shaped_rewards true to let it enter the advantage, or leave it out"
        )


def check_policy_loss(values: dict) -> None:
    """Refuse what our policy losses can't honour. `values`: OpenRLHF's flags by dotted name. Raises `ValueError`."""
    dual_clip, kind = values["actor.dual_clip"], values["actor.policy_loss_type"]
    if dual_clip is not None and kind != "riskpo":
        raise ValueError(f"--actor.dual_clip has no meaning with --actor.policy_loss_type {kind}: leave it out")
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(f"--actor.dual_clip {dual_clip:g} is not allowed: (1, inf)")
