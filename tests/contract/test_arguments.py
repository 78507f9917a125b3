"""Our flags in OpenRLHF's real parser."""

import pytest

from riskpo_openrlhf.config import FIXED_BY_RELEASED, KNOBS, METHOD_FLAGS, PRESETS, RiskPOConfig
from riskpo_openrlhf.integration import arguments, launch
from riskpo_openrlhf.integration.parser import early_flags, openrlhf_parser
from riskpo_openrlhf.verifiers import reward_func

RISKPO = ["--algo.advantage.estimator", "riskpo"]
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
    assert {name: vars(flat)[name] for name in METHOD_FLAGS[preset]} == METHOD_FLAGS[preset]
    args = nested(flat)
    assert arguments.config_from_args(args) == config
    assert arguments.method_flags(args) == METHOD_FLAGS[preset]
    if config.released:  # what its authors' code decides is not a setting of this run
        assert all(vars(flat)[f"algo.riskpo.{name}"] is None for name in FIXED_BY_RELEASED)


def nested(flat):
    """The flags as OpenRLHF's trainers see them."""
    from openrlhf.utils.config import hierarchize

    return hierarchize(flat)


# Eq. 3 averaged over responses, clip .2, no KL, no entropy bonus (Appendix B.1), written out by hand.
EQ_3 = {
    "actor.policy_loss_type": "riskpo", "actor.loss_agg_mode": "seq-mean-token-mean", "actor.eps_clip": 0.2,
    "actor.dual_clip": None, "actor.entropy_coef": 0.0, "algo.kl.init_coef": 0.0,
}  # fmt: skip
OF_THE_AUTHORS = {"actor.policy_loss_type": "ppo", "actor.loss_agg_mode": "token-mean", "actor.dual_clip": 3.0}
OF_PRESETS = {
    "paper": EQ_3,
    "recommended": {**EQ_3, "actor.policy_loss_type": "ppo"},
    **{f"released-{script}": {**EQ_3, **OF_THE_AUTHORS} for script in ("dapo", "math", "seeking")},
}


def test_the_estimator_alone_trains_by_the_paper_loss_included():
    flat, config = parse("--algo.advantage.estimator", "riskpo")
    assert config == RiskPOConfig() and vars(flat)["algo.riskpo.preset"] == "paper"
    assert {name: vars(flat)[name] for name in EQ_3} == EQ_3
    assert METHOD_FLAGS == OF_PRESETS


# flag, another value, OpenRLHF's default of it
GIVEN = [
    ("actor.policy_loss_type", "gpg", "ppo"),
    ("actor.loss_agg_mode", "seq-mean-token-mean", "token-mean"),
    ("actor.eps_clip", 0.1, 0.2),
    ("actor.dual_clip", 4.0, None),
    ("actor.entropy_coef", 0.5, None),
    ("algo.kl.init_coef", 0.25, 0.01),
]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("name", "other", "default"), GIVEN)
def test_a_flag_given_beside_a_preset_wins_even_with_openrlhfs_default(preset, name, other, default):
    for value in (other, default) if default is not None else (other,):
        flat, _ = parse(*RISKPO, *GROUP, "--algo.riskpo.preset", preset, f"--{name}", str(value))
        assert vars(flat)[name] == value


def test_a_pair_of_clip_edges_wins_over_the_preset_as_openrlhf_reads_it():
    flat, config = parse(*RISKPO, *GROUP, "--actor.eps_clip_low_high", "0.1", "0.3")
    args = nested(flat)
    assert args.actor.eps_clip_low_high == [0.1, 0.3]
    assert arguments.method_flags(args)["actor.eps_clip"] == (0.1, 0.3)


def test_the_authors_dual_clip_does_not_follow_to_a_loss_without_one():
    preset = ["--algo.riskpo.preset", "released-math"]
    for loss, expected in (("gmpo", None), ("gpg", None), ("riskpo", 3.0), ("gspo", 3.0)):
        flat, _ = parse(*RISKPO, *GROUP, *preset, "--actor.policy_loss_type", loss)
        assert vars(flat)["actor.dual_clip"] == expected


def start_line(*argv):
    flat, config = parse(*RISKPO, *GROUP, *argv)
    return config.describe(vars(flat)["algo.riskpo.preset"], arguments.method_flags(nested(flat)))


def test_the_start_line_names_every_difference_from_the_paper():
    assert start_line() == "RiskPO preset paper"
    given = (
        "--algo.riskpo.alpha 0.3 --actor.policy_loss_type ppo --actor.loss_agg_mode token-mean --actor.dual_clip 3 "
        "--actor.eps_clip_low_high 0.2 0.28 --algo.kl.init_coef 0.01 --actor.entropy_coef 0.1"
    )
    line = start_line(*given.split())
    changed, differs = line.split("; ")[1:]
    for text in (changed.replace("preset ", "paper "), differs):
        for difference in (
            "alpha=0.3 (paper 0.2)", "actor.policy_loss_type=ppo (paper riskpo)",
            "actor.loss_agg_mode=token-mean (paper seq-mean-token-mean)", "actor.eps_clip=(0.2, 0.28) (paper 0.2)",
            "algo.kl.init_coef=0.01 (paper 0.0)", "actor.dual_clip=3.0 (paper none)",
            "actor.entropy_coef=0.1 (paper 0.0)",
        ):  # fmt: skip
            assert difference in text.replace("None", "none"), text
    line = start_line("--algo.riskpo.preset", "recommended")
    assert "changed" not in line and "actor.policy_loss_type=ppo (paper riskpo)" in line
    assert "credit=counterfactual (paper uniform)" in line and "loss_agg_mode" not in line
    line = start_line("--algo.riskpo.preset", "released-dapo")
    assert "released=dapo (paper none)" in line and "actor.loss_agg_mode=token-mean" in line


