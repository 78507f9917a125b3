"""Checkpoints on disk: whatever operation a job is killed in, one that is whole remains and is found."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from riskpo_openrlhf.integration import checkpoints
from riskpo_openrlhf.integration.checkpoints import ACTOR, CRITIC, MANIFEST, WRITING
from riskpo_openrlhf.integration.faults import RunFault

OPERATIONS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


@pytest.fixture(autouse=True)
def _without_fsync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # for a loss of power, not of a process; slow


def write(part: Path, tag: str, metric: float | None = None) -> None:
    """Write a checkpoint of two ranks as `RiskPOStrategy.save_ckpt` does, up to the manifest."""
    folder = part / f"{WRITING}{tag}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "deeper").mkdir(parents=True)
    for name in ("rank0.pt", "rank1.pt", "deeper/more.pt"):
        (folder / name).write_bytes(f"{part.name} {tag} {name}".encode() * 9)
    (folder / "metric.json").write_text(json.dumps({"metric_value": metric}))
    checkpoints.seal(folder, 2)


def save(root: Path, tag: str, critic: bool = False, max_num: int = 1, metric: float | None = None) -> None:
    for part in checkpoints.parts(root, critic):
        write(part, tag, metric)
    checkpoints.finish(root, critic, max_num, float("inf"))


def resume(root: Path, critic: bool = False, max_num: int = 1) -> str | None:
    """Start a run on the folder and return the name that it resumes from."""
    checkpoints.recover(root, critic, max_num, float("inf"))
    tag, _ = checkpoints.choose(root, critic)
    return tag


def content(root: Path, tag: str, critic: bool) -> bool:
    """Every file of the checkpoint is there and belongs to it."""
    return all(
        (part / tag / name).read_bytes() == f"{part.name} {tag} {name}".encode() * 9
        for part in checkpoints.parts(root, critic)
        for name in ("rank0.pt", "rank1.pt", "deeper/more.pt")
    )


def killed_at(operation: int, function) -> bool:
    """Run `function` in a child that dies, as by SIGKILL, before its n-th change of a file. True if it was killed."""
    child = os.fork()
    if child == 0:
        count = 0

        def count_and_die(event, args):
            nonlocal count
            writes = event != "open" or (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR))
            if event in OPERATIONS and writes:
                count += 1
                if count > operation:
                    os._exit(9)

        sys.addaudithook(count_and_die)
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), "the save itself failed"
    return code == 9


@pytest.mark.parametrize("critic", [False, True])
@pytest.mark.parametrize(
    "before, tag",
    [((), "global_step1"), (("global_step1",), "global_step2"), (("global_step1",), "global_step1"),
     (("global_step1", "best_global_step1"), "best_global_step2")],
)  # fmt: skip
def test_a_kill_before_any_file_operation_of_a_save_leaves_one_that_resumes_with_max_num_1(
    tmp_path, before, tag, critic
):
    operation, killed = 0, True
    while killed:
        root = tmp_path / str(operation)
        for earlier in before:
            save(root, earlier, critic)
        killed = killed_at(operation, lambda root=root: save(root, tag, critic))
        found = resume(root, critic)
        assert found is not None or not before, f"nothing left after {operation} operations"
        assert found in {*before, tag, None}
        assert found is None or content(root, found, critic)
        assert not list(root.glob("*/.*")), "something was left over"
        save(root, "global_step7", critic)  # the resumed run saves on
        assert resume(root, critic) == "global_step7"
        regular = [p for p in (root / ACTOR).iterdir() if p.is_dir() and not p.name.startswith("best")]
        assert [p.name for p in regular] == ["global_step7"]
        operation += 1
    assert operation > 10
    assert found == tag


def test_a_kill_in_the_recovery_itself_loses_nothing(tmp_path):
    operation, killed = 0, True
    while killed:
        root = tmp_path / str(operation)
        save(root, "global_step1", critic=True)
        for part in checkpoints.parts(root, critic=True):
            write(part, "global_step2")  # complete, not yet moved
        killed = killed_at(operation, lambda root=root: resume(root, critic=True))
        assert resume(root, critic=True) == "global_step2"
        assert content(root, "global_step2", critic=True)
        operation += 1
    assert operation > 5


@pytest.mark.parametrize("harm", ["truncate", "empty", "remove", "manifest"])
def test_a_damaged_checkpoint_is_named_with_its_file_and_the_one_before_is_taken(tmp_path, harm):
    save(tmp_path, "global_step4", max_num=3)
    save(tmp_path, "global_step5", max_num=3)
    file = tmp_path / ACTOR / "global_step5/rank1.pt"
    if harm == "remove":
        file.unlink()
    elif harm == "manifest":
        file = file.with_name(MANIFEST)
        file.write_text("{")
        file.with_name("metric.json").unlink()
    else:
        os.truncate(file, 0 if harm == "empty" else file.stat().st_size - 1)
    tag, lines = checkpoints.choose(tmp_path, critic=False)
    assert tag == "global_step4"
    assert "global_step5" in lines[0] and file.name in lines[0] and "global_step4" in lines[-1]


def test_latest_that_names_nothing_gives_the_newest_whole_one_and_says_so(tmp_path):
    save(tmp_path, "global_step9", max_num=3)
    save(tmp_path, "global_step10", max_num=3)
    (tmp_path / ACTOR / "latest").write_text("global_step11")
    tag, lines = checkpoints.choose(tmp_path, critic=False)
    assert tag == "global_step10" and "global_step11" in lines[0]


@pytest.mark.parametrize("content", ["nothing", "folder", "half", "latest"])
def test_a_folder_without_a_whole_checkpoint_means_the_beginning_and_says_so(tmp_path, content):
    part = tmp_path / ACTOR
    if content != "nothing":
        part.mkdir()
    if content == "half":
        (part / "global_step1").mkdir()  # OpenRLHF's own, killed in its first save
        (part / "global_step1/mp_rank_00_model_states.pt").write_bytes(b"")
    if content == "latest":
        (part / "latest").write_text("")
    tag, lines = checkpoints.choose(tmp_path, critic=False)
    assert tag is None and "starts from the beginning" in lines[-1]


def test_a_checkpoint_that_the_critic_lacks_is_not_taken(tmp_path):
    save(tmp_path, "global_step1", critic=True, max_num=3)
    save(tmp_path, "global_step2", critic=True, max_num=3)
    shutil.rmtree(tmp_path / CRITIC / "global_step2")
    tag, lines = checkpoints.choose(tmp_path, critic=True)
    assert tag == "global_step1" and CRITIC in lines[0]


def test_a_checkpoint_of_openrlhf_without_a_manifest_is_taken(tmp_path):
    folder = tmp_path / ACTOR / "global_step3"
    folder.mkdir(parents=True)
    (folder / "mp_rank_00_model_states.pt").write_bytes(b"x")
    (folder / "metric.json").write_text("{}")
    assert resume(tmp_path) == "global_step3"


def test_old_checkpoints_go_by_metric_then_age_but_never_the_newest(tmp_path):
    for step, metric in ((1, None), (2, 0.9), (3, 0.1)):
        save(tmp_path, f"global_step{step}", max_num=3, metric=metric)
    save(tmp_path, "best_global_step3", max_num=3, metric=0.9)
    save(tmp_path, "global_step4", max_num=3, metric=0.0)
    assert names(tmp_path) == {"global_step2", "global_step3", "global_step4", "best_global_step3"}
    save(tmp_path, "global_step5", max_num=1, metric=-1.0)
    assert names(tmp_path) == {"global_step5", "best_global_step3"}


def test_max_mem_deletes_old_checkpoints_but_never_the_newest(tmp_path):
    save(tmp_path, "global_step1", max_num=9)
    save(tmp_path, "global_step2", max_num=9)
    write(tmp_path / ACTOR, "global_step3")
    checkpoints.finish(tmp_path, False, 9, 0.0)
    assert names(tmp_path) == {"global_step3"}


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path, monkeypatch):
    save(tmp_path, "global_step1")
    size = sum(path.stat().st_size for path in (tmp_path / ACTOR / "global_step1").rglob("*") if path.is_file())
    checkpoints.require_space(tmp_path / ACTOR, "global_step2", guess=10**18)  # it knows the last one's size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, size // 2))
    with pytest.raises(RunFault, match="No space left on device.*global_step2.*kept: global_step1"):
        checkpoints.require_space(tmp_path / ACTOR, "global_step2", guess=0)


def names(root: Path) -> set[str]:
    return {path.name for path in (root / ACTOR).iterdir() if path.is_dir()}
