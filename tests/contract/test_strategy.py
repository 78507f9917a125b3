"""What the strategy does with files that a folder holds already. `tests/system/test_strategy.py` has real ranks."""

import errno
import json
import os
import time
from types import SimpleNamespace

import pytest
from openrlhf.utils.deepspeed.deepspeed import DeepspeedStrategy

from riskpo_openrlhf.integration import checkpoints, strategy
from riskpo_openrlhf.integration.checkpoints import ACTOR, WRITING


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """The strategy of one rank, without DeepSpeed."""
    made = object.__new__(strategy.RiskPOStrategy)
    ckpt = SimpleNamespace(
        path=tmp_path, load_enable=False, disable_ds=False, save_steps=1, max_num=3, max_mem=1000.0
    )  # fmt: skip
    made.args = SimpleNamespace(
        ckpt=ckpt, eval=SimpleNamespace(steps=-1), critic=SimpleNamespace(model_name_or_path=None),
        actor=SimpleNamespace(model_name_or_path="model"),
    )  # fmt: skip
    made._on_rank_0 = lambda function: function()
    monkeypatch.setattr(strategy.dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(strategy.dist, "all_gather_object", lambda found, own: found.__setitem__(0, own))
    return made


def write(root, tag):
    folder = root / ACTOR / f"{WRITING}{tag}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(tag)
    (folder / checkpoints.METRIC).write_text(json.dumps({"metric_value": None}))
    return folder


def test_a_run_that_saves_nothing_leaves_the_folder_alone(alone, tmp_path):
    alone.args.ckpt.save_steps = -1
    write(tmp_path, "global_step7")  # by a job that goes on
    alone.require_shared_folder()
    assert (tmp_path / ACTOR / f"{WRITING}global_step7").exists()


def test_what_an_interrupted_run_left_is_never_taken_for_a_new_runs_checkpoint(alone, tmp_path):
    checkpoints.seal(write(tmp_path, "global_step100"), 1)
    write(tmp_path, "global_step101")  # half written
    time.sleep(0.01)
    alone.require_shared_folder()
    checkpoints.seal(write(tmp_path, "global_step5"), 1)
    alone.finish_checkpoints()
    assert checkpoints.choose(tmp_path, False)[0] == "global_step5"
    assert not list((tmp_path / ACTOR).glob(".*"))
    assert (tmp_path / ACTOR / "global_step100" / "weights").read_text() == "global_step100"  # and nothing is lost


def save(strategy, tmp_path, model):
    """Save step 2 with this model; the folder counts as large enough."""
    model.parameters = list
    strategy.save_ckpt(model, str(tmp_path / ACTOR), "global_step2")


def test_a_folder_that_can_not_be_made_is_the_error_itself(alone, tmp_path, monkeypatch):
    def mkdir(path, *args, **options):
        if path.name.startswith(WRITING):
            raise OSError(errno.EROFS, "Read-only file system", str(path))

    (tmp_path / ACTOR).mkdir()
    monkeypatch.setattr(strategy.Path, "mkdir", mkdir)
    with pytest.raises(OSError, match="Read-only file system.*writing-global_step2"):
        save(alone, tmp_path, SimpleNamespace(save_checkpoint=pytest.fail))


@pytest.mark.parametrize(
    ("reason", "told"),
    [(None, "No space left on device: checkpoint global_step2"), (errno.ENOSPC, "No space left on device: checkpoint"),
     (errno.EROFS, "Read-only file system: .*/.writing-global_step2"), (errno.EIO, "Input/output error")],
)  # fmt: skip
def test_what_torchs_writer_does_not_say_is_asked_of_the_disk(alone, tmp_path, monkeypatch, reason, told):
    def write_bytes(path, data):
        if reason:
            raise OSError(reason, os.strerror(reason), str(path))

    def save_checkpoint(*args, **options):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr(checkpoints.Path, "write_bytes", write_bytes)
    with pytest.raises((OSError, checkpoints.RunFault), match=told):
        save(alone, tmp_path, SimpleNamespace(save_checkpoint=save_checkpoint))


def test_a_model_is_saved_over_an_earlier_one_whose_files_are_in_folders_too(alone, tmp_path, monkeypatch):
    def parent(self, model, tokenizer, output_dir, **more):
        folder = tmp_path / output_dir / "additional_chat_templates"
        folder.mkdir(parents=True)
        (folder / f"{model}.jinja").write_text(model)
        (tmp_path / output_dir / "config.json").write_text(model)

    monkeypatch.setattr(DeepspeedStrategy, "save_model", parent)
    monkeypatch.setattr(strategy, "is_vlm_model", lambda name: False)
    for model in ("one", "two"):
        alone.save_model(model, None, str(tmp_path / "out"))
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"additional_chat_templates/two.jinja", "config.json"}
