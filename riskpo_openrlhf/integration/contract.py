"""What we rely on in OpenRLHF, checked before a GPU is taken.

OpenRLHF has no plugin interface, and its internals change between patch releases. Everything of it that
`integration/`, `runtime/` and `lab/` import, call, override or read stands here; a test compares this file with the
code. The check is a subset check: what we use must exist and accept what we pass. An added optional parameter, or
another patch version of 0.11, is a note. Anything missing is a `ContractError`, exit code 3.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import os
import textwrap
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, entry_points, version

OPENRLHF_VERSION = "0.11.2"
OPENRLHF_MODULE = "openrlhf.cli.train_ppo_ray"
PLUGIN = "riskpo_cpu"  # our entry point in vLLM's processes, on GPUs too

_ENGINES = (
    "num_engines tensor_parallel_size pretrain seed full_determinism enable_prefix_caching enforce_eager "
    "max_model_len shared_pg gpu_memory_utilization vllm_enable_sleep logprobs_mode agent_func_path remote_rm_url "
    "max_images_per_prompt"
)
# module -> name, or Class.method -> all its parameters, in order; None: only that it exists.
SEAMS: dict[str, dict[str, str | None]] = {
    "openrlhf.trainer.ppo_trainer": {
        "BasePPOTrainer.__init__": "self strategy actor_model_group critic_model_group reward_model_group "
        "reference_model_group vllm_engines tokenizer",
        "BasePPOTrainer.fit": "self global_step",
        "BasePPOTrainer.train_step": "self rollout_samples global_step",
        "BasePPOTrainer.save_logs_and_checkpoints": "self global_step logs_dict client_states",
        "BasePPOTrainer.save_best_checkpoint": "self eval_metrics global_step client_states",
        "BasePPOTrainer.init_checkpoint_states": "self",
        "BasePPOTrainer.broadcast_to_vllm": "self",
        "BasePPOTrainer.ppo_train": "self global_steps",
        "BasePPOTrainer._detect_eval_metric_key": "self eval_metrics",
        "BasePPOTrainer.restore_best_checkpoint_state": "self checkpoint_states",
        "PPOTrainer.__init__": "self pretrain strategy actor_model_group critic_model_group reward_model_group "
        "reference_model_group vllm_engines generate_kwargs",
        "PPOTrainer.fit": "self global_step",
        "PPOTrainer.evaluate": "self global_step generate_kwargs",
        "PPOTrainer.get_max_steps": "self",
        "RemoteExperienceMaker": None,
        "SamplesGenerator": None,
    },
    "openrlhf.trainer.ppo_trainer_async": {
        "TrainingActor.__init__": "self pretrain strategy actor_model_group critic_model_group reward_model_group "
        "reference_model_group vllm_engines vllm_lock rollout_queue rollout_slots",
        "TrainingActor.fit": "self global_step",
        "TrainingActor.broadcast_to_vllm": "self",
        "GenerateSamplesActor.__init__": "self pretrain strategy vllm_engines vllm_lock rollout_queue rollout_slots "
        "generate_kwargs",
        "GenerateSamplesActor._run_eval": "self",
        "GenerateSamplesActor.load_state_dict": "self state_dict",
        "GenerateSamplesActor.fit": "self episode total_consumed_prompts",
        "PPOTrainerAsync.__init__": "self pretrain strategy actor_model_group critic_model_group reward_model_group "
        "reference_model_group vllm_engines generate_kwargs",
        "PPOTrainerAsync.fit": "self",
        "SamplesGenerator": None,
    },
    "openrlhf.trainer.ppo_utils.samples_generator": {
        "SamplesGenerator.__init__": "self strategy prompts_dataloader eval_dataloader tokenizer vllm_engines",
        "SamplesGenerator.generate_samples": "self generate_kwargs",
        "SamplesGenerator.generate_eval_samples": "self generate_kwargs",
        "SamplesGenerator._generate_vllm": "self dataloader_iter num_prompts dynamic_filtering generate_kwargs",
        "SamplesGenerator._dispatch_prompts_to_vllm": "self prompts labels images generate_kwargs",
        "SamplesGenerator._process_response_into_experience": "self response generate_kwargs",
    },
    "openrlhf.trainer.ppo_utils.experience": {"Experience": None},
    "openrlhf.trainer.ppo_utils.experience_maker": {
        "RemoteExperienceMaker.__init__": "self actor_model_group critic_model_group reward_model_group "
        "initial_model_group kl_controller strategy tokenizer kwargs",
        "RemoteExperienceMaker.make_experience": "self samples_list",
        "RemoteExperienceMaker.compute_advantages_and_returns": "self experiences",
    },
    "openrlhf.trainer.ppo_utils.length_penalty": {"apply_length_penalties": "experiences args"},
    "openrlhf.trainer.ray": {"create_vllm_engines": _ENGINES},
    "openrlhf.trainer.ray.launcher": {
        "BaseDistributedActor._get_free_port": "",
        "ReferenceModelActor": None,
        "RewardModelActor": None,
        "RayActorGroup.__init__": "self num_nodes num_gpus_per_node ray_actor_type pg num_gpus_per_actor "
        "duplicate_actors resources num_resources_per_node",
    },
    "openrlhf.trainer.ray.ppo_actor": {
        "ActorPPOTrainer.__init__": "self strategy actor ema_model actor_optim actor_scheduler ema_beta "
        "micro_train_batch_size buffer_limit buffer_cpu_offload eps_clip tokenizer dataloader_pin_memory "
        "vllm_engines kwargs",
        "ActorPPOTrainer.training_step": "self experience kl_ctl step loss_batch_info",
        "ActorPPOTrainer._init_vllm_sync_group": "self backend",
        "PolicyModelActor.fit": "self kl_ctl",
        "PolicyModelActor.init_model_from_pretrained": "self strategy pretrain max_steps vllm_engines",
        "PolicyModelActor.forward": "self sequences action_mask attention_mask packed_seq_lens mm_train_inputs_list",
        "PolicyLoss": None,
        "socket": None,
    },
    "openrlhf.trainer.ray.ppo_critic": {"CriticModelActor": None},
    "openrlhf.trainer.ray.vllm_engine": {
        "RolloutRayActor.__init__": "self args bundle_indices agent_func_path remote_rm_url mm_pad_token_ids kwargs",
        "RolloutRayActor.update_weight": "self name dtype shape empty_cache",
        "RolloutRayActor.update_weight_cuda_ipc": "self name dtype shape ipc_handles empty_cache",
        "RolloutRayActor.generate": "self prompt_token_ids sampling_params multi_modal_data",
        "RolloutRayActor.generate_responses": "self prompt label sampling_params max_length hf_tokenizer num_samples "
        "images",
        "create_vllm_engines": _ENGINES,
    },
    "openrlhf.trainer.ray.vllm_worker_wrap": {"WorkerWrap.update_weight": "self name dtype shape empty_cache"},
    "openrlhf.utils": {"get_strategy": "args"},
    "openrlhf.utils.deepspeed": {"DeepspeedStrategy": None},
    "openrlhf.utils.deepspeed.deepspeed": {
        "DeepspeedStrategy.save_ckpt": "self model save_dir tag max_num max_mem client_state save_latest metric_value "
        "metric_key",
        "DeepspeedStrategy.load_ckpt": "self model load_dir tag load_module_strict load_optimizer_states "
        "load_lr_scheduler_states load_module_only",
        "DeepspeedStrategy.save_model": "self model tokenizer output_dir kwargs",
        "DeepspeedStrategy.setup_dataloader": "self replay_buffer batch_size pin_memory shuffle collate_fn drop_last "
        "sampler consumed_samples num_workers",
        "DeepspeedStrategy.get_rank": "self",
        "DeepspeedStrategy._write_ckpt_metric": "self ckpt_dir metric_value metric_key",
    },
    "openrlhf.utils.utils": {
        "get_strategy": "args",
        "get_tokenizer": "pretrain model padding_side strategy use_fast",
        "is_vlm_model": "pretrain",
    },
    "openrlhf.utils.agent": {
        "AgentExecutorBase": None,
        "SingleTurnAgentExecutor.execute": "self prompt label sampling_params max_length hf_tokenizer llm_engine "
        "images",
        "SingleTurnAgentExecutor._fetch_rewards_via_func": "self queries_list prompts_list labels_list",
        "SingleTurnAgentExecutor._fetch_rewards_via_http": "self queries_list prompts_list labels_list",
    },
    "openrlhf.utils.distributed_util": {
        "stateless_init_process_group": "master_address master_port rank world_size device",
    },
    "openrlhf.utils.loss_utils": {
        "get_loss_batch_info": "strategy loss_mask replay_buffer step dynamic_batch batch_num_tokens global_batch_size"
    },
    "openrlhf.utils.vlm_utils": {"process_prompt_with_images": "processor prompt images", "_is_base64_image": "s"},
    "openrlhf.datasets.prompts_dataset": {
        "preprocess_data": "data input_template input_key label_key apply_chat_template",
        "PromptDataset.__init__": "self dataset tokenizer strategy input_template",
    },
    "openrlhf.datasets.utils": {
        "blending_datasets": "datasets probabilities strategy seed max_count stopping_strategy dataset_split"
    },
    "openrlhf.models": {"PolicyLoss": None},
    "openrlhf.models.loss": {
        "PolicyLoss.__init__": "self clip_eps_low clip_eps_high dual_clip token_level_loss policy_loss_type "
        "is_correction_level is_correction_mode is_correction_gating is_correction_threshold",
        "PolicyLoss.forward": "self log_probs old_log_probs advantages action_mask rollout_log_probs dp_size "
        "batch_num_tokens global_batch_size",
    },
    "openrlhf.models.utils": {"masked_mean": "tensor mask dim"},
}

# module.Class -> attributes that we read of its objects: fields, or set by its methods.
ATTRIBUTES: dict[str, str] = {
    "openrlhf.trainer.ppo_trainer.PPOTrainer": "_latest_eval_metric_value actor_model_group args best_eval_metric_key "
    "best_eval_metric_value critic_model_group eval_dataloader experience_maker generate_kwargs kl_ctl "
    "prompts_dataloader samples_generator tensorboard_logger vllm_engines wandb_logger",
    "openrlhf.trainer.ppo_trainer_async.TrainingActor": "_latest_client_states _latest_eval_metric_value "
    "actor_model_group args best_eval_metric_key best_eval_metric_value critic_model_group experience_maker kl_ctl "
    "rollout_queue rollout_slots tensorboard_logger wandb_logger",
    "openrlhf.trainer.ppo_trainer_async.GenerateSamplesActor": "args eval_dataloader prompts_dataloader "
    "rollout_queue samples_generator",
    "openrlhf.trainer.ppo_utils.experience.Experience": "action_log_probs action_mask advantages "
    "base_action_log_probs images index info kl labels prompts response_length returns rewards scores truncated "
    "values",
    "openrlhf.trainer.ppo_utils.experience_maker.RemoteExperienceMaker": "args initial_model_group kl_ctl "
    "reward_model_group",
    "openrlhf.trainer.ppo_utils.samples_generator.SamplesGenerator": "_dataloader_iter _sample_buffer args "
    "prompts_dataloader vllm_engines",
    "openrlhf.utils.deepspeed.deepspeed.DeepspeedStrategy": "args stage use_ds_universal_ckpt",
    "openrlhf.trainer.ray.ppo_actor.ActorPPOTrainer": "actor_loss_fn args replay_buffer strategy use_cuda_ipc",
    "openrlhf.trainer.ray.ppo_actor.PolicyModelActor": "_rank actor strategy trainer",
    "openrlhf.trainer.ray.vllm_engine.RolloutRayActor": "executor llm",
    "openrlhf.utils.agent.MultiTurnAgentExecutor": "agent_instance_cls",
    "openrlhf.utils.agent.SingleTurnAgentExecutor": "_reward_endpoint_cycle reward_func",
    "openrlhf.trainer.ray.vllm_worker_wrap.WorkerWrap": "_model_update_group",
    "openrlhf.models.PolicyLoss": "clip_eps_high clip_eps_low",
}

# OpenRLHF's flags whose values we read or set.
FLAGS = """
actor.adam.betas actor.adam.eps actor.adam.lr actor.adam.weight_decay actor.aux_loss_coef actor.dual_clip
actor.entropy_coef actor.eps_clip actor.eps_clip_low_high actor.loss_agg_mode actor.lr_scheduler actor.lr_warmup_ratio
actor.max_norm actor.min_lr_ratio actor.model_name_or_path actor.muon.lr actor.muon.momentum actor.num_gpus_per_node
actor.num_nodes actor.optim actor.policy_loss_type
algo.advantage.estimator algo.advantage.gamma algo.advantage.is_correction_gating algo.advantage.is_correction_level
algo.advantage.is_correction_mode algo.advantage.is_correction_threshold algo.advantage.lambd
algo.dynamic_filtering_enable algo.dynamic_filtering_range algo.kl.horizon algo.kl.init_coef algo.kl.target
algo.kl.use_loss
ckpt.best_metric_key ckpt.disable_ds ckpt.load_enable ckpt.max_mem ckpt.max_num ckpt.output_dir ckpt.path ckpt.save_hf
ckpt.save_steps
critic.adam.betas critic.adam.eps critic.adam.lr critic.adam.weight_decay critic.freezing_steps critic.lr_scheduler
critic.lr_warmup_ratio critic.max_norm critic.min_lr_ratio critic.model_name_or_path critic.muon.lr
critic.muon.momentum critic.num_gpus_per_node critic.num_nodes critic.save_value_network critic.value_clip
data.apply_chat_template data.dataloader_num_workers data.disable_fast_tokenizer data.image_key data.input_key
data.input_template data.label_key data.max_images_per_prompt data.max_len data.max_samples data.prompt_dataset
data.prompt_probs data.prompt_split
ds.adam_offload ds.attn_implementation ds.enable_sleep ds.grad_accum_dtype ds.lora.rank ds.packing_samples
ds.param_dtype ds.ring_attn_size ds.tensor_parallel_size ds.use_universal_ckpt ds.zero_stage ds.zpg
eval.dataset eval.n_samples_per_prompt eval.split eval.steps eval.temperature
logger.logging_steps logger.tensorboard_dir logger.wandb.key logger.wandb.run_name
ref.num_gpus_per_node ref.num_nodes
reward.clip_range reward.model_name_or_path reward.num_gpus_per_node reward.num_nodes reward.overlong_buffer_len
reward.overlong_penalty_factor reward.remote_url reward.stop_properly_penalty_coef
rollout.batch_size rollout.max_new_tokens rollout.max_tokens_per_gpu rollout.micro_batch_size
rollout.n_samples_per_prompt rollout.temperature rollout.top_p rollout.vllm_generate_batch_size
train.agent_func_path train.async_enable train.async_queue_size train.batch_size train.colocate_actor_ref
train.colocate_all train.colocate_critic_reward train.dynamic_batch_enable train.ema_beta train.enable_ema
train.full_determinism_enable train.max_epochs train.max_tokens_per_gpu train.micro_batch_size train.num_episodes
train.seed
vllm.enable_sleep vllm.enforce_eager vllm.gpu_memory_utilization vllm.num_engines vllm.sync_backend vllm.sync_with_ray
vllm.tensor_parallel_size
"""

# The part that `evaluate` relies on.
EVALUATION = (
    "openrlhf.trainer.ray.vllm_engine",
    "openrlhf.trainer.ray.vllm_worker_wrap",
    "openrlhf.utils.agent",
    "openrlhf.utils.utils",
    "openrlhf.utils.vlm_utils",
    "openrlhf.datasets.prompts_dataset",
)


class ContractError(RuntimeError):
    """OpenRLHF lacks something that this version relies on. The message names it."""


def plain_class(cls):
    """Return the class under `@ray.remote`, which can be inherited from; any other class as it is."""
    metadata = getattr(cls, "__ray_metadata__", None)
    return metadata.modified_class if metadata is not None else cls


def installed_version() -> str:
    """Return the version of the installed OpenRLHF. Raises `ContractError` if there is none."""
    try:
        return version("openrlhf")
    except PackageNotFoundError:
        raise ContractError(
            f"OpenRLHF is not installed; install openrlhf=={OPENRLHF_VERSION} (README, 'Installation')"
        ) from None


def check_plugin() -> None:
    """Raise `ContractError` if vLLM's processes would not load our plugin, without which they hang or outlive a run.

    vLLM finds it by an entry point, which only an installed package has, and loads what `VLLM_PLUGINS` names if set.
    """
    if not any(entry.name == PLUGIN for entry in entry_points(group="vllm.general_plugins")):
        raise ContractError(
            f"riskpo-openrlhf is on Python's path but not installed, so vLLM does not find its plugin {PLUGIN}: "
            "pip install --no-deps -e . in the checkout"
        )
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and PLUGIN not in allowed.split(","):
        raise ContractError(f"VLLM_PLUGINS={allowed} keeps vLLM from loading our plugin: add {PLUGIN}, or unset it")


def check_version() -> list[str]:
    """Return a note if another patch version of OpenRLHF is installed. Imports nothing heavy.

    Raises `ContractError` for another minor version, or if vLLM would not load our plugin.
    """
    check_plugin()
    found = installed_version()
    if found == OPENRLHF_VERSION:
        return []
    if found.split(".")[:2] != OPENRLHF_VERSION.split(".")[:2]:
        raise ContractError(
            f"OpenRLHF {found} is installed, and this version of riskpo-openrlhf is written for {OPENRLHF_VERSION}: "
            f"pip install openrlhf=={OPENRLHF_VERSION}"
        )
    return [f"OpenRLHF {found} is installed; this version of riskpo-openrlhf was tested with {OPENRLHF_VERSION}"]


def check(modules: Iterable[str] | None = None) -> list[str]:
    """Check version, names, signatures, attributes, flags and the number of values that the loss returns.

    Args:
        modules: check these modules of `SEAMS` only, e.g. `EVALUATION`. None: all of them, and the flags.

    Returns notes: what differs without harm. Raises `ContractError` that names every seam that is missing or changed.
    """
    notes, missing = check_version(), []
    names = SEAMS if modules is None else modules
    for module_name in names:
        module = _import(module_name)
        if module is None:
            missing.append(f"{module_name} is gone")
            continue
        for name, parameters in SEAMS[module_name].items():
            difference, more = _check_seam(module, name, parameters)
            notes += more
            missing += [difference] if difference else []
    for owner, attributes in ATTRIBUTES.items():
        module_name, _, name = owner.rpartition(".")
        if module_name in names and (cls := getattr(_import(module_name), name, None)) is not None:
            known = _attributes_of(plain_class(cls))
            missing += [f"{owner}.{attribute} is gone" for attribute in attributes.split() if attribute not in known]
    if modules is None:
        missing += _check_flags() + ([] if missing else _check_loss_arity())
    if missing:
        raise ContractError(
            f"OpenRLHF {installed_version()} differs from {OPENRLHF_VERSION} where this plugin relies on it:\n  "
            + "\n  ".join(missing)
            + f"\nInstall openrlhf=={OPENRLHF_VERSION}."
        )
    return notes


def _import(name: str):
    """Import a module; None if OpenRLHF has none of that name. Raises `ContractError` if a dependency is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("openrlhf"):
            return None
        raise ContractError(
            f"{name} can't be imported, the package {error.name} is missing: install as the README says, "
            "On GPUs; without a GPU, add --riskpo.runtime cpu"
        ) from error


