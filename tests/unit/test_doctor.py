"""The doctor: what of a machine would stop a job, and the cure."""

import json
import resource

import pytest

from riskpo_openrlhf.cli import doctor as command
from riskpo_openrlhf.integration.doctor import BAD, NOTE, OK, differences, facts, judge

GOOD = {
    "system": "Linux", "machine": "x86_64", "python": (3, 12), "nvcc": "13.0", "torch_cuda": "13.0",
    "cuda_works": True,
    "packages": {
        "openrlhf": "0.11.2", "vllm": "0.29.0", "ray": "2.55.0", "deepspeed": "0.19.6", "transformers": "5.15.0",
        "torch": "2.13.0", "flash-attn": "2.8.3", "riskpo_openrlhf": "0.2.0",
    },
    "cards": [{"name": "NVIDIA H100 80GB HBM3", "total": 79.6, "used": 0.0, "driver": "580.65.06"}] * 8,
    "flash_attn": None, "compiler": "/usr/bin/g++", "shm": 64.0, "memory": 900.0, "disk": 2000.0, "files": 1048576,
}  # fmt: skip


def wrong(**changes) -> list:
    return [finding for finding in judge({**GOOD, **changes}) if finding.status != OK]


def test_a_machine_as_the_readme_asks_for_has_nothing_wrong():
    assert wrong() == []
    assert wrong(files=resource.RLIM_INFINITY) == []


@pytest.mark.parametrize(
    ("changes", "subject", "status", "cure"),
    [
        ({"machine": "aarch64"}, "platform", BAD, "x86_64 only"),
        ({"python": (3, 13)}, "Python", BAD, "3.11 or 3.12"),
        ({"cards": []}, "cards", BAD, "--gpus all"),
        ({"nvcc": None}, "nvcc", BAD, "CUDA_HOME"),
        ({"nvcc": "12.8"}, "nvcc", BAD, "CUDA 13"),
        ({"nvcc": "13.2"}, "nvcc and torch", NOTE, "DS_SKIP_CUDA_CHECK=1"),
        ({"torch_cuda": None}, "torch's CUDA", BAD, "torch 2.13.0"),
        ({"torch_cuda": "12.8"}, "torch's CUDA", BAD, "torch 2.13.0"),
        ({"cuda_works": False}, "torch sees a card", BAD, "CUDA_VISIBLE_DEVICES"),
        ({"flash_attn": "ImportError: undefined symbol"}, "flash-attn imports", BAD, "compile it again"),
        ({"compiler": None}, "C++ compiler", BAD, "g++"),
        ({"shm": 0.06}, "/dev/shm", NOTE, "--shm-size"),
        ({"memory": 30.0}, "free memory", NOTE, "pinned"),
        ({"disk": 20.0}, "free disk here", NOTE, "--ckpt.path"),
        ({"files": 1024}, "open files", NOTE, "ulimit -n"),
        ({"packages": {**GOOD["packages"], "vllm": None}}, "vllm", BAD, "On GPUs"),
        ({"packages": {**GOOD["packages"], "openrlhf": "0.12.0"}}, "openrlhf", BAD, "==0.11.2"),
    ],
)
def test_each_fault_is_named_with_its_cure(changes, subject, status, cure):
    named = {finding.subject: finding for finding in wrong(**changes)}
    assert named[subject].status == status and cure in named[subject].cure


def test_an_old_driver_and_a_card_in_use_are_named():
    card = {**GOOD["cards"][0], "driver": "550.54.15"}
    (driver,) = wrong(cards=[card])
    assert (driver.subject, driver.found, driver.status) == ("driver", "550.54.15", BAD)
    (busy,) = wrong(cards=[GOOD["cards"][0], {**GOOD["cards"][0], "used": 30.0}])
    assert (busy.subject, busy.status) == ("card 1", NOTE) and "30 of 80 GiB" in busy.found


def test_a_card_that_does_not_tell_its_memory_is_listed(monkeypatch):
    shown = "NVIDIA H100 MIG, [N/A], [N/A], 580.65.06\n"
    monkeypatch.setattr("riskpo_openrlhf.integration.doctor._output", lambda words: shown if "smi" in words[0] else "")
    (card,) = facts()["cards"]
    (found,) = (finding.found for finding in judge({**GOOD, "cards": [card]}) if finding.subject == "cards")
    assert found == "NVIDIA H100 MIG"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_does_not_answer_is_told_at_once(address, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert command.main([]) == 2
    assert f"no Ray cluster answers at RAY_ADDRESS={address}" in capsys.readouterr().err


def test_nodes_with_other_packages_are_named():
    other = {**GOOD, "packages": {**GOOD["packages"], "ray": "2.54.0", "vllm": None}}
    found = {finding.subject: finding.found for finding in differences({"a": GOOD, "b": other})}
    assert found == {"ray on all nodes": "a 2.55.0, b 2.54.0", "vllm on all nodes": "a 0.29.0, b missing"}
    assert differences({"a": GOOD, "b": GOOD}) == []


def test_this_machine_is_looked_at_and_the_exit_code_follows(capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code = command.main(["--json"])
    report = json.loads(capsys.readouterr().out)
    (findings,) = report["nodes"].values()
    assert {finding["subject"] for finding in findings} >= {"platform", "cards", "nvcc", "/dev/shm"}
    assert code == int(not report["ok"]) == int(any(finding["status"] == BAD for finding in findings))
    assert command.main([]) == code
    assert ("would stop a job" in capsys.readouterr().out) and facts()["machine"]
