"""How a job starts: the replaced names, a launch script of one's own, the dry run, the settings file."""

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import riskpo_openrlhf
from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.integration import contract, launch
from riskpo_openrlhf.integration.final_flags import write_settings
from riskpo_openrlhf.integration.parser import openrlhf_parser
from riskpo_openrlhf.settings import find_settings

ROOT = Path(riskpo_openrlhf.__file__).parents[1]
DOCS = (ROOT / "docs/openrlhf.md").read_text()
PACKAGE = ROOT / "riskpo_openrlhf"
OWN_SCRIPT = """
import runpy, riskpo_openrlhf
riskpo_openrlhf.install()
runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__", alter_sys=True)
"""
OWN_PARSER = (ROOT / "docs/own_launch.py").read_text()


@pytest.fixture
def flags(tmp_path, write_model):
    """A command line whose files are there."""
    write_model(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text('{"input": "1+1=", "label": "2", "datasource": "sums"}\n' * 1024)
    (tmp_path / "reward.py").write_text("def reward_func(queries, prompts, labels): return 1.0\n")
    return [
        "--riskpo.runtime", "cpu", "--algo.advantage.estimator", "riskpo", "--rollout.n_samples_per_prompt", "4",
        "--actor.model_name_or_path", f"{tmp_path}/model", "--data.prompt_dataset", f"{tmp_path}/rows.jsonl",
        "--data.label_key", "label", "--reward.remote_url", f"{tmp_path}/reward.py", "--actor.num_gpus_per_node", "1",
        "--vllm.num_engines", "1", "--ckpt.path", f"{tmp_path}/run/checkpoints", "--logger.wandb.key", "0" * 40,
    ]  # fmt: skip


def python(*words, **environment) -> subprocess.CompletedProcess:
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", **environment}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.parametrize("row", launch.REPLACED, ids=lambda row: f"{row.module}.{row.name}")
def test_every_replaced_name_exists_and_has_something_of_ours_for_it(row):
    owner = importlib.import_module(row.module)
    for part in row.name.split("."):
        owner = getattr(owner, part)
    module, _, name = row.ours.partition(".")
    ours = getattr(importlib.import_module(f"{launch.OURS}.{module}"), name)
    assert callable(ours) and (callable(contract.plain_class(owner)) or inspect.ismodule(owner))
    if isinstance(ours, type) and not inspect.ismodule(owner):  # one of OpenRLHF's classes, with what is new
        theirs = contract.plain_class(owner)
        assert theirs.__name__ in {base.__name__ for base in ours.__mro__}


def test_the_docs_table_is_the_table_of_replaced_names():
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \| (.+?) \| (.+?) \|$", DOCS, re.MULTILINE)
    assert rows == [(f"{r.module}.{r.name}", r.ours, r.process, r.reason) for r in launch.REPLACED]


def test_nothing_of_the_integration_replaces_a_name_but_by_the_table():
    for path in (PACKAGE / "integration").glob("*.py"):
        tree = ast.parse(path.read_text())
        modules = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                   for alias in node.names}  # fmt: skip
        assigned = {ast.unparse(target) for node in ast.walk(tree) if isinstance(node, ast.Assign)
                    for target in node.targets if isinstance(target, ast.Attribute)}  # fmt: skip
        wrong = {name for name in assigned if name.rpartition(".")[0] in modules}
        assert not wrong, f"{path.name} replaces {wrong} outside launch.REPLACED"


@pytest.mark.parametrize(
    ("script", "more"), [(OWN_SCRIPT, []), (OWN_PARSER, ["--project.note", "first try"])], ids=["module", "own"]
)
def test_a_launch_script_of_ones_own_needs_public_names_alone(flags, tmp_path, script, more):
    (tmp_path / "launch.py").write_text(script)
    done = python(str(tmp_path / "launch.py"), *flags, *more, "--riskpo.dry_run", "json")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ok"] and found["problems"] == [] and found["gpus"] >= 2
    assert found["rollout"]["responses"] == 1024 * 4
    assert found["flags"]["algo.riskpo.alpha"] == 0.2 and found["flags"]["vllm.sync_backend"] == "gloo"
    assert found["flags"]["logger.wandb.key"] == "(hidden)" and "0" * 40 not in done.stdout
    assert not list(tmp_path.rglob("settings.json"))  # a dry run leaves nothing


