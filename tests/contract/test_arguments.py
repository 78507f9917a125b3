"""Our flags in OpenRLHF's real parser."""

from dataclasses import fields
from types import SimpleNamespace

import pytest

from riskpo_openrlhf.config import PRESETS, RiskPOConfig
from riskpo_openrlhf.integration import arguments, launch
from riskpo_openrlhf.integration.parser import look_ahead, openrlhf_parser
from riskpo_openrlhf.verifiers import reward_func

RISKPO = ["--algo.advantage.estimator", "riskpo", "--actor.policy_loss_type", "riskpo"]
GROUP = ["--rollout.n_samples_per_prompt", "8"]


def parse(*argv):
    """(flat flags, config) of a command line, by OpenRLHF's own parser."""
    flat = launch.parse_args(openrlhf_parser(), argv)
    own = vars(flat)["algo.advantage.estimator"] == arguments.ESTIMATOR
    return flat, arguments.config_from_flags(flat) if own else None


def refused(capsys, *argv) -> str:
    """The message of a command line that must stop with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        parse(*argv)
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_arrives_whole(preset):
    flat, config = parse(*RISKPO, *GROUP, "--algo.riskpo.preset", preset)
    assert config == RiskPOConfig.preset(preset)
    nested = SimpleNamespace(algo=SimpleNamespace(riskpo=SimpleNamespace()))
    for knob in fields(RiskPOConfig):
        setattr(nested.algo.riskpo, knob.name, vars(flat)[f"algo.riskpo.{knob.name}"])
    assert arguments.config_from_args(nested) == config


def other_value(knob):
    if isinstance(knob.default, bool):
        return not knob.default
    if knob.metadata["choices"]:
        return knob.metadata["choices"][-1]
    return {"alpha": 0.3, "beta": 0.7, "omega": 2.0, "bundle_size": 3, "tracker_lr": 0.05, "tracker_decay": 0.5}.get(
        knob.name, 0.125
    )


@pytest.mark.parametrize("knob", fields(RiskPOConfig), ids=lambda knob: knob.name)
def test_each_knob_has_a_flag_that_reaches_the_configuration(knob):
    value = other_value(knob)
    _, config = parse(
        *RISKPO,
        *GROUP,
        f"--algo.riskpo.{knob.name}",
        str(value).lower() if isinstance(value, bool) else str(value),
    )
    assert getattr(config, knob.name) == value != knob.default
    assert config.differences(RiskPOConfig()) == {knob.name: (value, knob.default)}


def test_help_shows_the_group_with_defaults_and_bounds(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "119")
    with pytest.raises(SystemExit) as stopped:
        look_ahead(["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "RiskPO: Used with --algo.advantage.estimator riskpo" in text
    for knob in fields(RiskPOConfig):
        assert f"--algo.riskpo.{knob.name}" in text
    assert "lower quantile level" in text and "(0, 1); default: 0.2, recommended: 0.4" in text


def test_other_estimators_parse_as_before():
    flat, config = parse("--algo.advantage.estimator", "group_norm", *GROUP)
    assert config is None
    assert vars(flat)["actor.entropy_coef"] is None
    assert vars(flat)["actor.policy_loss_type"] == "ppo"


def test_entropy_is_logged_always():
    flat, _ = parse(*RISKPO, *GROUP)
    assert vars(flat)["actor.entropy_coef"] == 0.0
    flat, _ = parse(*RISKPO, *GROUP, "--actor.entropy_coef", "0.01")
    assert vars(flat)["actor.entropy_coef"] == 0.01


def test_what_is_seldom_meant_is_noted():
    def noted(*argv):
        return arguments.notes(vars(parse(*GROUP, *argv)[0]))

    by_default = noted("--algo.advantage.estimator", "riskpo", "--algo.riskpo.preset", "recommended")
    assert [note.split()[0] for note in by_default] == ["--actor.loss_agg_mode", "--algo.kl.init_coef"]
    no_kl = ("--algo.kl.init_coef", "0")
    assert not noted(*RISKPO, *no_kl, "--algo.riskpo.preset", "recommended")  # Eq. 3's loss: a mean over responses
    by_recipe = ("--actor.policy_loss_type", "ppo", "--actor.loss_agg_mode", "seq-mean-token-mean")
    assert not noted(*RISKPO, *no_kl, "--algo.riskpo.preset", "recommended", *by_recipe)
    assert not noted(*RISKPO, "--algo.kl.use_loss")
    assert not noted("--algo.advantage.estimator", "group_norm")


WRONG = {
    "level out of range": (["--algo.riskpo.alpha", "1.5"], r"--algo.riskpo.alpha 1.5 is not allowed: (0, 1)"),
    "levels crossed": (["--algo.riskpo.alpha", "0.9"], "--algo.riskpo.alpha 0.9 must be below --algo.riskpo.beta"),
    "bundle of none": (["--algo.riskpo.bundle_size", "0"], "--algo.riskpo.bundle_size 0 is not allowed: [1, inf)"),
    "unknown preset": (["--algo.riskpo.preset", "best"], "--algo.riskpo.preset"),
    "unknown credit": (["--algo.riskpo.credit", "all"], "--algo.riskpo.credit 'all' is not allowed: one of: uniform"),
    "not a boolean": (["--algo.riskpo.constant", "maybe"], "'maybe' is not allowed: true or false"),
    "no full bundle": (["--rollout.batch_size", "4"], "--rollout.batch_size 4 is below --algo.riskpo.bundle_size 5"),
    "discount": (["--algo.advantage.gamma", "0.9"], "--algo.advantage.gamma 0.9 is not allowed with riskpo"),
    "overlong penalty without effect": (["--reward.overlong_buffer_len", "9"], "--algo.riskpo.shaped_rewards true"),
    "truncation penalty without effect": (["--reward.stop_properly_penalty_coef", "0"], "--algo.riskpo.shaped"),
    "evaluation on nothing": (["--riskpo.eval_at_start"], "--riskpo.eval_at_start needs --eval.dataset"),
    "halves too small": (
        ["--algo.riskpo.bundling", "stratified", "--algo.riskpo.quantile_source", "bundle",
         "--rollout.n_samples_per_prompt", "3"], "at least 4 are needed",
    ),
    "evaluation before asynchronous training": (
        ["--riskpo.eval_at_start", "--train.async_enable", "--eval.dataset", "x"],
        "--riskpo.eval_at_start does not work with",
    ),
    "preset of another estimator": (
        ["--algo.advantage.estimator", "rloo", "--algo.riskpo.preset", "paper"], "--algo.riskpo.preset needs",
    ),
    "dual clip with gmpo": (
        ["--actor.policy_loss_type", "gmpo", "--actor.dual_clip", "3"], "--actor.dual_clip has no meaning with",
    ),
    "dual clip below 1": (["--actor.dual_clip", "0.5"], "--actor.dual_clip 0.5 is not allowed: (1, inf)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_flags_stop_before_any_gpu_and_name_the_flag(capsys, case):
    argv, message = WRONG[case]
    assert message in refused(capsys, *RISKPO, *GROUP, *argv)


def test_one_response_a_prompt_is_refused_where_responses_are_compared(capsys):
    message = refused(capsys, *RISKPO, "--algo.riskpo.preset", "recommended")
    assert "--rollout.n_samples_per_prompt 1 is too small: --algo.riskpo.bundling stratified" in message


def test_riskpo_knobs_without_the_estimator_are_refused(capsys):
    message = refused(capsys, "--algo.advantage.estimator", "group_norm", *GROUP, "--algo.riskpo.alpha", "0.3")
    assert "--algo.riskpo.alpha needs --algo.advantage.estimator riskpo, not group_norm" in message


@pytest.mark.parametrize(
    "flags", [("--riskpo.dry", "--riskpo.run", "cpu"), ("--riskpo.d=json", "--riskpo.runtime=cpu")]
)
def test_an_abbreviated_flag_means_the_same_before_openrlhf_is_imported_and_after(flags):
    early, flat = look_ahead([*GROUP, *flags, "--a.flag.of.another.script", "1"]), vars(parse(*GROUP, *flags)[0])
    assert early == (flat["riskpo.runtime"], flat["riskpo.dry_run"])
    assert early.runtime == "cpu" and early.dry_run in ("text", "json")


def test_the_parser_that_is_taken_out_of_openrlhfs_module_is_the_one_that_the_module_builds(monkeypatch):
    import argparse
    import runpy

    class Found(BaseException):
        pass

    def found(self, *args):
        raise Found(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", found)
    with pytest.raises(Found) as theirs:
        runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__")
    described = [
        [
            (a.option_strings, a.dest, a.default, a.type, a.choices, a.nargs, a.help)
            for a in parser._actions
            if a.dest != "logger.wandb.run_name"  # its default is the time
        ]
        for parser in (theirs.value.args[0], openrlhf_parser())
    ]
    assert described[0] == described[1] and len(described[0]) > 150


def test_the_built_in_verifiers_are_chosen_by_name():
    for value, path in (("riskpo", reward_func.__file__), ("http://a:1,http://b:2", "http://a:1,http://b:2")):
        flat, _ = parse(*RISKPO, *GROUP, "--reward.remote_url", value)
        assert vars(flat)["reward.remote_url"] == path
