"""The seams in OpenRLHF that the plugin relies on."""

import subprocess
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

from riskpo_openrlhf.integration import contract

PACKAGES = {distribution.name.lower().replace("_", "-") for distribution in distributions()}


def test_the_installed_openrlhf_honours_the_contract():
    contract.check()


def test_another_version_is_refused_with_the_command_that_mends_it(monkeypatch):
    monkeypatch.setattr(contract, "installed_version", lambda: "0.11.0")
    with pytest.raises(contract.ContractError, match=r"OpenRLHF 0\.11\.0 .*pip install openrlhf==0\.11\.2"):
        contract.check_version()


def test_a_missing_openrlhf_is_said_so(monkeypatch):
    def missing(name):
        raise contract.PackageNotFoundError(name)

    monkeypatch.setattr(contract, "version", missing)
    with pytest.raises(contract.ContractError, match="OpenRLHF is not installed"):
        contract.check()


def test_a_changed_signature_is_named(monkeypatch):
    from openrlhf.models.loss import PolicyLoss

    monkeypatch.setattr(PolicyLoss, "forward", lambda self, log_probs: None)
    with pytest.raises(contract.ContractError, match=r"PolicyLoss\.forward takes \('self', 'log_probs'\), expected"):
        contract.check()


def test_a_method_that_is_gone_is_named(monkeypatch):
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

    monkeypatch.delattr(SamplesGenerator, "generate_samples")
    with pytest.raises(contract.ContractError, match=r"SamplesGenerator\.generate_samples is gone"):
        contract.check()


def test_a_loss_of_other_arity_is_named(monkeypatch):
    import openrlhf.models.loss as loss

    class FourValues(loss.PolicyLoss):
        def forward(self, log_probs, old_log_probs, advantages, action_mask=None, rollout_log_probs=None, dp_size=1,
                    batch_num_tokens=None, global_batch_size=None):  # fmt: skip
            return (0,) * 4

    monkeypatch.setattr(loss, "PolicyLoss", FourValues)
    with pytest.raises(contract.ContractError, match="returns 4 values, expected 5"):
        contract.check()


def test_install_puts_our_classes_where_train_imports_them():
    code = """
from riskpo_openrlhf.runtime import cpu
import torch
if not torch.cuda.is_available():
    cpu.prepare_driver()
from riskpo_openrlhf import install
install()
import openrlhf.cli.train_ppo_ray as train
from openrlhf.trainer.ppo_trainer import PPOTrainer
from openrlhf.trainer.ppo_trainer_async import PPOTrainerAsync
from openrlhf.trainer.ray.vllm_engine import RolloutRayActor
for actor in (train.PolicyModelActor, PPOTrainer, PPOTrainerAsync, RolloutRayActor):
    name = actor.__ray_metadata__.modified_class.__name__
    assert name.startswith("RiskPO"), name
try:
    install()
except RuntimeError as error:
    assert "before importing" in str(error)
else:
    raise AssertionError("a late install must be refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_an_engines_process_does_not_import_deepspeed():
    code = """
import torch, sys
from riskpo_openrlhf.runtime import cpu
if not torch.cuda.is_available():
    cpu.prepare_driver()
import riskpo_openrlhf.integration.rollout_actor
assert not any(name.split(".")[0] == "deepspeed" for name in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif("flash-attn" in PACKAGES, reason="flash-attn is installed")
def test_without_flash_attn_the_command_says_what_to_do():
    command = [sys.executable, "-m", "riskpo_openrlhf.cli.train", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3
    assert "the package flash_attn is missing" in done.stderr and "add --riskpo.runtime cpu" in done.stderr


def test_the_benchmark_of_the_experience_maker_runs(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks/bench_experience_maker.py"
    command = [sys.executable, str(script), "--responses", "200", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len([line for line in done.stdout.splitlines() if line.rstrip().endswith(" x")]) == 2


def test_a_missing_module_is_named(monkeypatch):
    monkeypatch.setitem(contract.SEAMS, "openrlhf.trainer.gone", {})
    with pytest.raises(contract.ContractError, match=r"openrlhf\.trainer\.gone is gone"):
        contract.check()


def test_openrlhfs_own_test_suite_passes_with_our_classes_installed(tmp_path):
    # Its wheel ships the suite as a top-level package called `tests`, beside the package itself.
    suite = Path(find_spec("openrlhf").submodule_search_locations[0]).parent / "tests"
    assert len(list(suite.glob("test_*.py"))) >= 10, f"no test suite of OpenRLHF at {suite}"
    code = f"""
import sys, pytest, torch
from riskpo_openrlhf.runtime import cpu
if not torch.cuda.is_available():
    cpu.prepare_driver()
from riskpo_openrlhf import install
install()
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", {str(tmp_path)!r}, {str(suite)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=500, cwd=tmp_path)
    print(done.stdout[-600:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
