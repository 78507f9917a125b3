"""How a job finds Ray: addresses that are wrong, dead or silent; keys of a submitted job; paths; ports; locks."""

import json
import os
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from riskpo_openrlhf.integration import cluster, extensions, supervise
from riskpo_openrlhf.integration.ports import HeldSocket, HoldsPort
from riskpo_openrlhf.runtime import cpu


@pytest.fixture(autouse=True)
def prepared(monkeypatch):
    for name, value in cpu.ENVIRONMENT.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(cluster.JOB_CONFIG, raising=False)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:{port}", "refused"),
        ("ray://127.0.0.1:{port}", "a job can't be watched through Ray's client"),
        ("nowhere", "not HOST:PORT"),
        ("http://127.0.0.1:8265", "not HOST:PORT"),
    ],
)
def test_an_address_at_which_nobody_listens_is_refused_at_once_with_the_address(address, reason, monkeypatch):
    address = address.format(port=free_port())
    monkeypatch.setenv("RAY_ADDRESS", address)
    start = time.monotonic()
    with pytest.raises(
        cluster.ClusterError, match=f"no Ray cluster answers at RAY_ADDRESS={address} .*{reason}.*correct the"
    ):
        cluster.start_ray("gpu", 1)
    assert time.monotonic() - start < 30


