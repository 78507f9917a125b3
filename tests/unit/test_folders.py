"""Two jobs never write into one folder, and a lock that can't be made is no obstacle."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from riskpo_openrlhf.files import lock
from riskpo_openrlhf.integration import folders

JOB = """
import sys
from riskpo_openrlhf.integration.folders import hold
print(*hold({"ckpt.path": sys.argv[1], "ckpt.output_dir": sys.argv[2]}, 41), sep="\\n", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def job():
    jobs = []

    def start(*places) -> tuple[subprocess.Popen, str]:
        words = [sys.executable, "-c", JOB, *map(str, places)]
        jobs.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return jobs[-1], jobs[-1].stdout.readline().strip()

    yield start
    for each in jobs:
        each.kill()
        each.communicate()


def values(path, output="") -> dict:
    return {"ckpt.path": str(path), "ckpt.output_dir": str(output)}


def test_the_second_job_is_told_who_holds_its_folder(job, tmp_path):
    assert job(tmp_path / "a", tmp_path / "b")[1] == ""
    (tmp_path / "link").symlink_to(tmp_path / "b")
    _, said = job(tmp_path / "other", tmp_path / "link")
    assert said.startswith(
        f"--ckpt.output_dir {tmp_path}/b is in use by another job, process 41 on {os.uname().nodename}"
    )
    assert f"delete {tmp_path}/.b.lock" in said


def test_a_folder_is_free_as_soon_as_its_job_is_killed(job, tmp_path):
    first, _ = job(tmp_path / "a", tmp_path / "a")  # one folder for both is no conflict
    assert [problem.flag for problem in folders.in_use(values(tmp_path / "a"))] == ["--ckpt.path"]
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not [*folders.in_use(values(tmp_path / "a"))] and job(tmp_path / "a", "")[1] == ""


def test_a_dry_run_makes_nothing_and_holds_nothing(job, tmp_path):
    assert not [*folders.in_use(values(tmp_path / "a", tmp_path / "b"))] and not [*tmp_path.iterdir()]
    job(tmp_path / "a", "")[0].communicate()
    assert not [*folders.in_use(values(tmp_path / "a"))]
    assert job(tmp_path / "a", "")[1] == ""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EINVAL, errno.EIO])
def test_a_file_system_without_locks_is_no_obstacle(monkeypatch, tmp_path, number):
    def flock(file, kind):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr(folders, "_held", [])
    assert not [*folders.hold(values(tmp_path / "a"), 41)] and not [*folders.in_use(values(tmp_path / "a"))]


def test_a_folder_in_which_no_lock_can_be_written_is_no_obstacle(monkeypatch):
    monkeypatch.setattr(folders, "_held", [])
    assert Path("/proc/self").is_dir() and not [*folders.hold(values("/proc/self/locked"), 41)]


@pytest.mark.parametrize(("free_after", "refused"), [(0.7, 0), (60, 1)])
def test_a_job_waits_a_while_for_one_that_is_ending(monkeypatch, tmp_path, free_after, refused):
    monkeypatch.setattr(folders, "_held", [])
    monkeypatch.setattr(folders, "PATIENCE", 3)
    ending = lock(tmp_path / "a")
    release = threading.Timer(free_after, ending.close)
    release.start()
    assert len([*folders.hold(values(tmp_path / "a"), 41)]) == refused
    release.cancel()
