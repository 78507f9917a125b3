"""What this plugin relies on inside OpenRLHF, checked before anything else.

OpenRLHF has no plugin interface and its insides move between patch releases (`PolicyLoss.forward` went from 4 to 5
values between 0.11.0 and 0.11.2), so the version is pinned and each seam is listed here with its signature.
"""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import PackageNotFoundError, version

OPENRLHF_VERSION = "0.11.2"

# module -> class ("" for the module's own functions) -> method -> the parameters that we pass, receive or forward
SEAMS: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "openrlhf.trainer.ppo_trainer": {
        "BasePPOTrainer": {
            "__init__": (
                "self",
                "strategy",
                "actor_model_group",
                "critic_model_group",
                "reward_model_group",
                "reference_model_group",
                "vllm_engines",
                "tokenizer",
            ),
            "train_step": ("self", "rollout_samples", "global_step"),
            "save_logs_and_checkpoints": ("self", "global_step", "logs_dict", "client_states"),
            "save_best_checkpoint": ("self", "eval_metrics", "global_step", "client_states"),
            "init_checkpoint_states": ("self",),
        },
        "PPOTrainer": {
            "fit": ("self", "global_step"),
            "evaluate": ("self", "global_step", "generate_kwargs"),
        },
    },
    "openrlhf.trainer.ppo_trainer_async": {
        "TrainingActor": {"fit": ("self", "global_step")},
        "GenerateSamplesActor": {"_run_eval": ("self",)},
        "PPOTrainerAsync": {"fit": ("self",)},
    },
    "openrlhf.trainer.ppo_utils.samples_generator": {
        "SamplesGenerator": {
            "__init__": ("self", "strategy", "prompts_dataloader", "eval_dataloader", "tokenizer", "vllm_engines"),
            "generate_samples": ("self", "generate_kwargs"),
            "generate_eval_samples": ("self", "generate_kwargs"),
            "_process_response_into_experience": ("self", "response", "generate_kwargs"),
        },
    },
    "openrlhf.trainer.ppo_utils.experience_maker": {
        "RemoteExperienceMaker": {
            "__init__": (
                "self",
                "actor_model_group",
                "critic_model_group",
                "reward_model_group",
                "initial_model_group",
                "kl_controller",
                "strategy",
                "tokenizer",
                "kwargs",
            ),
            "compute_advantages_and_returns": ("self", "experiences"),
        },
    },
    "openrlhf.trainer.ray.ppo_actor": {
        "ActorPPOTrainer": {"training_step": ("self", "experience", "kl_ctl", "step", "loss_batch_info")},
        "PolicyModelActor": {
            "init_model_from_pretrained": ("self", "strategy", "pretrain", "max_steps", "vllm_engines")
        },
    },
    "openrlhf.trainer.ray.vllm_engine": {"RolloutRayActor": {
 "update_weight": ("self", "name", "dtype", "shape", "empty_cache"),
 "update_weight_cuda_ipc": ("self", "name", "dtype", "shape", "ipc_handles", "empty_cache"),
"generate_responses": (
        "self", "prompt", "label", "sampling_params", "max_length", "hf_tokenizer", "num_samples", "images",
    )}},
    "openrlhf.utils.agent": {
        "SingleTurnAgentExecutor": {
            "_fetch_rewards_via_func": ("self", "queries_list", "prompts_list", "labels_list"),
            "_fetch_rewards_via_http": ("self", "queries_list", "prompts_list", "labels_list"),
        }
    },
    "openrlhf.trainer.ppo_utils.length_penalty": {"": {"apply_length_penalties": ("experiences", "args")}},
    "openrlhf.trainer.ray.vllm_worker_wrap": {
        "WorkerWrap": {"update_weight": ("self", "name", "dtype", "shape", "empty_cache")}
    },
    "openrlhf.utils": {"": {"get_strategy": ("args",)}},
    "openrlhf.utils.distributed_util": {
        "": {"stateless_init_process_group": ("master_address", "master_port", "rank", "world_size", "device")}
    },
    "openrlhf.utils.loss_utils": {
        "": {
            "get_loss_batch_info": (
                "strategy",
                "loss_mask",
                "replay_buffer",
                "step",
                "dynamic_batch",
                "batch_num_tokens",
                "global_batch_size",
            )
        }
    },
    "openrlhf.models.loss": {
        "PolicyLoss": {
            "__init__": (
                "self",
                "clip_eps_low",
                "clip_eps_high",
                "dual_clip",
                "token_level_loss",
                "policy_loss_type",
                "is_correction_level",
                "is_correction_mode",
                "is_correction_gating",
                "is_correction_threshold",
            ),
            "forward": (
                "self",
                "log_probs",
                "old_log_probs",
                "advantages",
                "action_mask",
                "rollout_log_probs",
                "dp_size",
                "batch_num_tokens",
                "global_batch_size",
            ),
        }
    },
}  # fmt: skip


