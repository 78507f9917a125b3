"""Look at a machine, and say what would stop a job on it. Imports nothing of the stack at the top."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from importlib import import_module
from math import isnan
from pathlib import Path
from typing import NamedTuple

from riskpo_openrlhf.integration.contract import OPENRLHF_VERSION
from riskpo_openrlhf.integration.final_flags import versions

GIB = 2**30
OK, NOTE, BAD = "ok", "note", "bad"
PACKAGES = ("openrlhf", "vllm", "ray", "deepspeed", "transformers", "torch", "flash-attn", "riskpo_openrlhf")
CUDA, DRIVER = 13, 580  # flash-attn and vLLM are built for CUDA 13, which needs a driver of 580 or later
SHM, HOST, DISK, FILES = 16, 64, 100, 65536  # GiB of /dev/shm, of free memory and of free disk; open files


class Finding(NamedTuple):
    """What was looked at, what was found, `ok`, `note` or `bad`, and the cure."""

    subject: str
    found: str
    status: str
    cure: str = ""


def facts() -> dict:
    """Collect what `judge` needs of this machine. Nothing is started, and no GPU memory is taken."""
    found = {
        "system": platform.system(),
        "machine": platform.machine(),
        "python": sys.version_info[:2],
        "packages": {**dict.fromkeys(PACKAGES), **versions(PACKAGES)},
        "cards": [],
        "nvcc": _nvcc(),
        "torch_cuda": None,
        "cuda_works": False,
        "flash_attn": None,
        "compiler": shutil.which("g++") or shutil.which("c++"),
        "shm": shutil.disk_usage("/dev/shm").total / GIB if os.path.isdir("/dev/shm") else 0.0,
        "memory": _available() / GIB,
        "disk": shutil.disk_usage(os.getcwd()).free / GIB,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    }
    query = "name,memory.total,memory.used,driver_version"
    for line in _output(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]).splitlines():
        name, total, used, driver = (part.strip() for part in line.split(","))
        found["cards"].append({"name": name, "total": _gib(total), "used": _gib(used), "driver": driver})
    try:
        import torch

        found["torch_cuda"], found["cuda_works"] = torch.version.cuda, torch.cuda.is_available()
    except ImportError:
        pass
    if found["packages"]["flash-attn"]:
        try:
            import_module("flash_attn")
        except Exception as error:  # built against another torch: an undefined symbol, an OSError
            found["flash_attn"] = f"{type(error).__name__}: {error}"[:200]
    return found


def _gib(mib: str) -> float:
    """Read what nvidia-smi prints; NaN for `[N/A]`."""
    return int(mib) / 1024 if mib.isdecimal() else float("nan")


def judge(facts: dict) -> list[Finding]:
    """Say what of `facts` would stop or slow a job on GPUs, and how to mend it."""
    findings = []

    def add(subject: str, found, good: bool, cure: str, otherwise: str = BAD) -> None:
        findings.append(Finding(subject, str(found), OK if good else otherwise, "" if good else cure))

    python, packages, cards = ".".join(map(str, facts["python"])), facts["packages"], facts["cards"]
    place = f"{facts['system']} {facts['machine']}"
    add("platform", place, place == "Linux x86_64", "OpenRLHF has wheels for Linux on x86_64 only")
    add("Python", python, python in ("3.11", "3.12"), "make an environment with Python 3.11 or 3.12")
    for name, installed in packages.items():
        cure = "install as in the README, On GPUs"
        if name == "openrlhf" and installed:
            cure = f"pip install openrlhf[vllm]=={OPENRLHF_VERSION}"
        good = bool(installed) and (name != "openrlhf" or installed.startswith(OPENRLHF_VERSION.rpartition(".")[0]))
        add(name, installed or "missing", good, cure)
    if facts["flash_attn"]:
        add("flash-attn imports", facts["flash_attn"], False, "compile it again against the installed torch: README")
    sizes = ("" if isnan(card["total"]) else f" {card['total']:.0f} GiB" for card in cards)
    names = ", ".join(card["name"] + size for card, size in zip(cards, sizes, strict=True)) or "none"
    add("cards", names, bool(cards), "nvidia-smi shows no card: install the driver, or give the container --gpus all")
    for driver in sorted({card["driver"] for card in cards}):
        add("driver", driver, int(driver.split(".")[0]) >= DRIVER, f"CUDA {CUDA} needs a driver of {DRIVER} or later")
    for i, card in enumerate(cards):
        if card["used"] > 0.05 * card["total"]:
            cure = "another process holds it: nvidia-smi names it"
            add(f"card {i}", f"{card['used']:.0f} of {card['total']:.0f} GiB in use", False, cure, NOTE)
    built = facts["torch_cuda"]
    add(
        "torch's CUDA",
        built or "none",
        bool(built) and built.startswith(f"{CUDA}."),
        "install torch 2.13.0 for CUDA 13",
    )
    if cards and built:
        add(
            "torch sees a card",
            facts["cuda_works"],
            facts["cuda_works"],
            "the driver is too old for this torch, or CUDA_VISIBLE_DEVICES is empty",
        )
    toolkit = facts["nvcc"]
    cure = f"install the toolkit of CUDA {CUDA} and set CUDA_HOME: DeepSpeed compiles its optimizer at first use"
    add("nvcc", toolkit or "missing", bool(toolkit) and toolkit.startswith(f"{CUDA}."), cure)
    if toolkit and built and toolkit != built:
        cure = "--ds.adam_offload needs DS_SKIP_CUDA_CHECK=1 then"
        add("nvcc and torch", f"CUDA {toolkit} and {built}", False, cure, NOTE)
    add("C++ compiler", facts["compiler"] or "missing", bool(facts["compiler"]), "install g++")
    shm = "give the container --shm-size 16g or --ipc host: Ray and NCCL share memory there"
    add("/dev/shm", f"{facts['shm']:.0f} GiB", facts["shm"] >= SHM, shm, NOTE)
    host = "14 bytes a parameter are pinned with --ds.enable_sleep: docs/recipes.md, Machines"
    add("free memory", f"{facts['memory']:.0f} GiB", facts["memory"] >= HOST, host, NOTE)
    disk = "a checkpoint takes 14 bytes a parameter, and three are kept: name another --ckpt.path"
    add("free disk here", f"{facts['disk']:.0f} GiB", facts["disk"] >= DISK, disk, NOTE)
    files = facts["files"]
    add("open files", files, files == resource.RLIM_INFINITY or files >= FILES, f"ulimit -n {FILES}", NOTE)
    return findings


def differences(nodes: dict[str, dict]) -> list[Finding]:
    """Compare the packages of all nodes. `nodes`: name -> `facts`."""
    findings = []
    for package in PACKAGES:
        versions = {name: facts["packages"][package] or "missing" for name, facts in nodes.items()}
        if len(set(versions.values())) > 1:
            found = ", ".join(f"{name} {text}" for name, text in versions.items())
            findings.append(Finding(f"{package} on all nodes", found, BAD, "install the same version on every node"))
    return findings


def _output(command: list[str]) -> str:
    """Return what a command prints; nothing if it is missing or fails."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout if run.returncode == 0 else ""


def _nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    command = str(Path(home, "bin/nvcc")) if home else shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    release = re.search(r"release (\d+\.\d+)", _output([command, "--version"]))
    return release.group(1) if release else None


def _available() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
