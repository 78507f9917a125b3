"""An evaluation on real engines that is interrupted in two ways. Minutes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest

from riskpo_openrlhf.cli import evaluate

PROBLEMS, N = 24, 400
SECONDS = 240


@pytest.fixture
def start(material, tmp_path):
    """`start(*flags)` begins an evaluation in a process of its own -> (process, its log)."""
    started = []

    def begin(*flags):
        command = [
            sys.executable, "-m", "riskpo_openrlhf.cli.evaluate", "--runtime", "cpu", "--model", material / "model",
            "--data", material / "heldout.jsonl", "--out", tmp_path / "out", "--n", N, "--max_new_tokens", 6,
            *flags,
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("RAY_ADDRESS", None)
        log = tmp_path / f"{len(started)}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, cwd=tmp_path, env=environment,
                start_new_session=True,
            )  # fmt: skip
        started.append(process)
        return process, log

    yield begin
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what Ray left of a killed one too
        except ProcessLookupError:
            pass
        process.wait()


def lines_of(path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def wait_for_lines(path, count, process, log):
    until = time.monotonic() + SECONDS
    while len(lines_of(path)) < count:
        assert process.poll() is None, log.read_text(errors="replace")[-6000:]
        assert time.monotonic() < until, f"no {count} samples within {SECONDS} s"
        time.sleep(0.05)


def test_an_evaluation_whose_engine_dies_and_that_is_killed_ends_with_every_sample_once(start, tmp_path, capsys):
    samples, total = tmp_path / "out/samples.jsonl", PROBLEMS * N

    process, log = start()
    wait_for_lines(samples, 300, process, log)
    cores = [p for p in psutil.Process(process.pid).children(recursive=True) if "EngineCore" in p.name()]
    assert cores, "no engine process found"
    for core in cores:
        core.kill()
    assert process.wait(SECONDS) == 1
    assert "engine 1 of 1 failed: EngineDeadError" in log.read_text(errors="replace")
    first = lines_of(samples)
    assert 300 <= len(first) < total

    process, log = start()
    wait_for_lines(samples, len(first) + 300, process, log)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    second = lines_of(samples)
    assert second[: len(first)] == first
    assert len(second) < total
    with open(samples, "ab") as file:
        file.write(b'{"datasource": "arithmetic", "id": ')  # killed in the middle of a line

    process, log = start("--parquet")
    assert process.wait(SECONDS) == 0, log.read_text(errors="replace")[-6000:]
    third = lines_of(samples)
    whole = [line for line in second if line.endswith(b"\n")]
    assert third[: len(whole)] == whole
    rows = list(map(json.loads, third))
    counts = Counter((row["id"], row["sample"]) for row in rows)
    assert len(counts) == total and set(counts.values()) == {1}
    assert {row["status"] for row in rows} <= {"ok", "no_answer"}
    assert all(-20 < row["logprob"] <= 0 and 1 <= row["tokens"] <= 6 for row in rows)

    metrics = json.loads((tmp_path / "out/summary.json").read_text())["sources"]["arithmetic"]
    right = Counter(row["id"] for row in rows if row["score"] > 0)
    assert metrics["pass@1"] == pytest.approx(sum(right.values()) / total)
    assert metrics[f"pass@{N}"] == pytest.approx(len(right) / PROBLEMS)

    process, log = start("--n", 2)
    assert process.wait(SECONDS) == 2
    assert f"sampling.arithmetic.n: {N} there, 2 now" in log.read_text(errors="replace")
    assert lines_of(samples) == third

    assert evaluate.main(["--compare", str(tmp_path / "out"), str(tmp_path / "out")]) == 0
    assert "+0.0 to +0.0" in capsys.readouterr().out
