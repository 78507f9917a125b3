"""Downloads by the hub's own library, from a small hub on this machine; and the layouts that files can have."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from riskpo_openrlhf.data import hub
from riskpo_openrlhf.data.schema import DataError, read_manifests
from riskpo_openrlhf.data.sources import SOURCES

COMMIT = SOURCES["aime25"].revision
MEGABYTE = 1 << 20
GSM8K_README = b"""---
configs:
- config_name: main
  data_files: [{split: test, path: main/test*}]
---
"""
OTHER = "740312add88f781978c0658806c59bfc2815b866"


class Hub(BaseHTTPRequestHandler):
    """The part of a hub that downloads need: commits, file lists, files with ranges. One commit a repository."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET(head=True)

    def do_GET(self, head=False):
        server, path = self.server, self.path.partition("?")[0]
        server.seen.append((self.command, path, self.headers.get("Range")))
        for repo, (commit, files) in server.repos.items():
            api, resolve = f"/api/datasets/{repo}/", f"/datasets/{repo}/resolve/"
            if path.startswith(f"{api}commits/"):
                author = {"id": commit, "title": "t", "message": "", "date": "2025-01-01T00:00:00.000Z", "authors": []}
                return self.answer(json.dumps([author]).encode())
            if path in (f"{api}revision/main", f"{api}revision/{commit}"):
                siblings = [{"rfilename": name} for name in files]
                info = {"id": repo, "sha": commit, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
                return self.answer(json.dumps(info).encode())
            if path in (f"{api}tree/{commit}", f"{api}tree/main"):
                entries = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files.items()
                ]
                return self.answer(json.dumps(entries).encode())
            match = re.match(f"{re.escape(resolve)}({commit}|main)/(.*)", path)
            if match and match[2] in files:
                etag = hashlib.sha1(files[match[2]]).hexdigest()
                return self.answer(files[match[2]], head=head, etag=etag, commit=commit)
            if path.startswith((api, resolve)):
                code = "EntryNotFound" if match else "RevisionNotFound"
                return self.answer(b"{}", status=404, error=code, commit=commit)
        return self.answer(b"{}", status=404, error="RepoNotFound")

    def answer(self, data: bytes, status=200, head=False, etag=None, commit=None, error=None):
        start, whole = 0, data
        if etag and (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")):
            start, status = int(match[1]), 206
            data = data[start:]
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        for name, value in (("ETag", etag and f'"{etag}"'), ("X-Repo-Commit", commit), ("X-Error-Code", error)):
            if value:
                self.send_header(name, value)
        self.end_headers()
        if head:
            return
        if etag and self.server.cut_after is not None:  # the line breaks in the middle of a file, once
            self.wfile.write(data[: self.server.cut_after])
            self.server.cut_after, self.close_connection = None, True
            return
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    rows = "".join(json.dumps({"problem": f"Add {i} and 1.", "answer": str(i + 1), "id": i}) + "\n" for i in range(30))
    httpd.repos = {
        "math-ai/aime25": (COMMIT, {"test.jsonl": rows.encode(), ".gitattributes": b"x"}),
        "openai/gsm8k": (
            OTHER,
            {
                "README.md": GSM8K_README,
                "main/test.jsonl": b'{"question": "One?", "answer": "#### 1"}\n',
                "main/train.jsonl": b"not needed",
                "socratic/test.jsonl": b"not needed",
            },
        ),
    }
    httpd.seen, httpd.cut_after = [], None
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def prepare(tmp_path: Path, *arguments: str, endpoint: str = "http://127.0.0.1:9", **variables: str):
    """The command in a process of its own, since the hub's library reads the variables when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE"))}
    environment = kept | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "riskpo_openrlhf.cli.prepare_data", *arguments, "--out", str(tmp_path / "out")]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=120)


def url(server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_only_the_needed_files_of_full_commits_are_downloaded_and_come_from_the_cache_afterwards(server, tmp_path):
    names = ["aime25", "gsm8k_test", "--accept_row_counts"]  # a full commit, and an abbreviated one with a README
    run = prepare(tmp_path, *names, endpoint=url(server))
    assert run.returncode == 0, run.stderr
    manifests = read_manifests(tmp_path / "out")
    assert {name: manifest["source"]["revision"] for name, manifest in manifests.items()} == {
        "aime25": COMMIT,
        "gsm8k_test": OTHER,
    }
    assert manifests["aime25"]["rows"]["kept"] == 30
    assert not any("train" in path or "socratic" in path for _, path, _ in server.seen)
    asked = len(server.seen)
    for tree in (tmp_path / "home").glob("hub/*/trees"):  # as a cache filled by an older library
        shutil.rmtree(tree)
    offline = prepare(tmp_path, *names, "--force", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert read_manifests(tmp_path / "out") == manifests and len(server.seen) == asked


def test_a_download_goes_on_where_the_line_broke(server, tmp_path):
    _, files = server.repos["math-ai/aime25"]
    files["test.jsonl"] += b" " * (12 * MEGABYTE)  # the library writes to the disk by 10 MB
    server.cut_after = 11 * MEGABYTE
    run = prepare(tmp_path, "aime25", endpoint=url(server))
    assert run.returncode == 0, run.stderr
    wanted = [wanted for method, path, wanted in server.seen if method == "GET" and path.endswith("test.jsonl")]
    assert wanted == [None, f"bytes={10 * MEGABYTE}-"]
    assert read_manifests(tmp_path / "out")["aime25"]["rows"]["kept"] == 30


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["aime25"], {}, "set HF_ENDPOINT to a mirror; or set HF_HUB_OFFLINE=1 with HF_HOME"),
        (["aime25"], {"HF_HUB_OFFLINE": "1"}, "): HF_HUB_OFFLINE is set: unset it to download; or set HF_HOME"),
        (["aime25"], {"HF_HUB_OFFLINE": "1"}, "or give --from a folder with copies"),
        (["gsm8k_test"], {"HF_HUB_OFFLINE": "1"}, "is not in the cache: HF_HUB_OFFLINE is set: unset it to download"),
        (["minerva"], {"endpoint": "server"}, "math-ai/minervamath at revision main can't be downloaded"),
        (["aime25", "--revision", f"aime25={'0' * 40}"], {"endpoint": "server"}, "can't be downloaded"),
        (["aime25", "--revision", "aime25=1234567"], {"endpoint": "server"}, "has no commit 1234567..."),
    ],
)
def test_what_can_not_be_downloaded_is_an_error_that_says_what_to_do(server, tmp_path, arguments, variables, message):
    variables = {key: url(server) if value == "server" else value for key, value in variables.items()}
    run = prepare(tmp_path, *arguments, **variables)
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert message in run.stderr
    assert not (tmp_path / "out").exists()


def layout(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / "o/n" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


README = """---
license: mit
configs:
- config_name: one
  data_files: "one/*.jsonl"
- config_name: two
  data_dir: two
  data_files:
  - split: test
    path: ["a.jsonl", "b*"]
---
"""


@pytest.mark.parametrize(
    ("files", "config", "split", "found"),
    [
        (
            ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test.jsonl"],
            None,
            "train",
            [0, 1],
        ),
        (["test.jsonl", "test2.jsonl", "latest.jsonl", "x.csv"], None, "test", [0, 1]),
        (["all.jsonl"], None, "train", [0]),
        (["README.md", "one/x.jsonl", "one/y.jsonl", "z.jsonl"], "one", "train", [1, 2]),
        (["README.md", "two/a.jsonl", "two/b1.jsonl", "two/c.jsonl"], "two", "test", [1, 2]),
    ],
)
def test_the_files_of_a_split_are_those_of_the_readme_or_named_after_it(files, config, split, found, tmp_path):
    copies = layout(tmp_path, {name: README if name == "README.md" else "{}" for name in files})
    copy = hub.fetch("o/n", split, config=config, copies=copies)
    assert [path.relative_to(copies / "o/n").as_posix() for path in copy.files] == [files[i] for i in found]
    assert copy.revision is None


@pytest.mark.parametrize(
    ("config", "split", "message"),
    [
        (None, "train", "no config 'default', but one, two"),
        ("three", "train", "no config 'three', but one, two"),
        ("two", "train", "has no split 'train', but test"),
        ("one", "train", "has no file for one/"),
    ],
)
def test_a_config_or_a_split_that_is_not_there_is_an_error_that_names_those_that_are(config, split, message, tmp_path):
    with pytest.raises(DataError, match=re.escape(message)):
        hub.fetch("o/n", split, config=config, copies=layout(tmp_path, {"README.md": README}))


LAYOUTS = {
    "list.json": '[{"a": "033", "b": {"c": 1}}, {"a": "4", "b": {"c": 2.5}}]',
    "columns.json": '{"a": {"0": "033", "1": "4"}, "b": {"0": {"c": 1}, "1": {"c": 2.5}}, "x": {"0": 0, "1": 1}}',
    "lines.json": '{"a": "033", "b": {"c": 1}}\n\n{"a": "4", "b": {"c": 2.5}}\n',
    "lines.jsonl": '{"a": "033", "b": {"c": 1}, "x": 0}\n{"a": "4", "b": {"c": 2.5}, "x": 1}\n',
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_gives_the_same_records_and_strings_stay_strings(name, tmp_path):
    path = tmp_path / name
    path.write_text(LAYOUTS[name])
    assert list(hub.records([path], ["b", "a"])) == [{"a": "033", "b": {"c": 1}}, {"a": "4", "b": {"c": 2.5}}]


@pytest.mark.parametrize(
    ("name", "text"),
    [(name, text.replace('"a"', '"A"')) for name, text in LAYOUTS.items()]
    + [(name, text[:-8]) for name, text in LAYOUTS.items()]
    + [("columns.json", '{"a": {"0": 1, "1": 2}, "b": {"1": 2, "0": 1}}'), ("one.json", '{\n"a": 1,\n"b": 2}')],
)
def test_a_file_without_a_column_or_cut_off_is_an_error(name, text, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError):
        list(hub.records([path], ["a", "b"]))


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2}]', '{"a": 1}\n{"a": 2}\n', '{"a": {"0": 1, "1": 2}}'])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_data(text, suffix, tmp_path):
    if suffix == ".jsonl" and not text.startswith('{"a": 1}'):
        pytest.skip("no JSON lines")
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert list(hub.records([path], ["a"])) == [{"a": 1}, {"a": 2}]
