"""DeepSpeed ZeRO-3 on gloo: what a rank gathers has arrived before it is read, on two and on four ranks."""

import os
import socket
import subprocess
import sys

import pytest

RANK = """
import sys
import torch
from riskpo_openrlhf.runtime import cpu

rounds, in_order = int(sys.argv[1]), sys.argv[2] == "in order"
if in_order:
    cpu.finish_collectives_in_order()
import deepspeed

torch.set_num_threads(1)
deepspeed.init_distributed("gloo", verbose=False)
settings = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
with deepspeed.zero.Init(config_dict_or_path=settings, dtype=torch.float32):
    # The large one is the first to start and the last to arrive.
    model = torch.nn.ParameterList([torch.empty(2**18), *(torch.empty(20 + i) for i in range(20))])
parameters, wrong = list(model.parameters()), 0
for step in range(rounds):
    with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0):
        if deepspeed.comm.get_rank() == 0:
            for i, parameter in enumerate(parameters):
                parameter.data.fill_(100 * step + i)
    with deepspeed.zero.GatheredParameters(parameters):
        wrong += any(bool((parameter != 100 * step + i).any()) for i, parameter in enumerate(parameters))
print(f"wrong={wrong}")
"""


def wrong_rounds(ranks: int, rounds: int, order: str) -> list[int]:
    """The rounds, of writing and reading all parameters, in which each rank read a wrong value."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RANK, str(rounds), order],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all("wrong=" in output for output in outputs), outputs[0][-3000:]
    return [int(output.split("wrong=")[1].split()[0]) for output in outputs]


@pytest.mark.parametrize(("ranks", "rounds"), [(2, 100), (4, 30)])
def test_every_gathered_value_is_the_one_that_was_written(ranks, rounds):
    assert wrong_rounds(ranks, rounds, "in order") == [0] * ranks


def test_without_the_order_gathers_are_read_before_they_arrive():
    assert max(wrong_rounds(2, 200, "as gloo likes")) > 0