def test_auto_without_any_cluster_says_what_to_start(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(cluster, "_written_address", lambda: None)
    with pytest.raises(cluster.ClusterError, match="RAY_ADDRESS=auto: no Ray cluster was started on this machine"):
        cluster.start_ray("gpu", 1)


def test_a_service_that_accepts_and_never_answers_ends_the_process_with_2(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        code = (
            "from riskpo_openrlhf.integration import cluster; cluster.ANSWER_SECONDS = 4; cluster.start_ray('gpu', 1)"
        )
        environment = {**os.environ, "RAY_ADDRESS": f"127.0.0.1:{silent.getsockname()[1]}"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 2 and "does not answer as a Ray head (HEAD:6379); no answer within 4 s" in done.stderr


@pytest.mark.parametrize("runtime", ["cpu", "gpu"])
def test_the_address_that_a_dead_cluster_left_is_ignored_and_a_living_one_is_named(runtime, monkeypatch, capsys):
    port = free_port()
    monkeypatch.setattr(cluster, "_written_address", lambda: f"127.0.0.1:{port}")
    assert cluster._address_left_here(runtime) is None and capsys.readouterr().out == ""
    with socket.socket() as living:
        living.bind(("127.0.0.1", port))
        living.listen()
        found = cluster._address_left_here(runtime)
    assert found == (f"127.0.0.1:{port}" if runtime == "gpu" else None)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and f"127.0.0.1:{port}" in said[0] and "RAY_ADDRESS" in said[0]


@pytest.mark.parametrize("runtime", ["cpu", "gpu"])
def test_no_key_of_our_runtime_env_is_one_of_the_submitted_jobs(runtime, monkeypatch):
    from ray.runtime_env.runtime_env import _merge_runtime_env

    before = cluster.worker_environment(runtime)
    theirs = {"env_vars": {"NCCL_DEBUG": "INFO", "TOKENIZERS_PARALLELISM": "true", "MINE": "1"}, "working_dir": "/x"}
    assert _merge_runtime_env(theirs, before) is None  # Ray would refuse
    monkeypatch.setenv(cluster.JOB_CONFIG, json.dumps({"runtime_env": theirs}))
    ours = cluster.worker_environment(runtime)
    merged = _merge_runtime_env(theirs, ours)
    assert merged["env_vars"]["TOKENIZERS_PARALLELISM"] == "true" and merged["working_dir"] == "/x"
    assert before["env_vars"].keys() - ours["env_vars"].keys() == before["env_vars"].keys() & theirs["env_vars"].keys()


@pytest.mark.parametrize("runtime", ["cpu", "gpu"])
def test_the_verifiers_settings_go_to_the_engines_of_a_joined_cluster(runtime, monkeypatch):
    settings = {"RISKPO_CODE_SANDBOXES": "3", "RISKPO_SANDBOX": "namespaces", "RISKPO_VERIFIER_SECONDS": "9"}
    for name, value in {**settings, "RISKPO_DATA": "/data"}.items():
        monkeypatch.setenv(name, value)
    given = cluster.worker_environment(runtime)["env_vars"]
    assert settings.items() <= given.items() and "RISKPO_DATA" not in given


def test_a_job_that_sets_the_hook_of_the_cpu_runtime_is_told_so(monkeypatch):
    theirs = {"worker_process_setup_hook": "mine.hook"}
    monkeypatch.setenv(cluster.JOB_CONFIG, json.dumps({"runtime_env": theirs}))
    with pytest.raises(cluster.ClusterError, match="worker_process_setup_hook"):
        cluster.worker_environment("cpu")
    cluster.worker_environment("gpu")


@pytest.mark.parametrize("given", [None, "INFO"])
def test_workers_on_gpus_get_the_variables_that_openrlhf_gives_them(given, monkeypatch):
    import ast
    import inspect

    from openrlhf.cli import train_ppo_ray

    (call,) = [
        node for node in ast.walk(ast.parse(inspect.getsource(train_ppo_ray)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ray.init"
    ]  # fmt: skip
    assert [keyword.arg for keyword in call.keywords] == ["runtime_env"]
    monkeypatch.setenv("NCCL_DEBUG", given) if given else monkeypatch.delenv("NCCL_DEBUG", raising=False)
    theirs = eval(compile(ast.Expression(call.keywords[0].value), "", "eval"), {"os": os})
    assert theirs == cluster.worker_environment("gpu")


def test_paths_that_are_there_become_absolute_and_names_of_the_hub_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "model").mkdir()
    values = {
        "actor.model_name_or_path": "model", "data.prompt_dataset": "OpenRLHF/prompts, a.jsonl",
        "reward.remote_url": "http://host:1/x", "ckpt.path": "./ckpt", "logger.tensorboard_dir": "logs",
        "ckpt.output_dir": "out", "reward.model_name_or_path": None,
    }  # fmt: skip
    cluster.absolute_paths(values)
    assert values == {
        "actor.model_name_or_path": f"{tmp_path}/model", "ckpt.path": f"{tmp_path}/ckpt",
        "data.prompt_dataset": f"OpenRLHF/prompts,{tmp_path}/a.jsonl", "reward.remote_url": "http://host:1/x",
        "logger.tensorboard_dir": f"{tmp_path}/logs", "ckpt.output_dir": f"{tmp_path}/out",
        "reward.model_name_or_path": None,
    }  # fmt: skip
    assert cluster.paths_read(values) == [f"{tmp_path}/model", f"{tmp_path}/a.jsonl"]


def test_a_tilde_that_the_shell_leaves_in_a_flag_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").touch()
    values = {"ckpt.path": "~/run", "data.prompt_dataset": "~/a.jsonl,~/none.jsonl,s3://bucket/~x.jsonl"}
    cluster.absolute_paths(values)
    assert values["ckpt.path"] == f"{tmp_path}/run"
    assert values["data.prompt_dataset"] == f"{tmp_path}/a.jsonl,{tmp_path}/none.jsonl,s3://bucket/~x.jsonl"


def test_recipes_which_need_no_package_know_the_same_flags_of_paths_and_settings_of_verifiers():
    recipes = runpy.run_path(str(Path(__file__).parents[2] / "recipes/lib/command.py"))
    assert set(recipes["VERIFIERS"]) == set(cluster.VERIFIERS)
    for name in ("READ", "WRITTEN"):
        assert {flag.removeprefix("--") for flag in recipes[name]} == set(getattr(cluster, name))


def test_a_port_that_is_chosen_is_given_to_nobody_else_and_a_rendezvous_can_bind_it():
    from datetime import timedelta

    from torch.distributed import TCPStore

    with HeldSocket() as chosen:  # as OpenRLHF's weight sync writes it
        chosen.bind(("", 0))
        second = chosen.getsockname()[1]
    for port in (HoldsPort._get_free_port(), second):
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("", port))
        store = TCPStore("127.0.0.1", port, 1, True, timedelta(seconds=10))
        store.set("a", "b")
        assert store.get("a") == b"b"


def test_a_lock_that_a_killed_job_left_is_removed_and_one_that_is_held_stays(tmp_path, capsys):
    for name in ("held", "left", "left/deeper"):
        (tmp_path / name).mkdir()
    descriptor = os.open(tmp_path / "held/lock", os.O_CREAT | os.O_EXCL)  # as torch's FileBaton does
    (tmp_path / "left/lock").touch()
    (tmp_path / "left/deeper/lock").touch()
    try:
        extensions.remove_stale_locks(tmp_path)
    finally:
        os.close(descriptor)
    assert [str(lock.relative_to(tmp_path)) for lock in tmp_path.rglob("lock")] == ["held/lock"]
    assert str(tmp_path / "left/lock") in capsys.readouterr().out


def test_the_supervisor_looks_for_checkpoints_where_the_job_writes_them(monkeypatch):
    taken = []

    class Supervisor:
        def __init__(self, argv, flags):
            taken.append(flags["ckpt.path"])

        def run(self):
            return 0

    monkeypatch.setattr(supervise, "Supervisor", Supervisor)
    for given, expected in (("~/run", Path.home() / "run"), ("run", Path.cwd() / "run")):
        monkeypatch.setattr(sys, "argv", ["train", f"--ckpt.path={given}"])
        with pytest.raises(SystemExit):
            supervise.main()
        assert taken.pop() == str(expected)


def test_operators_are_compiled_by_this_environments_ninja(monkeypatch):
    monkeypatch.delenv(extensions.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin")
    extensions.prepare()
    assert os.environ["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert os.environ[extensions.VARIABLE].startswith(sys.prefix)
    monkeypatch.delenv(extensions.VARIABLE)


def test_a_young_lock_stays_where_another_machine_may_hold_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/lock").touch()
    extensions.remove_stale_locks(tmp_path)
    assert (tmp_path / "a/lock").exists()
    os.utime(tmp_path / "a/lock", (0, 0))
    extensions.remove_stale_locks(tmp_path)
    assert not (tmp_path / "a/lock").exists()
