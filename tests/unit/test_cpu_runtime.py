"""The CPU runtime's own logic; that engines run on it is shown by tests/system."""

import argparse
import subprocess
import sys
from types import SimpleNamespace

import pytest

from riskpo_openrlhf.integration.placement import gpus_needed
from riskpo_openrlhf.runtime import cpu


def flags(**changes):
    given = {
        "actor.num_nodes": 1, "actor.num_gpus_per_node": 2, "ref.num_nodes": 1, "ref.num_gpus_per_node": 2,
        "reward.num_nodes": 1, "reward.num_gpus_per_node": 1, "critic.num_nodes": 1, "critic.num_gpus_per_node": 1,
        "vllm.num_engines": 2, "vllm.tensor_parallel_size": 1, "algo.kl.init_coef": 0.0,
        "algo.advantage.estimator": "riskpo", "reward.remote_url": "reward.py", "train.agent_func_path": None,
        "train.colocate_all": False, "train.colocate_actor_ref": False, "train.async_enable": False,
        "train.colocate_critic_reward": False,
    }  # fmt: skip
    return argparse.Namespace(**{**given, **{name.replace("__", "."): value for name, value in changes.items()}})


@pytest.mark.parametrize(
    ("changes", "gpus"),
    [
        ({}, 4),
        ({"algo__kl__init_coef": 0.1}, 6),
        ({"algo__kl__init_coef": 0.1, "train__colocate_actor_ref": True}, 4),
        ({"reward__remote_url": None}, 5),
        ({"algo__advantage__estimator": "gae"}, 5),
        ({"train__colocate_all": True}, 2),
        ({"train__colocate_all": True, "train__async_enable": True}, 4),
        ({"vllm__num_engines": 4, "vllm__tensor_parallel_size": 2}, 10),
    ],
)
def test_ray_is_given_as_many_pretend_gpus_as_openrlhf_will_place(changes, gpus):
    assert gpus_needed(vars(flags(**changes))) == gpus


def test_what_a_cpu_cannot_do_is_turned_off_and_said(capsys):
    args = SimpleNamespace(
        ds=SimpleNamespace(attn_implementation="flash_attention_2", packing_samples=True, enable_sleep=True),
        vllm=SimpleNamespace(enforce_eager=False, enable_sleep=True, sync_backend="nccl"),
    )
    cpu.adapt(args)
    assert args.ds == SimpleNamespace(attn_implementation="sdpa", packing_samples=False, enable_sleep=False)
    assert args.vllm == SimpleNamespace(enforce_eager=True, enable_sleep=False, sync_backend="gloo")
    said = capsys.readouterr().out
    assert "[riskpo] runtime cpu: attn_implementation flash_attention_2 -> sdpa" in said and "nccl -> gloo" in said
    cpu.adapt(args)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("runtime", "loaded"), [(None, False), ("gpu", False)])
def test_vllms_plugin_loads_nothing_of_the_cpu_runtime_on_a_gpu_machine(runtime, loaded):
    code = (
        "import sys, riskpo_openrlhf.runtime as r; r.vllm_plugin();"
        "print(any(m in sys.modules for m in ('riskpo_openrlhf.runtime.cpu', 'torch', 'flash_attn')))"
    )
    environment = {"PATH": "/usr/bin", **({"RISKPO_RUNTIME": runtime} if runtime else {})}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == str(loaded)