class ContractError(RuntimeError):
    """OpenRLHF is not the one that this version was written for."""


def plain_class(cls):
    """The class under `@ray.remote`, which can be inherited from; a class without the decorator is returned as is."""
    metadata = getattr(cls, "__ray_metadata__", None)
    return metadata.modified_class if metadata is not None else cls


def installed_version() -> str:
    try:
        return version("openrlhf")
    except PackageNotFoundError:
        raise ContractError(
            f"OpenRLHF is not installed; install openrlhf=={OPENRLHF_VERSION} (README, 'Installation')"
        ) from None


def check_version() -> None:
    """Raises `ContractError` unless the installed OpenRLHF is the pinned one. Imports nothing heavy."""
    found = installed_version()
    if found != OPENRLHF_VERSION:
        raise ContractError(
            f"OpenRLHF {found} is installed, and this version of riskpo-openrlhf is written for {OPENRLHF_VERSION}: "
            f"pip install openrlhf=={OPENRLHF_VERSION}"
        )


def check() -> None:
    """Check version, signatures and the loss's return arity. Raises `ContractError` that lists every difference."""
    check_version()
    differences = []
    for module_name, classes in SEAMS.items():
        module = _import(module_name)
        if module is None:
            differences.append(f"{module_name} is gone")
            continue
        for class_name, methods in classes.items():
            owner = plain_class(getattr(module, class_name, None)) if class_name else module
            for method, expected in methods.items():
                function = getattr(owner, method, None)
                found = _parameters(function) if function else None
                if found != expected:
                    where = ".".join(filter(None, (module_name, class_name, method)))
                    differences.append(f"{where} takes {found}, expected {expected}" if found else f"{where} is gone")
    if not differences:
        differences += _check_loss_arity()
    if differences:
        raise ContractError(
            f"OpenRLHF {installed_version()} differs from {OPENRLHF_VERSION} where this plugin relies on it:\n  "
            + "\n  ".join(differences)
            + f"\nInstall an unchanged openrlhf=={OPENRLHF_VERSION}."
        )


def _import(name: str):
    """The module, or None if OpenRLHF has none of that name. Raises `ContractError` for another package that lacks."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("openrlhf"):
            return None
        raise ContractError(
            f"{name} can't be imported, the package {error.name} is missing: install it as OpenRLHF asks "
            f"(pip install openrlhf[vllm]=={OPENRLHF_VERSION}); without a GPU, add --riskpo.runtime cpu"
        ) from error


def _parameters(function) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(function).parameters if name != "_ray_trace_ctx")  # Ray adds it


def _check_loss_arity() -> list[str]:
    import torch
    from openrlhf.models.loss import PolicyLoss

    one = torch.ones(1, 1)
    values = PolicyLoss()(one, one, one, action_mask=one)
    return [] if len(values) == 5 else [f"PolicyLoss.forward returns {len(values)} values, expected 5"]
