"""Files that are there whole or not at all."""

import errno
import json
import math

import pytest

from riskpo_openrlhf.files import lock, write_bytes, write_json, write_jsonl


def test_a_file_is_whole_or_not_there(tmp_path):
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "a", "no bytes")
    assert list(tmp_path.iterdir()) == []
    write_bytes(tmp_path / "sub/a", b"1")
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a"]


def test_write_jsonl_leaves_the_old_file_alone_when_writing_fails(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    write_jsonl(path, [{"input": "1+1=", "label": "2"}])
    with pytest.raises(TypeError):
        write_jsonl(path, [{"input": "1+1=", "label": "2"}, {"input": object()}])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"input": "1+1=", "label": "2"}]
    assert [file.name for file in path.parent.iterdir()] == ["rows.jsonl"]


def test_a_number_that_is_not_known_is_null_in_json(tmp_path):
    write_json(tmp_path / "x.json", {"a": math.nan, "b": [1.5]})
    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail) == {"a": None, "b": [1.5]}


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def flock(file, kind):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    lock(tmp_path).close()


def test_a_locked_folder_is_free_again_when_the_lock_is_closed(tmp_path):
    with lock(tmp_path / "new"):
        with pytest.raises(BlockingIOError):
            lock(tmp_path / "new")
    lock(tmp_path / "new", wait=True).close()
