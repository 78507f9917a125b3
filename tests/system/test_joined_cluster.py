"""A Ray cluster of two nodes on this machine, joined by the commands that users run."""

import json
import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

from riskpo_openrlhf.lab.smoke import save_smoke

SECONDS = 240
started = runpy.run_path(str(Path(__file__).with_name("cluster.py")))["cluster"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of a cluster of two nodes with one pretend GPU each. The second has an nvcc of its own."""
    folder = tmp_path_factory.mktemp("cluster")
    here = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "CUDA_HOME")}
    here |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    (folder / "bin").mkdir()
    (folder / "bin/nvcc").write_text("#!/bin/sh\necho Cuda compilation tools, release 13.97, V13.97.1\n")
    (folder / "bin/nvcc").chmod(0o755)
    with started(2, 1, folder, here, {**here, "CUDA_HOME": str(folder)}) as (address, _):
        yield address


def run(cluster: str, folder, *words) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=folder, text=True, capture_output=True, timeout=SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": cluster},
    )  # fmt: skip


def test_the_doctor_looks_at_every_node_from_a_process_there(cluster, tmp_path):
    until = time.monotonic() + 60
    while True:  # the second node joins
        job = run(cluster, tmp_path, "riskpo_openrlhf.cli.doctor", "--json")
        report = json.loads(job.stdout or "null")
        if report and len(report["nodes"]) == 3:
            break
        assert time.monotonic() < until, job.stdout + job.stderr[-3000:]
    *nodes, _ = report["nodes"]
    assert job.returncode == 1 and not report["ok"]
    found = [{finding["subject"]: finding for finding in report["nodes"][node]} for node in nodes]
    assert [node["nvcc"]["found"] for node in found].count("13.97") == 1
    assert report["nodes"]["all nodes"] == []


def test_problems_with_pictures_are_evaluated_on_a_cluster_that_is_joined(cluster, tmp_path):
    save_smoke("geometry", tmp_path)
    job = run(
        cluster, tmp_path, "riskpo_openrlhf.cli.evaluate", "--runtime", "cpu", "--model", tmp_path / "model",
        "--data", tmp_path / "geometry3k_test.jsonl", "--out", tmp_path / "out", "--n", 4, "--max_new_tokens", 24,
    )  # fmt: skip
    assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-6000:]
    assert re.search(rf"existing Ray cluster at address: \S+:{cluster.rpartition(':')[2]}\b", job.stderr), job.stderr
    rows = list(map(json.loads, (tmp_path / "out/samples.jsonl").read_bytes().splitlines()))
    assert len(rows) == 4 * len((tmp_path / "geometry3k_test.jsonl").read_bytes().splitlines())
    metrics = json.loads((tmp_path / "out/summary.json").read_text())["sources"]
    assert 0 < next(iter(metrics.values()))["pass@1"] < 1  # the tiny model answers with some digit
