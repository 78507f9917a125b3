"""OpenRLHF must be importable here: on a machine without a GPU, through the CPU runtime's stand-ins."""

import json
import os
import subprocess
import sys

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    from riskpo_openrlhf.runtime import cpu

    cpu.prepare_worker()

# Dry runs in one process that has imported everything, a fork each: argument lists in, [exit code, output] out.
# The disk is as large as any checkpoint: what a dry run says must not depend on who else fills it at that moment.
FORKED = """
import json, os, runpy, shutil, sys
usage = shutil.disk_usage
shutil.disk_usage = lambda path: usage(path)._replace(free=10**15)
from riskpo_openrlhf.runtime import cpu
cpu.prepare_driver()
from riskpo_openrlhf.integration import contract, dry_run, trainers
contract.check()
for line in sys.stdin:
    read, write = os.pipe()
    if not os.fork():
        os.close(read)
        os.dup2(write, 1), os.dup2(write, 2)
        sys.argv = ["train", *json.loads(line)]
        code = 1
        try:
            runpy.run_module("riskpo_openrlhf.cli.train", run_name="__main__", alter_sys=True)
        except SystemExit as stopped:
            code = stopped.code or 0
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    os.close(write)
    output = os.fdopen(read, errors="replace").read()
    print("result", json.dumps([os.waitstatus_to_exitcode(os.wait()[1]), output]), flush=True)
"""


@pytest.fixture(scope="module")
def dry_run():
    """`dry_run(words)` dry runs a command -> exit code, everything printed. OpenRLHF is loaded once for all."""
    # The recipes' models are names on the hub, which a dry run does not ask.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0"}
    server = subprocess.Popen(
        [sys.executable, "-c", FORKED], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def run(words: list[str]) -> tuple[int, str]:
        assert words[:3] == ["python3", "-m", "riskpo_openrlhf.cli.train"]
        print(json.dumps([*words[3:], "--riskpo.dry_run"]), file=server.stdin, flush=True)
        for line in server.stdout:
            if line.startswith("result "):
                return tuple(json.loads(line.removeprefix("result ")))
        pytest.fail("the process of the dry runs has ended: see its output above")

    yield run
    server.stdin.close()
    server.wait()
