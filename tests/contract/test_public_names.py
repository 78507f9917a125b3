"""The names and signatures that other programs rely on (docs/method.md, section 12)."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import torch

SIGNATURES = {
    "riskpo_openrlhf.core.risk": {
        "rvar": "x alpha beta", "cvar": "x alpha", "mvar": "x alpha beta omega", "g": "z a b",
        "mvar_advantage": "scores q_alpha q_beta omega constant",
        "risk_seeking_advantage": "scores q_alpha q_beta omega constant",
    },
    "riskpo_openrlhf.core.losses": {
        "sequence_clipped_loss": "log_probs old_log_probs advantages mask clip_low clip_high dual_clip",
        "gmpo_loss": "log_probs old_log_probs advantages mask clip_low clip_high",
        "gpg_loss": "log_probs old_log_probs advantages mask",
    },
    "riskpo_openrlhf.verifiers.math": {"verify": "response gold"},
    "riskpo_openrlhf.verifiers.code": {"verify": "response gold"},
    "riskpo_openrlhf.verifiers.geometry": {"verify": "response gold"},
    "riskpo_openrlhf.evaluation.passk": {"pass_at_k": "n c k"},
}  # fmt: skip


@pytest.mark.parametrize(("module", "names"), SIGNATURES.items(), ids=SIGNATURES)
def test_functions_take_the_parameters_that_callers_pass(module, names):
    for name, parameters in names.items():
        found = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        assert list(found)[: len(parameters.split())] == parameters.split(), name
        assert all(p.default is not p.empty for p in list(found.values())[len(parameters.split()) :]), name


def test_the_package_gives_its_six_names():
    import riskpo_openrlhf
    from riskpo_openrlhf import QuantileTracker, RiskPOConfig, RiskPOEstimator
    from riskpo_openrlhf.core import quantiles

    launching = {"install", "openrlhf_args", "openrlhf_parser"}  # of a script of one's own
    assert set(riskpo_openrlhf.__all__) == launching | {"QuantileTracker", "RiskPOConfig", "RiskPOEstimator"}
    assert (
        all(callable(getattr(riskpo_openrlhf, name)) for name in launching)
        and QuantileTracker is quantiles.QuantileTracker
    )
    assert list(inspect.signature(RiskPOEstimator).parameters) == ["config", "seed"]
    step = inspect.signature(RiskPOEstimator.step)
    assert list(step.parameters) == ["self", "rewards", "step", "valid", "keys"]
    assert step.parameters["valid"].default is step.parameters["keys"].default is None
    rewards = torch.tensor([[1, 0, 1, 0]] * 10)
    for preset in ("paper", "recommended", "released-dapo", "released-math", "released-seeking"):
        estimator = RiskPOEstimator(RiskPOConfig.preset(preset), seed=1)
        result = estimator.step(rewards, 0, torch.ones(10, 4, dtype=torch.bool), [str(i) for i in range(10)])
        assert result.advantages.shape == result.bundle.shape == (10, 4) and result.scores.dim() == 1
        assert result.advantages.is_floating_point() and result.metrics
        RiskPOEstimator(RiskPOConfig.preset(preset)).load_state_dict(estimator.state_dict())


def test_a_verdict_has_its_three_fields():
    from riskpo_openrlhf.verifiers.math import verify

    verdict = verify(r"\boxed{7}", "7")
    assert verdict.correct is True and verdict.status and verdict.extracted == "7"


@pytest.mark.parametrize("command", ["train", "prepare_data", "evaluate", "plot", "report", "serve_verifiers"])
def test_every_command_is_a_module(command):
    assert importlib.util.find_spec(f"riskpo_openrlhf.cli.{command}")


def test_the_adapter_that_the_docs_print_gives_the_estimators_advantages_in_any_order():
    text = (Path(__file__).parents[2] / "docs/method.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {}
    exec(source, names)
    from riskpo_openrlhf import RiskPOConfig, RiskPOEstimator

    rewards = (torch.rand(12, 4, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    keys = [f"q{i}" for i in range(12)]
    expected = RiskPOEstimator(RiskPOConfig.preset("recommended"), 42).step(rewards, 0, keys=keys).advantages
    mixed = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    mixed = torch.cat([mixed[mixed % 4 == j] for j in range(4)])  # groups are scattered, their responses stay in order
    ids = torch.arange(12).repeat_interleave(4)[mixed]
    given = names["RiskPO"]()(rewards.view(-1)[mixed], ids, [keys[i] for i in ids.tolist()])
    assert torch.equal(given, expected.view(-1)[mixed])
