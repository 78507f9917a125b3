"""OpenRLHF on a machine without a GPU: for development, tests and the quickstart, not for speed.

The real Ray, vLLM (CPU build) and DeepSpeed ZeRO run; only what insists on CUDA is stood in for:
  - Ray is started with pretend GPUs, because every placement of OpenRLHF asks for some;
  - flash-attn's modules, imported at the top of OpenRLHF's ring attention, become modules that refuse to be called;
  - `torch.cuda`'s device calls and OpenRLHF's device mesh mean the CPU;
  - collectives finish in the order in which they start, as on NCCL's stream, which DeepSpeed relies on;
  - weights reach vLLM by gloo instead of NCCL, and all at once, since a CPU engine packs weights after loading.
Three kinds of process need it: the submitting one (`prepare_driver`), Ray's workers (`prepare_worker`, by Ray's
`worker_process_setup_hook`) and vLLM's engine processes (`prepare_engine`, by vLLM's plugin entry point).
"""

from __future__ import annotations

import functools
import gc
import importlib.abc
import importlib.machinery
import inspect
import os
import sys
import types

from riskpo_openrlhf.console import say
from riskpo_openrlhf.runtime import RUNTIME_VARIABLE

ENVIRONMENT = {
    RUNTIME_VARIABLE: "cpu",
    "DS_ACCELERATOR": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB of KV cache for each engine
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # engines and ranks share the cores
    "TORCHDYNAMO_DISABLE": "1",  # compiling takes minutes and gains nothing at this size
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1",  # as OpenRLHF sets it when it starts Ray itself
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class _CpuDevice(str):
    """What `torch.cuda.current_device()` returns: the device "cpu", or index 0 inside OpenRLHF's f"cuda:{...}"."""

    def __format__(self, spec: str) -> str:
        return "0"


class _GlooGroup:
    """The part of vLLM's `PyNcclCommunicator` that weight sync uses, over gloo."""

    def __init__(self, group):
        self.group = group

    def broadcast(self, tensor, src: int, stream=None) -> None:
        from torch.distributed import BroadcastOptions

        options = BroadcastOptions()
        options.rootRank, options.rootTensor = src, 0
        self.group.broadcast([tensor.detach()], options).wait()


def _weight_sync_group(master_address, master_port, rank, world_size, device):
    from vllm.distributed.utils import stateless_init_torch_distributed_process_group

    return _GlooGroup(
        stateless_init_torch_distributed_process_group(master_address, master_port, rank, world_size, "gloo")
    )


class _StandIn(types.ModuleType):
    __path__: list[str] = []


def _stand_in_for_flash_attn() -> None:
    def refuse(*args, **kwargs):
        raise RuntimeError("flash-attn does not run on a CPU: leave out --ds.packing_samples and --ds.ring_attn_size")

    contents = {
        "flash_attn": (),
        "flash_attn.bert_padding": ("index_first_axis", "pad_input", "rearrange", "unpad_input"),
        "flash_attn.utils": (),
        "flash_attn.utils.distributed": ("all_gather",),
    }
    for name, functions in contents.items():
        module = _StandIn(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        for function in functions:
            setattr(module, function, refuse)
        sys.modules[name] = module


class _BeforeOpenRLHF(importlib.abc.MetaPathFinder):
    """Puts the torch stand-ins in place when `openrlhf.trainer` is first imported.

    Ray starts more workers than the run uses, and importing torch in each would cost them seconds.
    """

    def find_spec(self, name, path, target=None):
        if name == "openrlhf.trainer":
            sys.meta_path.remove(self)
            _stand_in_for_cuda()
        return None  # the ordinary finders go on


def _stand_in_for_cuda() -> None:
    import torch
    import torch.distributed.device_mesh as device_mesh

    torch.cuda.current_device = lambda: _CpuDevice("cpu")
    for name in ("set_device", "synchronize", "empty_cache", "current_stream"):
        setattr(torch.cuda, name, lambda *args, **kwargs: None)
    real_mesh = device_mesh.init_device_mesh
    device_mesh.init_device_mesh = lambda device, *args, **kwargs: real_mesh("cpu", *args, **kwargs)

    finish_collectives_in_order()

    import openrlhf.utils.distributed_util as distributed_util

    distributed_util.stateless_init_process_group = _weight_sync_group


def finish_collectives_in_order() -> None:
    """Make each asynchronous collective of `torch.distributed` finish before it returns its handle.

    NCCL runs the collectives of a group one after another, so DeepSpeed starts several and waits for the last. gloo
    finishes them in any order: ZeRO-3 would read parameters that have not arrived. Call it before DeepSpeed is used.
    """
    import torch.distributed
    from torch.distributed import distributed_c10d

    def finished(collective):
        @functools.wraps(collective)
        def call(*args, **kwargs):
            handle = collective(*args, **kwargs)
            if handle is not None and not isinstance(handle, distributed_c10d._IllegalWork):  # of a coalesced group
                handle.wait()
            return handle

        call.finishes = True
        return call

    for module in (distributed_c10d, torch.distributed):
        for name, function in list(vars(module).items()):
            if type(function) is types.FunctionType and "async_op" in inspect.signature(function).parameters:
                if not hasattr(function, "finishes"):
                    setattr(module, name, finished(function))


def prepare_worker() -> None:
    """Put the stand-ins in place in this process, before OpenRLHF is imported. Safe to call twice."""
    gc.set_threshold(50_000, 20, 50)  # else looking for garbage is an eighth of the time that the imports take
    if not isinstance(sys.modules.get("flash_attn"), _StandIn):
        _stand_in_for_flash_attn()
        sys.meta_path.insert(0, _BeforeOpenRLHF())


def prepare_engine() -> None:
    """Let OpenRLHF's weight sync reach a vLLM engine on the CPU. Called in vLLM's own processes."""
    prepare_worker()
    import torch
    from openrlhf.trainer.ray.vllm_worker_wrap import WorkerWrap

    if torch.cpu._is_amx_tile_supported():  # the kernel grants AMX on request only; unasked, the first use is SIGILL
        torch.cpu._init_amx()

    def update_weight(self, name, dtype, shape, empty_cache=False):
        weight = torch.empty(shape, dtype=dtype)
        self._model_update_group.broadcast(weight, src=0)
        self.__dict__.setdefault("_received_weights", []).append((name, weight))
        if empty_cache:  # OpenRLHF sets it on the last parameter
            self.model_runner.reload_weights(weights_iterator=iter(self.__dict__.pop("_received_weights")))

    WorkerWrap.update_weight = update_weight


def prepare_driver() -> None:
    """Prepare the submitting process, before OpenRLHF is imported. Values that the user has set are kept."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ[RUNTIME_VARIABLE] = "cpu"
    prepare_worker()


def worker_environment() -> dict:
    """Return Ray's `runtime_env` for the workers of a job: each is prepared before it imports OpenRLHF."""
    return {
        "worker_process_setup_hook": "riskpo_openrlhf.runtime.cpu.prepare_worker",
        "env_vars": {name: os.environ[name] for name in ENVIRONMENT},
    }


def adapt(args) -> None:
    """Set what a CPU needs in OpenRLHF's final flags (nested), in place, and say what was changed."""
    changes = []

    def put(group, name, value):
        if getattr(group, name) != value:
            changes.append(f"{name} {getattr(group, name)} -> {value}")
            setattr(group, name, value)

    put(args.ds, "attn_implementation", "sdpa")
    put(args.ds, "packing_samples", False)
    put(args.ds, "enable_sleep", False)
    put(args.vllm, "enforce_eager", True)
    put(args.vllm, "enable_sleep", False)
    put(args.vllm, "sync_backend", "gloo")
    if changes:
        say("runtime cpu: " + ", ".join(changes))