def test_a_dry_run_for_programs_names_the_flag_of_every_problem(flags, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1=", "label": "2"}\n')
    command = ["-m", "riskpo_openrlhf.cli.train", *flags, "--riskpo.dry_run", "json"]
    done = python(*command, "--rollout.max_new_tokens", "4096", "--reward.remote_url", "riskpo")
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 2 and not found["ok"]
    named = {problem["flag"]: problem["message"] for problem in found["problems"]}
    assert set(named) == {"--data.prompt_dataset", "--rollout.max_new_tokens"}
    assert "no column 'input'" in named["--data.prompt_dataset"]
    assert found["flags"]["reward.remote_url"] == [str(PACKAGE / "verifiers/reward_func.py")]


def test_flags_that_are_refused_are_a_problem_of_the_dry_run_for_programs(flags):
    done = python("-m", "riskpo_openrlhf.cli.train", *flags, "--riskpo.dry", "json", "--algo.riskpo.alpha", "0.9")
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 2 and not found["ok"]
    assert "--algo.riskpo.alpha 0.9 must be below" in found["problems"][0]["message"]


def final(*argv):
    """OpenRLHF's nested flags, as its `train` gets them."""
    from openrlhf.utils.config import hierarchize

    return hierarchize(launch.parse_args(openrlhf_parser(), argv))


RISKPO = ("--algo.advantage.estimator", "riskpo", "--rollout.n_samples_per_prompt", "8")


@pytest.mark.parametrize("where", ["--logger.tensorboard_dir", "--ckpt.path"])
def test_settings_are_written_into_the_runs_folder_without_secrets(tmp_path, where):
    args = final(*RISKPO, "--algo.riskpo.preset", "recommended", where, f"{tmp_path}/run/logs",
                 "--logger.wandb.key", "secret")  # fmt: skip
    assert write_settings(args) == tmp_path / "run/settings.json"
    text = (tmp_path / "run/settings.json").read_text()
    found, read = json.loads(text), find_settings(tmp_path / "run/logs")
    assert read.config == RiskPOConfig.preset("recommended") and read.flags == found["flags"]
    assert set(found) == {"format", "flags", "config", "preset", "versions"} and found["format"] == 1
    assert found["preset"] == "recommended"
    assert found["flags"]["algo.advantage.estimator"] == "riskpo" and found["flags"]["ckpt.max_mem"] is None
    assert found["versions"]["openrlhf"] == contract.installed_version() and "vllm" in "".join(found["versions"])
    assert "secret" not in text


def test_settings_of_another_estimator_hold_no_config(tmp_path):
    write_settings(final("--algo.advantage.estimator", "rloo", "--ckpt.path", f"{tmp_path}/run/c"))
    found = json.loads((tmp_path / "run/settings.json").read_text())
    assert found["config"] is found["preset"] is None and found["flags"]["algo.advantage.estimator"] == "rloo"


@pytest.fixture
def names_kept(monkeypatch):
    """Puts OpenRLHF's names back after a test that replaces them in this process."""
    for row in launch.REPLACED:
        owner = importlib.import_module(row.module)
        if "." not in row.name:
            monkeypatch.setattr(owner, row.name, getattr(owner, row.name))


@pytest.fixture
def ray_for_a_while():
    """Ray, which the driver's first call starts, ends with the test."""
    yield
    import ray

    ray.shutdown()


@pytest.mark.parametrize("estimator", ["riskpo", "rloo"])
@pytest.mark.system  # on Ray
@pytest.mark.usefixtures("names_kept", "ray_for_a_while")
def test_openrlhfs_driver_makes_our_experience_maker_from_its_own_arguments(estimator):
    from openrlhf.trainer.ppo_trainer import BasePPOTrainer

    from riskpo_openrlhf.integration.experience_maker import RiskPOExperienceMaker
    from riskpo_openrlhf.integration.trainers import _RiskPODriver

    class Base(BasePPOTrainer):
        def __init__(self, pretrain, strategy, **groups):  # as OpenRLHF's drivers begin
            super().__init__(strategy, **groups)

    class Driver(_RiskPODriver, Base):
        pass

    flags = ("--algo.advantage.estimator", estimator, "--rollout.n_samples_per_prompt", "8", "--train.seed", "7")
    actor, critic, reward, reference = (object() for _ in range(4))
    driver = Driver(
        "model", SimpleNamespace(args=final(*flags)), actor_model_group=actor, critic_model_group=critic,
        reward_model_group=reward, reference_model_group=reference, vllm_engines=[], tokenizer="tokenizer",
    )  # fmt: skip
    maker = driver.experience_maker
    assert type(maker) is RiskPOExperienceMaker and maker.kl_ctl is driver.kl_ctl
    groups = (maker.actor_model_group, maker.critic_model_group, maker.reward_model_group, maker.initial_model_group)
    assert groups == (actor, critic, reward, reference) and maker.tokenizer == "tokenizer"
    assert maker.config == RiskPOConfig() and maker.risk_estimator.seed == 7


@pytest.mark.parametrize("loss", ["riskpo", "ppo"])
def test_openrlhfs_policy_worker_makes_our_loss_from_its_own_arguments(names_kept, monkeypatch, loss):
    from openrlhf.trainer.ray import ppo_actor

    from riskpo_openrlhf.integration.policy_loss import RiskPOActorPPOTrainer, RiskPOPolicyLoss

    monkeypatch.setattr(ppo_actor, "torch_dist_barrier_and_cuda_sync", lambda: None)  # there is one process
    launch.replace_names(launch.WORKER)
    assert ppo_actor.ActorPPOTrainer is RiskPOActorPPOTrainer
    args = final(*RISKPO, "--actor.policy_loss_type", loss, "--actor.dual_clip", "3", "--actor.eps_clip_low_high",
                 "0.1", "0.3", "--algo.advantage.is_correction_level", "token")  # fmt: skip
    trainer = ppo_actor.ActorPPOTrainer(SimpleNamespace(args=args), None, None, None, None)
    made = trainer.actor_loss_fn
    assert type(made) is RiskPOPolicyLoss and made.kind == loss and made.is_correction_level == "token"
    assert (made.clip_eps_low, made.clip_eps_high, made.sequence_dual_clip) == (0.1, 0.3, 3.0)
    assert (made.policy_loss_type, made.dual_clip) == ("ppo", None if loss == "riskpo" else 3.0)
