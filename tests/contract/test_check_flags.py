"""Values that OpenRLHF, DeepSpeed, transformers or vLLM refuse only once models are loaded, told before."""

import json
import math
import sys

import pytest
from openrlhf.models.loss import PolicyLoss

from riskpo_openrlhf.integration import launch
from riskpo_openrlhf.integration.check_flags import BOUNDS, MAY_BE_INFINITE, OPTIMIZER_BOUNDS, value_problems
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


ALL_BOUNDS = BOUNDS | {f"{model}.{name}": bound for model in ("actor", "critic")
                       for name, bound in OPTIMIZER_BOUNDS.items()}  # fmt: skip
FLOATS = sorted(action.dest for action in openrlhf_parser()._actions if action.type is float)


@pytest.mark.parametrize("name", FLOATS)
def test_no_flag_takes_nan_and_infinity_only_where_it_means_no_limit(name):
    pair = isinstance(DEFAULTS[name], (tuple, list)) or name == "actor.eps_clip_low_high"
    assert f"--{name}" in flags(**{name: (0.5, math.nan) if pair else math.nan})
    refused = f"--{name}" in flags(**{name: (0.5, math.inf) if pair else math.inf})
    assert refused == (name not in MAY_BE_INFINITE)


@pytest.mark.parametrize("name", ALL_BOUNDS)
def test_a_value_beyond_either_bound_is_refused_and_the_bounds_pass(name):
    low, high, _ = ALL_BOUNDS[name]
    more = {"rollout.max_new_tokens": 64, "algo.advantage.estimator": "gae", "actor.optim": "muon"}
    if name == "actor.muon.lr":
        more["actor.optim"] = "adam"
    for edge, step in ((low, -1), (high, 1)):
        if edge is not None:
            assert f"--{name}" not in flags(**more, **{name: edge})
            assert f"--{name}" in flags(**more, **{name: edge + step})


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"actor.adam.lr": 0.0}, "--actor.adam.lr"),
        ({"actor.optim": "muon", "actor.muon.lr": 0.0}, "--actor.muon.lr"),
        ({"actor.adam.betas": (0.9, 1.0)}, "--actor.adam.betas"),
        ({"train.seed": -1}, "--train.seed"),
        ({"train.seed": 2**32}, "--train.seed"),
        ({"train.seed": 2**32 - 1, "vllm.num_engines": 2}, "--train.seed"),
        ({"reward.clip_range": (10.0, -10.0)}, "--reward.clip_range"),
        ({"critic.freezing_steps": 5, "algo.advantage.estimator": "riskpo"}, "--critic.freezing_steps"),
        ({"ds.grad_accum_dtype": "fp8"}, "--ds.grad_accum_dtype"),
        ({"vllm.sync_backend": "ncll"}, "--vllm.sync_backend"),
        ({"ds.attn_implementation": "flash_attention"}, "--ds.attn_implementation"),
        ({"actor.eps_clip_low_high": (0.2, -1.0)}, "--actor.eps_clip"),
        ({"ds.param_dtype": "fp16"}, "--ds.param_dtype"),
        ({"ds.load_in_4bit": True}, "--ds.load_in_4bit"),
        ({"actor.lr_scheduler": "cosin"}, "--actor.lr_scheduler"),
        ({"reward.overlong_buffer_len": 4.0}, "--reward.overlong_buffer_len"),
    ],
)
def test_a_value_that_ends_the_job_late_is_refused(changes, flag):
    assert flags(**changes) == [flag]


@pytest.mark.parametrize(
    "changes",
    [
        {"train.seed": 2**32 - 1, "vllm.num_engines": 1},
        {"actor.max_norm": 0.0},
        {"actor.max_norm": -1.0},  # DeepSpeed does not clip
        {"critic.freezing_steps": 5, "algo.advantage.estimator": "gae"},
        {"ds.grad_accum_dtype": "fp32"},
        {"ds.attn_implementation": "kernels-community/vllm-flash-attn3"},
        {"reward.clip_range": (-math.inf, math.inf)},
    ],
)
def test_what_may_look_odd_and_works_is_taken(changes):
    assert flags(**changes) == []


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
