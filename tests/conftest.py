"""What lies in tests/system starts real engines and carries the marker that `tests/run.sh --fast` leaves out."""

import gc
import json
from pathlib import Path

import pytest
from hypothesis import settings

# Property tests have no time limit: a busy machine is no fault of the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

gc.disable()  # until all tests are collected: their imports make much and leave no garbage

SYSTEM = Path(__file__).parent / "system"
LONGEST = [  # 17 minutes to one, where three processes share two cores
    "test_training.py", "test_recipe_smokes.py", "test_gpu_check.py", "test_your_own_run.py", "test_contract.py",
    "test_evaluate.py", "test_guards.py", "test_engine_restarts.py", "test_watch.py", "test_strategy.py",
    "test_train_series.py", "test_recipes.py", "test_launch.py", "test_zero_gathers.py", "test_joined_cluster.py",
    "test_supervise.py",
]  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(SYSTEM):
            item.add_marker("system")
    # Longest first, so that all processes are busy to the end (`tests/run.sh`): short files fill the rest.
    place = {name: k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_collection_finish():
    gc.enable()


@pytest.fixture(scope="session")
def write_model():
    """`write_model(folder, **config)`: a model's folder that looks whole; its weights are one number."""

    def write(folder: Path, **config) -> str:
        import torch
        from safetensors.torch import save_file

        from riskpo_openrlhf.lab.tiny_model import build_tiny_tokenizer

        folder.mkdir(parents=True, exist_ok=True)
        build_tiny_tokenizer().save_pretrained(folder)
        save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"} | config))
        return str(folder)

    return write


@pytest.fixture(scope="session")
def working_sandbox():
    """Skip the tests that run programs where this machine has no sandbox."""
    from riskpo_openrlhf.verifiers.code import sandbox

    try:
        sandbox.mode()
    except sandbox.SandboxError as error:
        pytest.skip(str(error))
