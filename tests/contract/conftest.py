"""OpenRLHF must be importable here: on a machine without a GPU, through the CPU runtime's stand-ins."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    from riskpo_openrlhf.runtime import cpu

    cpu.prepare_worker()
