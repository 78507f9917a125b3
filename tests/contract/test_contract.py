"""The seams in OpenRLHF that the plugin relies on."""

import os
import re
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


def test_another_minor_version_is_refused_with_the_command_that_mends_it(monkeypatch):
    monkeypatch.setattr(contract, "installed_version", lambda: "0.12.0")
    with pytest.raises(contract.ContractError, match=r"OpenRLHF 0\.12\.0 .*pip install openrlhf==0\.11\.2"):
        contract.check_version()


def test_another_patch_version_that_has_every_seam_is_a_note(monkeypatch):
    monkeypatch.setattr(contract, "installed_version", lambda: "0.11.9")
    assert contract.check() == ["OpenRLHF 0.11.9 is installed; this version of riskpo-openrlhf was tested with 0.11.2"]


def test_a_package_that_is_not_installed_is_refused_since_vllm_would_not_find_its_plugin(monkeypatch):
    monkeypatch.setattr(contract, "entry_points", lambda group: ())
    with pytest.raises(contract.ContractError, match="on Python's path but not installed.*pip install --no-deps -e"):
        contract.check_version()


@pytest.mark.parametrize("allowed", ["", "lora_filesystem_resolver"])
def test_plugins_of_vllm_without_ours_are_refused(monkeypatch, allowed):
    monkeypatch.setenv("VLLM_PLUGINS", allowed)
    with pytest.raises(contract.ContractError, match=f"VLLM_PLUGINS={allowed} keeps .*: add {contract.PLUGIN}"):
        contract.check_version()
    monkeypatch.setenv("VLLM_PLUGINS", f"other,{contract.PLUGIN}")
    assert contract.check_version() == []


def test_a_missing_openrlhf_is_said_so(monkeypatch):
    def missing(name):
        raise contract.PackageNotFoundError(name)

    monkeypatch.setattr(contract, "version", missing)
    with pytest.raises(contract.ContractError, match="OpenRLHF is not installed"):
        contract.check()


LOSS = "self, log_probs, old_log_probs, advantages, action_mask=None, rollout_log_probs=None, {}"
REST = "dp_size=1, batch_num_tokens=None, global_batch_size=None"


def loss_with(parameters: str):
    """A `forward` of the real loss's result with other parameters."""
    return eval(f"lambda {parameters}: (0,) * 5")


@pytest.mark.parametrize(
    "parameters", [f"{LOSS.format(REST)}, temperature=1.0", f"{LOSS.format(REST)}, *, temperature=1.0"]
)
def test_an_added_optional_parameter_is_a_note(monkeypatch, parameters):
    from openrlhf.models.loss import PolicyLoss

    monkeypatch.setattr(PolicyLoss, "forward", loss_with(parameters))
    where = "openrlhf.models.loss.PolicyLoss.forward"
    assert contract.check() == [f"{where} has another optional parameter, temperature"]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (LOSS.format("dp_size=1, batch_num_tokens=None"), "takes no global_batch_size; it takes self, log_probs"),
        (LOSS.format("ranks=1, batch_num_tokens=None, global_batch_size=None"), "takes no dp_size"),
        (f"{LOSS.format(REST)}, *, temperature", "needs another parameter, temperature"),
        (f"self, temperature=1.0, {LOSS.format(REST)[6:].replace('advantages', 'advantages=None')}".replace(
            "log_probs, old_log_probs", "log_probs=None, old_log_probs=None"), "takes log_probs at another place"),
    ],
    ids=["missing", "renamed", "required", "moved"],
)  # fmt: skip
def test_a_parameter_that_is_missing_renamed_required_or_moved_is_refused(monkeypatch, parameters, said):
    from openrlhf.models.loss import PolicyLoss

    monkeypatch.setattr(PolicyLoss, "forward", loss_with(parameters))
    with pytest.raises(contract.ContractError) as refused:
        contract.check()
    assert f"openrlhf.models.loss.PolicyLoss.forward {said}" in str(refused.value)


def test_an_attribute_that_openrlhf_no_longer_sets_is_refused(monkeypatch):
    monkeypatch.setitem(
        contract.ATTRIBUTES, "openrlhf.trainer.ppo_utils.samples_generator.SamplesGenerator", "args engines"
    )
    with pytest.raises(contract.ContractError, match=r"SamplesGenerator\.engines is gone"):
        contract.check()


def test_a_flag_that_openrlhf_no_longer_has_is_refused(monkeypatch):
    monkeypatch.setattr(contract, "FLAGS", "train.seed train.seeds")
    with pytest.raises(contract.ContractError, match=r"train_ppo_ray has no flag --train\.seeds"):
        contract.check()


def test_the_part_that_evaluate_needs_is_checked_by_itself(monkeypatch):
    from openrlhf.models.loss import PolicyLoss
    from openrlhf.trainer.ray import vllm_engine

    monkeypatch.delattr(PolicyLoss, "forward")
    assert contract.check(contract.EVALUATION) == []
    monkeypatch.delattr(vllm_engine, "create_vllm_engines")
    with pytest.raises(contract.ContractError, match=r"vllm_engine\.create_vllm_engines is gone"):
        contract.check(contract.EVALUATION)


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
    done = train("--actor.model_name_or_path", "x")
    assert done.returncode == 3
    assert "the package flash_attn is missing" in done.stderr and "add --riskpo.runtime cpu" in done.stderr


def test_a_missing_seam_ends_the_command_with_3_and_its_name(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "from riskpo_openrlhf.integration import contract\n"
        "contract.SEAMS['openrlhf.utils.utils']['get_gpu'] = 'args'\n"
    )
    done = train("--riskpo.runtime", "cpu", path=tmp_path)
    assert done.returncode == 3 and "openrlhf.utils.utils.get_gpu is gone" in done.stderr


def train(*flags, path=""):
    """`cli.train` in a process of its own; `path` comes before all else on its PYTHONPATH."""
    python_path = os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "riskpo_openrlhf.cli.train", *flags]
    environment = {**os.environ, "PYTHONPATH": python_path}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.system  # ten seconds each
@pytest.mark.parametrize(
    ("script", "flags", "row"),
    [("bench_experience_maker", ["--responses", "200", "--repeats", "1"], r"^.* x$"),
     ("bench_driver", ["--sizes", "200", "400"], r"^\| [24]00 \| 16 .*\|$")],
)  # fmt: skip
def test_a_benchmark_of_the_driver_runs(script, flags, row, tmp_path):
    command = [sys.executable, Path(__file__).parents[1] / f"benchmarks/{script}.py", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len([line for line in done.stdout.splitlines() if re.match(row, line.rstrip())]) == 2


def test_a_missing_module_is_named(monkeypatch):
    monkeypatch.setitem(contract.SEAMS, "openrlhf.trainer.gone", {})
    with pytest.raises(contract.ContractError, match=r"openrlhf\.trainer\.gone is gone"):
        contract.check()


@pytest.mark.system  # half a minute
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