def _check_seam(module, name: str, parameters: str | None) -> tuple[str | None, list[str]]:
    """Compare one name with what we rely on. Returns the first difference that breaks us, if any, and notes."""
    where, found = f"{module.__name__}.{name}", module
    for part in name.split("."):
        found = plain_class(getattr(found, part, None))
    if found is None:
        return f"{where} is gone", []
    if parameters is None:
        return None, []
    signature = {n: p for n, p in inspect.signature(found).parameters.items() if n != "_ray_trace_ctx"}  # Ray adds it
    notes, expected, takes = [], parameters.split(), ", ".join(signature)
    if lost := [parameter for parameter in expected if parameter not in signature]:
        return f"{where} takes no {', '.join(lost)}; it takes {takes}", []
    for position, (parameter, kind) in enumerate(signature.items()):
        if parameter in expected:
            if kind.kind is kind.POSITIONAL_OR_KEYWORD and position != expected.index(parameter):
                return f"{where} takes {parameter} at another place: {takes}", notes
        elif kind.default is kind.empty and kind.kind not in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD):
            return f"{where} needs another parameter, {parameter}", notes
        else:
            notes.append(f"{where} has another optional parameter, {parameter}")
    return None, notes


@functools.cache
def _attributes_of(cls: type) -> set[str]:
    """Return what objects of a class have: class attributes, fields, and what its methods set on `self`."""
    found = set(dir(cls)) | set(getattr(cls, "__dataclass_fields__", ()))
    own = (base for base in cls.__mro__ if base.__module__.startswith("openrlhf"))
    for base in (base for base in own if "<locals>" not in base.__qualname__):  # Ray's wrapper has no source
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            match node:
                case ast.Attribute(value=ast.Name(id="self"), ctx=ast.Store()):
                    found.add(node.attr)
    return found


def _check_flags() -> list[str]:
    from riskpo_openrlhf.integration.parser import openrlhf_parser

    known = {action.dest for action in openrlhf_parser()._actions}
    return [f"{OPENRLHF_MODULE} has no flag --{flag}" for flag in FLAGS.split() if flag not in known]


def _check_loss_arity() -> list[str]:
    import torch
    from openrlhf.models.loss import PolicyLoss

    one = torch.ones(1, 1)
    values = PolicyLoss()(one, one, one, action_mask=one)
    return [] if len(values) == 5 else [f"PolicyLoss.forward returns {len(values)} values, expected 5"]
