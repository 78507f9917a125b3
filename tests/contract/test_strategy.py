"""Saving and loading by the real strategy, on two real DeepSpeed ZeRO-3 ranks (gloo)."""

import json
import os
import socket
import subprocess
import sys

CHILD = r"""
import json, os, shutil, sys
from types import SimpleNamespace as N
folder, rank = sys.argv[1], int(os.environ["RANK"])
from riskpo_openrlhf.runtime import cpu
cpu.prepare_worker()
import openrlhf.trainer  # the stand-ins for CUDA
import deepspeed, torch
from torch import nn
from riskpo_openrlhf.integration import checkpoints
from riskpo_openrlhf.integration.faults import RunFault
from riskpo_openrlhf.integration.strategy import RiskPOStrategy

deepspeed.init_distributed("gloo")
args = N(ds=N(param_dtype="bf16"), train=N(), critic=N(model_name_or_path=None), riskpo=N(_fingerprints={}),
         ckpt=N(path=folder, max_num=1, max_mem=1.0, save_steps=1, disable_ds=False), eval=N(steps=-1))
strategy = RiskPOStrategy(zero_stage=3, args=args)
part = os.path.join(folder, "_actor")

def engine():
    model = nn.Sequential(nn.Linear(7, 13), nn.Tanh(), nn.Dropout(0.5), nn.Linear(13, 5))
    config = {
        "train_micro_batch_size_per_gpu": 1, "train_batch_size": 2, "bf16": {"enabled": True},
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

def save(engine, tag):
    strategy.save_ckpt(engine, part, tag, client_state={"global_step": tag})
    strategy.finish_checkpoints()

def fault(function):
    try:
        function()
    except RunFault as error:
        return str(error)

found = {}
strategy.require_shared_folder()
torch.manual_seed(rank)
first = engine()
step(first); save(first, "global_step1"); step(first); save(first, "global_step2")
found["names"] = sorted(name for name in os.listdir(part) if "step" in name)
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


def test_two_ranks_save_whole_checkpoints_resume_bit_for_bit_and_fail_together(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(2):
        environment = {
            **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        children.append(
            subprocess.Popen(
                [sys.executable, "-c", CHILD, tmp_path / "checkpoints"], env=environment, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
    outputs = [child.communicate(timeout=600)[0] for child in children]
    for output in outputs:
        assert "FOUND " in output, output[-4000:]
        found = json.loads(output.rpartition("FOUND ")[2].splitlines()[0])
        assert found["names"] == ["global_step2"]  # --ckpt.max_num 1
        assert found["states"] == "global_step2"
        assert found["equal"] and found["learning_rate"]  # weights, optimizer, dropout and data of each rank
        assert "No space left on device" in found["full"] and "kept: global_step2" in found["full"]
        assert "not one folder for all ranks: rank 1 can't read checkpoint global_step2" in found["blind"]
        assert found["after"] == ["global_step2"]
