"""Values that OpenRLHF, DeepSpeed, transformers or vLLM refuse only once models are loaded, told before."""

import json
import sys

import pytest
from openrlhf.models.loss import PolicyLoss

from riskpo_openrlhf.integration import launch
from riskpo_openrlhf.integration.check_flags import BOUNDS, value_problems
from riskpo_openrlhf.integration.check_sizes import size_problems
from riskpo_openrlhf.integration.parser import openrlhf_parser

DEFAULTS = vars(openrlhf_parser().parse_args([])) | {"algo.kl.init_coef": 0.01, "actor.eps_clip_low_high": (0.2, 0.2)}
SIZES = {
    "algo.advantage.estimator": "group_norm", "vllm.num_engines": 1, "actor.num_gpus_per_node": 1,
    "ref.num_gpus_per_node": 1, "critic.num_gpus_per_node": 1, "reward.remote_url": ["x"], "ds.zero_stage": 3,
    "rollout.batch_size": 12, "rollout.n_samples_per_prompt": 4, "rollout.micro_batch_size": 4,
    "train.batch_size": 24, "train.micro_batch_size": 4,
}  # fmt: skip
CORRECTION = "algo.advantage.is_correction_"


def flags(**changes) -> list[str]:
    return [problem.flag for problem in value_problems({**DEFAULTS, **changes})]


def test_openrlhfs_defaults_pass():
    assert flags() == []


@pytest.mark.parametrize("name", BOUNDS)
def test_a_value_beyond_either_bound_is_refused_and_the_bounds_pass(name):
    low, high, _ = BOUNDS[name]
    more = {"rollout.max_new_tokens": 64}
    for edge, step in ((low, -1), (high, 1)):
        if edge is not None:
            assert f"--{name}" not in flags(**more, **{name: edge})
            assert f"--{name}" in flags(**more, **{name: edge + step})


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"actor.adam.lr": 0.0}, "--actor.adam.lr"),
        ({"actor.eps_clip_low_high": (0.2, -1.0)}, "--actor.eps_clip"),
        ({"ds.param_dtype": "fp16"}, "--ds.param_dtype"),
        ({"ds.load_in_4bit": True}, "--ds.load_in_4bit"),
        ({"actor.lr_scheduler": "cosin"}, "--actor.lr_scheduler"),
        ({"reward.overlong_buffer_len": 4.0}, "--reward.overlong_buffer_len"),
    ],
)
def test_a_value_that_ends_the_job_late_is_refused(changes, flag):
    assert flags(**changes) == [flag]


@pytest.mark.parametrize("level", ["off", "token", "seq"])
@pytest.mark.parametrize("mode", ["mask", "clip"])
@pytest.mark.parametrize("gating", ["ratio", "binary_kl", "tv"])
@pytest.mark.parametrize("threshold", [[0.0, 0.1], [0.5, 5.0]])
def test_a_correction_is_refused_exactly_where_openrlhfs_loss_refuses_it(level, mode, gating, threshold):
    given = {"level": level, "mode": mode, "gating": gating, "threshold": threshold}
    try:
        PolicyLoss(**{f"is_correction_{name}": value for name, value in given.items()})
        refused = False
    except ValueError:
        refused = True
    if level == "off":  # has no effect: OpenRLHF's complaint about the mode alone is left to it
        return
    assert bool(flags(**{CORRECTION + name: value for name, value in given.items()})) == refused


@pytest.mark.parametrize(
    ("changes", "rows", "flag"),
    [
        ({"ref.num_gpus_per_node": 4}, None, "--train.batch_size"),
        ({"ref.num_gpus_per_node": 2, "train.micro_batch_size": 8, "train.dynamic_batch_enable": True}, None,
         "--train.batch_size"),
        ({"algo.advantage.estimator": "gae", "algo.kl.init_coef": 0.0, "critic.num_gpus_per_node": 2,
          "rollout.micro_batch_size": 8}, 30, "--data.max_samples"),
    ],
)  # fmt: skip
def test_sizes_hold_for_the_ranks_of_every_model_not_the_policys_alone(changes, rows, flag):
    assert not list(size_problems({**DEFAULTS, **SIZES}, 24))
    (found,) = size_problems({**DEFAULTS, **SIZES, **changes}, rows)
    assert found.flag == flag


@pytest.mark.parametrize(
    ("words", "flag", "said"),
    [
        (["--algo.advantage.estimator", "rloo", "--rollout.n_samples_per_prompt", "1"],
         "--rollout.n_samples_per_prompt", "requires n_samples_per_prompt > 1"),
        (["--algo.advantage.estimator", "gae"], "--reward.model_name_or_path", "missing"),
        (["--train.dynamic_batch_enable", "--reward.remote_url", "riskpo"], "--vllm.num_engines", "missing"),
        (["--train.partial_rollout_enable", "--reward.remote_url", "riskpo"], "--train.async_enable", "requires"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["json", "text"])
def test_what_openrlhfs_own_checks_refuse_is_a_problem_with_its_flag(words, flag, said, form, monkeypatch, capsys):
    monkeypatch.setattr(launch.argparse.ArgumentParser, "parse_args", launch.parse_args)
    monkeypatch.setattr(launch, "_job", {})
    monkeypatch.setattr("sys.argv", ["train", *words, "--riskpo.dry_run", form])
    monkeypatch.delitem(sys.modules, launch.OPENRLHF_MODULE, raising=False)
    with pytest.raises(SystemExit) as stopped:
        launch.run()
    last = capsys.readouterr().out.splitlines()[-1]
    assert stopped.value.code == 2 and said in last and flag in last
    if form == "json":
        assert json.loads(last)["problems"][0]["flag"] == flag
