"""The wheel in an environment of its own: outside a checkout, with the packages that it declares and no others."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.system
REPOSITORY = Path(__file__).parents[2]
COMMANDS = ("train", "evaluate", "prepare-data", "plot", "report", "serve-verifiers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy, since setuptools writes into the folder that it builds from."""
    source, out = tmp_path_factory.mktemp("source") / "copy", tmp_path_factory.mktemp("wheel")
    skip = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "runs", "docs", "tests")
    shutil.copytree(REPOSITORY, source, ignore=skip)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, source]
    subprocess.run(command, check=True, timeout=300)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=300)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, wheel], check=True, timeout=300)
    return folder


def declared(wheel: Path, *extras: str) -> list[Requirement]:
    """The requirements in the wheel's metadata, with those of the extras."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        text = file.read(name).decode()
    lines = re.findall(r"^Requires-Dist: (.*)$", text, re.MULTILINE)
    found = map(Requirement, lines)
    return [r for r in found if not r.marker or any(r.marker.evaluate({"extra": extra}) for extra in ("", *extras))]


def links(folder: Path, requirements: list[Requirement]) -> Path:
    """A folder with links to these distributions and to all that they require: the only ones that a command sees."""
    todo, seen = [(r.name, tuple(r.extras)) for r in requirements], set()
    folder.mkdir()
    while todo:
        name, extras = todo.pop()
        try:
            found = distribution(name)
        except PackageNotFoundError:  # what is there for a GPU only
            continue
        if (found.name, extras) in seen:
            continue
        seen.add((found.name, extras))
        for line in found.requires or ():
            wanted = Requirement(line)
            if not wanted.marker or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                todo.append((wanted.name, tuple(wanted.extras)))
        for top in {path.parts[0] for path in found.files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
    return folder


@pytest.fixture(scope="module")
def shelf(wheel, tmp_path_factory) -> dict[str, Path]:
    """Way to install -> the folder of packages that a user has then."""
    top = tmp_path_factory.mktemp("shelf")
    return {
        "base": links(top / "base", declared(wheel)),
        "analysis": links(top / "analysis", declared(wheel, "analysis")),
        "cpu": links(top / "cpu", [*declared(wheel, "cpu"), Requirement("openrlhf")]),
    }


@pytest.fixture
def run(environment, shelf, tmp_path):
    def run(way: str, *command, code: int = 0) -> str:
        process = subprocess.run(
            [environment / "bin" / command[0], *map(str, command[1:])],
            env=variables(shelf[way]), cwd=tmp_path, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert process.returncode == code, process.stdout[-3000:] + process.stderr[-3000:]
        return process.stdout + process.stderr

    return run


def variables(packages: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(packages.parent),
        "PYTHONPATH": str(packages),
        "HF_HUB_OFFLINE": "1",
    }


def test_the_wheel_holds_all_of_the_product_and_neither_laboratory_nor_tests_nor_recipes(wheel):
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    package = REPOSITORY / "riskpo_openrlhf"
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    product = {path for path in files if not path.is_relative_to(package / "lab")}
    assert held == {path.relative_to(REPOSITORY).as_posix() for path in product}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_its_help(command, run):
    way = {"train": "cpu", "evaluate": "cpu", "plot": "analysis", "report": "analysis"}.get(command, "base")
    assert "usage:" in run(way, f"riskpo-{command}", "--help")


def test_a_set_is_prepared_and_checked(run, tmp_path):
    made = ["reasoning_gym_train", "--count", "8", "--out", tmp_path / "data"]
    assert "8 rows" in run("base", "riskpo-prepare-data", *made)
    check = ["--check", tmp_path / "data/reasoning_gym_train.jsonl", "--json"]
    assert "runs OpenRLHF's loaders" in run("base", "riskpo-prepare-data", *check, code=2)
    assert json.loads(run("cpu", "riskpo-prepare-data", *check).splitlines()[-1])["ok"]


def test_a_run_is_drawn_and_reported(run, tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(log_dir=str(tmp_path / "run/tensorboard/riskpo")) as writer:
        for step in range(8):
            writer.add_scalar("train/rollout/reward_mean", step / 10, step)
            writer.add_scalar("train/entropy", 1 - step / 20, step)
            writer.add_scalar("eval/amc/pass@1", step / 20, step)
    assert "curves.png" in run("analysis", "riskpo-plot", tmp_path / "run", "--out", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert "report.html" in run("analysis", "riskpo-report", tmp_path / "run")
    assert "<svg" in (tmp_path / "run/report.html").read_text()


def test_an_answer_is_verified_and_an_undeclared_package_is_not_there(run):
    code = "from riskpo_openrlhf.verifiers.math import verify; print(verify(r'So \\boxed{0.5}', r'\\frac12').correct)"
    assert run("base", "python", "-c", code).splitlines()[-1] == "True"
    assert "No module named 'vllm'" in run("base", "python", "-c", "import vllm", code=1)
    assert "No module named 'riskpo_openrlhf.lab'" in run("cpu", "python", "-c", "import riskpo_openrlhf.lab", code=1)


def test_the_verifiers_are_served(environment, shelf, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [environment / "bin/riskpo-serve-verifiers", "--port", str(port)]
    with subprocess.Popen(command, env=variables(shelf["base"]), cwd=tmp_path, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout.readline().decode() == f"Verifiers: http://127.0.0.1:{port}/get_reward\n"
            body = json.dumps({"query": ["Q: \\boxed{2}"], "prompts": ["Q: "], "labels": ["2"]}).encode()
            assert json.load(ask(f"http://127.0.0.1:{port}/get_reward", body))["rewards"] == 1.0
        finally:
            server.terminate()
            server.wait(60)


def ask(url: str, body: bytes):
    for _ in range(300):
        try:
            return urllib.request.urlopen(url, body, timeout=60)
        except ConnectionRefusedError:
            time.sleep(0.1)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.1)
    raise TimeoutError(url)
