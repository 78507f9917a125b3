"""Saving and loading by the real strategy, on real DeepSpeed ZeRO-3 ranks (gloo)."""

import json
import os
import shutil
import socket
import subprocess
import sys

CHILD = r"""
import json, os, shutil, sys
from types import SimpleNamespace as N
folder, rank, world = sys.argv[1], int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
from riskpo_openrlhf.runtime import cpu
cpu.prepare_worker()
import openrlhf.trainer  # the stand-ins for CUDA
import deepspeed, torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
from torch import nn
from riskpo_openrlhf.integration import checkpoints
from riskpo_openrlhf.integration.faults import RunFault
from riskpo_openrlhf.integration.strategy import RiskPOStrategy

deepspeed.init_distributed("gloo")
args = N(ds=N(param_dtype="bf16"), train=N(), critic=N(model_name_or_path=None), riskpo=N(_fingerprints={}),
         ckpt=N(path=folder, max_num=1, max_mem=1.0, save_steps=1, disable_ds=False,
                load_enable=False), eval=N(steps=-1))
strategy = RiskPOStrategy(zero_stage=3, args=args)
part = os.path.join(folder, "_actor")

def engine():
    model = nn.Sequential(nn.Linear(7, 13), nn.Tanh(), nn.Dropout(0.5), nn.Linear(13, 5))
    config = {
        "train_micro_batch_size_per_gpu": 1, "train_batch_size": world, "bf16": {"enabled": True},
        "zero_optimization": {"stage": 3},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 9}},
    }
    return deepspeed.initialize(model=model, config=config, model_parameters=model.parameters())[0]

def step(engine):
    loss = engine(torch.randn(1, 7).bfloat16()).float().pow(2).mean()
    engine.backward(loss)
    engine.step()

def weights(engine):
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
        return [p.detach().clone() for p in engine.module.parameters()]

def state(engine):
    # weights and both moments, in fp32
    return [tensor for p in engine.module.parameters() for tensor in (
        safe_get_full_fp32_param(p), *(safe_get_full_optimizer_state(p, name) for name in ("exp_avg", "exp_avg_sq")))]

def save(engine, tag):
    strategy.save_ckpt(engine, part, tag, client_state={"global_step": tag})
    strategy.finish_checkpoints()

def fault(function):
    try:
        function()
    except RunFault as error:
        return str(error)

found = {}
if world != 2:
    given = engine()
    _, states = strategy.load_ckpt(given, part)
    found["states"] = states["global_step"]
    truth = torch.load(os.path.join(folder, "truth.pt"))
    found["equal"] = all(torch.equal(a, b) for a, b in zip(truth["state"], state(given), strict=True))
    found["learning_rate"] = given.lr_scheduler.state_dict() == truth["scheduler"]
    step(given); save(given, "global_step3")
    found["names"] = sorted(os.listdir(part))
    print("FOUND " + json.dumps(found), flush=True)
    sys.exit()
strategy.require_shared_folder()
torch.manual_seed(rank)
first = engine()
step(first); save(first, "global_step1"); step(first); save(first, "global_step2")
found["names"] = sorted(name for name in os.listdir(part) if "step" in name)
truth = {"state": state(first), "scheduler": first.lr_scheduler.state_dict()}
if rank == 0:
    torch.save(truth, os.path.join(folder, "truth.pt"))
step(first)
through = weights(first)

torch.manual_seed(99)
second = engine()
_, states = strategy.load_ckpt(second, part)
found["states"] = states["global_step"]
step(second)
found["equal"] = all(torch.equal(a, b) for a, b in zip(through, weights(second)))
found["learning_rate"] = first.lr_scheduler.get_last_lr() == second.lr_scheduler.get_last_lr()

usage = shutil.disk_usage
if rank == 0:
    shutil.disk_usage = lambda path: usage(path)._replace(free=1000)
found["full"] = fault(lambda: strategy.save_ckpt(second, part, "global_step3"))
shutil.disk_usage = usage
real = checkpoints.damage
if rank == 1:
    checkpoints.damage = lambda path: "there is no such folder"
found["blind"] = fault(lambda: strategy.load_ckpt(engine(), part))
checkpoints.damage = real
found["after"] = sorted(name for name in os.listdir(part) if "step" in name)
print("FOUND " + json.dumps(found), flush=True)
"""


def run(ranks: int, folder) -> list[dict]:
    """Run the script on so many ranks. Return what each of them found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu"}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(ranks)
    ]  # fmt: skip
    outputs = [child.communicate(timeout=600)[0] for child in children]
    for output in outputs:
        assert "FOUND " in output, output[-4000:]
    return [json.loads(output.rpartition("FOUND ")[2].splitlines()[0]) for output in outputs]


def test_two_ranks_save_whole_checkpoints_resume_bit_for_bit_and_fail_together_and_other_ranks_resume_them(tmp_path):
    for found in run(2, tmp_path / "checkpoints"):
        assert found["names"] == ["global_step2"]  # --ckpt.max_num 1
        assert found["states"] == "global_step2"
        assert found["equal"] and found["learning_rate"]  # weights, optimizer, dropout and data of each rank
        assert "No space left on device" in found["full"] and "kept: global_step2" in found["full"]
        assert "not one folder for all ranks: rank 1 can't read checkpoint global_step2" in found["blind"]
        assert found["after"] == ["global_step2"]
    for ranks in (1, 3):
        shutil.copytree(tmp_path / "checkpoints", tmp_path / str(ranks))
        for found in run(ranks, tmp_path / str(ranks)):
            assert found == {"states": "global_step2", "equal": True, "learning_rate": True,
                             "names": ["global_step3", "latest", "zero_to_fp32.py"]}  # fmt: skip
