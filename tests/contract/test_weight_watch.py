"""Steps, gradient norms and weights of real DeepSpeed engines, as a policy worker reports them."""

import json
import os
import socket
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
import deepspeed, torch
from riskpo_openrlhf.integration.guards import WeightWatch

deepspeed.init_distributed("gloo", verbose=False)


def report(stage, lr, factor):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
    settings = {
        "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 2, "bf16": {"enabled": True},
        "gradient_clipping": 1.0, "zero_optimization": {"stage": stage},
        "optimizer": {"type": "AdamW", "params": {"lr": lr, "weight_decay": 0.0, "torch_adam": True}},
    }
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=settings)
    watch = WeightWatch(engine)
    for _ in range(4):
        watch.before_backward()
        engine.backward((engine(torch.ones(1, 8, dtype=torch.bfloat16)).float() * factor).sum())
        engine.step()
        watch.after_backward(float(engine.get_global_grad_norm() or 0.0))
    return watch.report()._asdict()


for stage in map(int, sys.argv[1:]):
    cases = {"tiny": (1e-7, 1), "zero": (0.0, 1), "nan": (1.0, float("nan"))}
    print("REPORT", json.dumps({"stage": stage, **{name: report(stage, *how) for name, how in cases.items()}}))
"""


@pytest.fixture(scope="module")
def reports():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = {"DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    alone |= {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, "0", "1", "2", "3"],
        capture_output=True, text=True, timeout=300, env={**os.environ, **alone},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    lines = [json.loads(line.split("REPORT ")[1]) for line in run.stdout.splitlines() if "REPORT " in line]
    return {line["stage"]: line for line in lines}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_weights_that_bf16_rounds_back_have_changed_and_those_of_learning_rate_0_have_not(reports, stage):
    tiny, zero = reports[stage]["tiny"], reports[stage]["zero"]
    assert (tiny["steps"], tiny["changed"], tiny["finite"]) == (2, True, True)
    assert (zero["steps"], zero["changed"], zero["learning_rate"]) == (2, False, 0.0)
    assert tiny["gradient_norm"] > 0 and tiny["learning_rate"] == 1e-7


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_gradients_that_are_not_finite_are_skipped_or_seen_in_the_weights(reports, stage):
    found = reports[stage]["nan"]
    if stage == 3:  # DeepSpeed applies them in bf16, and gives a norm that looks fine
        assert (found["steps"], found["finite"]) == (2, False)
    else:
        assert (found["steps"], found["skipped"], found["skipped_in_a_row"]) == (0, 2, 2)
        assert found["finite"] and not found["changed"] and found["gradient_norm"] == 0