def test_our_losses_with_another_estimator_keep_openrlhfs_defaults_and_log_the_entropy():
    others = ["--algo.advantage.estimator", "group_norm", *GROUP, "--actor.policy_loss_type", "riskpo"]
    values = vars(parse(*others)[0])
    assert values["algo.kl.init_coef"] == 0.01 and values["actor.dual_clip"] is None
    assert values["actor.loss_agg_mode"] == "seq-mean-token-mean"  # as in Eq. 3
    assert values["actor.entropy_coef"] == 0.0


def other_value(knob):
    if isinstance(knob.default, bool):
        return not knob.default
    if knob.metadata["choices"]:
        return knob.metadata["choices"][-1]
    return {"alpha": 0.3, "beta": 0.7, "omega": 2.0, "bundle_size": 3, "tracker_lr": 0.05, "tracker_decay": 0.5}.get(
        knob.name, 0.125
    )


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.name)
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
        early_flags(["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "RiskPO: Used with --algo.advantage.estimator riskpo" in text
    for knob in KNOBS:
        assert f"--algo.riskpo.{knob.name}" in text
    # OpenRLHF's own defaults stay to be seen, beside what the presets make of them.
    assert "PPO clip range (default: 0.2; with estimator riskpo by preset: paper 0.2" in text
    assert "KL penalty in PPO (default: 0.01; with estimator riskpo by preset: paper 0.0, recommended 0.0" in text
    assert "(default: ppo; with estimator riskpo by preset: paper riskpo, recommended ppo, released-dapo ppo" in text
    assert "NotGiven" not in text and "algo.riskpo.released" not in text
    assert "lower quantile level" in text and "(0, 1); default: 0.2, recommended: 0.4" in text


def test_other_estimators_parse_as_before():
    flat, config = parse("--algo.advantage.estimator", "group_norm", *GROUP)
    assert config is None
    for name, _, default in GIVEN:
        assert vars(flat)[name] == default


def test_entropy_is_logged_always():
    flat, _ = parse(*RISKPO, *GROUP)
    assert vars(flat)["actor.entropy_coef"] == 0.0
    flat, _ = parse(*RISKPO, *GROUP, "--actor.entropy_coef", "0.01")
    assert vars(flat)["actor.entropy_coef"] == 0.01


WRONG = {
    "level out of range": (["--algo.riskpo.alpha", "1.5"], r"--algo.riskpo.alpha 1.5 is not allowed: (0, 1)"),
    "levels crossed": (["--algo.riskpo.alpha", "0.9"], "--algo.riskpo.alpha 0.9 must be below --algo.riskpo.beta"),
    "bundle of none": (["--algo.riskpo.bundle_size", "0"], "--algo.riskpo.bundle_size 0 is not allowed: [1, inf)"),
    "unknown preset": (["--algo.riskpo.preset", "best"], "--algo.riskpo.preset"),
    "unknown credit": (["--algo.riskpo.credit", "all"], "'all' is not allowed: one of: uniform, counterfactual"),
    "not a boolean": (["--algo.riskpo.constant", "maybe"], "'maybe' is not allowed: true or false"),
    "no full bundle": (["--rollout.batch_size", "4"], "--rollout.batch_size 4 is below --algo.riskpo.bundle_size 5"),
    "discount": (["--algo.advantage.gamma", "0.9"], "--algo.advantage.gamma 0.9 is not allowed with riskpo"),
    "overlong penalty without effect": (["--reward.overlong_buffer_len", "9"], "--algo.riskpo.shaped_rewards true"),
    "truncation penalty without effect": (["--reward.stop_properly_penalty_coef", "0"], "--algo.riskpo.shaped"),
    "evaluation on nothing": (["--riskpo.eval_at_start"], "--riskpo.eval_at_start needs --eval.dataset"),
    "no step": (["--riskpo.max_steps", "0"], "--riskpo.max_steps 0 is not allowed: at least 1"),
    "a length of no evaluation": (["--riskpo.eval_max_new_tokens", "9"], "--riskpo.eval_max_new_tokens needs --eval"),
    "an evaluation that leaves no room for the prompt": (
        ["--riskpo.eval_max_new_tokens", "64", "--data.max_len", "64", "--eval.dataset", "x"],
        "--riskpo.eval_max_new_tokens 64 is not allowed: 1 to 63",
    ),
    "a stall before the start": (["--riskpo.stall_timeout", "-1"], "--riskpo.stall_timeout -1 is not allowed: [0,"),
    "a stall that is no number": (["--riskpo.stall_timeout", "nan"], "--riskpo.stall_timeout nan is not allowed"),
    "fewer restarts than none": (["--riskpo.max_restarts", "-1"], "--riskpo.max_restarts -1 is not allowed: [0, inf)"),
    "a knob of the authors' code": (
        ["--algo.riskpo.preset", "released-dapo", "--algo.riskpo.credit", "uniform"],
        "--algo.riskpo.credit uniform can't stand beside --algo.riskpo.preset released-dapo",
    ),
    "a KL loss of weight 0": (["--algo.kl.use_loss"], "--algo.kl.use_loss has no effect with --algo.kl.init_coef 0"),
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
    early, flat = early_flags([*GROUP, *flags, "--a.flag.of.another.script", "1"]), vars(parse(*GROUP, *flags)[0])
    for name, allowed in (("riskpo.runtime", ("cpu",)), ("riskpo.dry_run", ("text", "json"))):
        assert early[name] == flat[name] and early[name] in allowed


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
