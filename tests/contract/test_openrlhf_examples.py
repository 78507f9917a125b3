"""The flags of OpenRLHF's own example scripts (`examples/scripts`), with RiskPO's two flags, through the dry run.

A table of what differs between the scripts, as of OpenRLHF 0.11; models, data and reward files are local. Flags that
0.11.2 has renamed (`is_correction_enable`, `is_correction_type`) have their present names.
"""

import json
import shutil

import pytest

from riskpo_openrlhf.lab.tiny_model import MODELS, shipped

TWO_FLAGS = ("--algo.advantage.estimator", "riskpo")
# What nearly every script has.
COMMON = """
--actor.num_nodes 1 --ref.num_nodes 1 --ref.num_gpus_per_node 8 --actor.num_gpus_per_node 8 --train.max_epochs 1
--ds.zero_stage 3 --ds.param_dtype bf16 --actor.adam.lr 5e-7 --actor.gradient_checkpointing_enable
--vllm.sync_backend nccl --data.apply_chat_template --ckpt.save_hf --ckpt.save_steps 20
"""
HYBRID = """
--train.colocate_all --vllm.num_engines 4 --vllm.tensor_parallel_size 2 --vllm.gpu_memory_utilization 0.6
--vllm.enforce_eager --vllm.enable_sleep --ds.enable_sleep --ds.packing_samples
"""
AGENT = """
--train.agent_func_path {agent} --ckpt.load_enable --data.input_key prompt --data.label_key label
--data.max_len 74240 --rollout.max_new_tokens 64000 --ds.packing_samples --rollout.batch_size 128
--rollout.n_samples_per_prompt 8 --train.batch_size 1024 --algo.dynamic_filtering_enable
--algo.dynamic_filtering_range 0.0 1.0 --train.dynamic_batch_enable --train.max_tokens_per_gpu 16192
--rollout.max_tokens_per_gpu 32768 --train.micro_batch_size 1 --rollout.micro_batch_size 8 --data.max_samples 128000
--ref.num_gpus_per_node 4 --actor.num_gpus_per_node 4 --vllm.num_engines 2 --vllm.tensor_parallel_size 2
--train.colocate_all --ds.enable_sleep --vllm.enforce_eager --ds.ring_attn_size 2 --ds.ring_attn_head_stride 2
--algo.kl.init_coef 1e-5 --algo.kl.use_loss --algo.kl.estimator k2 --actor.entropy_coef 0.0
--algo.advantage.is_correction_level token --eval.steps -1 --logger.tensorboard_dir {out}/runs
"""
SCRIPTS = {
    "synchronous (train_ppo_with_reward_fn)": """
        --critic.num_nodes 1 --critic.num_gpus_per_node 2 --ref.num_gpus_per_node 2 --actor.num_gpus_per_node 2
        --vllm.num_engines 2 --vllm.tensor_parallel_size 2 --train.colocate_actor_ref --reward.remote_url {reward}
        --train.micro_batch_size 8 --train.batch_size 128 --rollout.micro_batch_size 16 --rollout.batch_size 1024
        --data.max_samples 100000 --data.max_len 2048 --critic.adam.lr 9e-6 --algo.kl.init_coef 0.01
        --data.input_key context_messages --reward.normalize_enable --ds.packing_samples --ds.adam_offload
        --ds.attn_implementation flash_attention_2
    """,
    "on Slurm, with a reward model (train_ppo_ray_slurm)": """
        --reward.num_nodes 1 --reward.num_gpus_per_node 4 --critic.num_nodes 1 --critic.num_gpus_per_node 4
        --ref.num_gpus_per_node 4 --actor.num_gpus_per_node 4 --vllm.num_engines 4 --vllm.tensor_parallel_size 2
        --train.colocate_critic_reward --train.colocate_actor_ref --reward.model_name_or_path {model}
        --train.micro_batch_size 8 --train.batch_size 128 --rollout.micro_batch_size 16 --rollout.batch_size 1024
        --data.max_samples 100000 --data.max_len 2048 --critic.adam.lr 9e-6 --algo.kl.init_coef 0.01
        --data.input_key context_messages --reward.normalize_enable --ds.adam_offload --ds.packing_samples
    """,
    "hybrid (train_ppo_ray_hybrid_engine)": HYBRID
    + """
        --reward.num_nodes 1 --reward.num_gpus_per_node 8 --critic.num_nodes 1 --critic.num_gpus_per_node 8
        --reward.model_name_or_path {model} --train.batch_size 128 --rollout.batch_size 1024
        --rollout.n_samples_per_prompt 1 --data.max_len 2048 --data.max_samples 100000 --critic.adam.lr 9e-6
        --algo.kl.init_coef 0.01 --data.input_key context_messages --reward.normalize_enable
        --train.dynamic_batch_enable --train.max_tokens_per_gpu 16384 --algo.advantage.is_correction_level token
    """,
    "DAPO (train_dapo_ray_hybrid_engine)": HYBRID
    + """
        --algo.kl.init_coef 1e-3 --algo.advantage.gamma 1.0 --algo.kl.use_loss --algo.kl.estimator k3
        --algo.dynamic_filtering_enable --algo.dynamic_filtering_range 0 1 --actor.eps_clip_low_high 0.2 0.27
        --reward.remote_url {reward} --train.micro_batch_size 8 --train.batch_size 128 --rollout.micro_batch_size 16
        --rollout.batch_size 128 --rollout.n_samples_per_prompt 8 --data.max_len 2048 --data.max_samples 20000
        --data.input_key context_messages --algo.advantage.is_correction_level token
    """,
    "agent (train_reinforce_baseline_hybrid_engine)": AGENT + "--vllm.gpu_memory_utilization 0.7",
    "asynchronous agent (train_reinforce_baseline_ray_agent_async)": AGENT
    + "--train.async_enable --train.partial_rollout_enable --vllm.gpu_memory_utilization 0.95",
    "images (train_vlm_math_hybrid_engine)": """
        --ref.num_gpus_per_node 4 --actor.num_gpus_per_node 4 --vllm.num_engines 4 --vllm.tensor_parallel_size 1
        --train.colocate_all --vllm.gpu_memory_utilization 0.7 --algo.kl.init_coef 0 --algo.kl.use_loss
        --algo.kl.estimator k2 --reward.remote_url {reward} --eval.steps -1 --train.micro_batch_size 1
        --rollout.micro_batch_size 1 --train.batch_size 1024 --rollout.batch_size 128 --rollout.n_samples_per_prompt 8
        --train.num_episodes 100 --data.max_len 4096 --rollout.max_new_tokens 2048 --data.input_key prompt
        --data.label_key label --data.image_key images --data.max_images_per_prompt 1 --actor.freeze_visual_encoder
        --ds.attn_implementation eager --vllm.enforce_eager --vllm.enable_sleep --ds.enable_sleep
    """,
}
PRORL = """
    --vllm.num_engines 8 --vllm.tensor_parallel_size 1 --train.colocate_all --algo.kl.init_coef 1e-4 --algo.kl.use_loss
    --algo.kl.estimator k2 --actor.eps_clip_low_high 0.2 0.27 --reward.remote_url {reward} --train.batch_size 1024
    --rollout.batch_size 512 --rollout.n_samples_per_prompt 16 --train.dynamic_batch_enable --data.max_len 9216
    --rollout.max_new_tokens 8192 --data.input_key prompt --data.label_key label --ds.packing_samples
    --train.max_tokens_per_gpu 32768 --reward.stop_properly_penalty_coef 0.0
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict:
    """Local files in the place of the scripts' models, data and reward files."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(shipped(MODELS["mixed"]), folder / "model")
    config = folder / "model/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 131_072}))
    settings = folder / "model/tokenizer_config.json"
    template = "{% for turn in messages %}{{ turn.content }}{% endfor %}"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": template}))
    turns = [{"role": "user", "content": "1+1="}]
    row = {"prompt": turns, "context_messages": turns, "label": "2", "datasource": "sums"}
    (folder / "rows.jsonl").write_text((json.dumps(row) + "\n") * 1024)
    image = folder / "image.png"
    shown = {**row, "images": [str(image)], "prompt": [{"role": "user", "content": "<image>Find x."}]}
    from PIL import Image

    Image.new("RGB", (32, 32)).save(image)
    (folder / "shown.jsonl").write_text((json.dumps(shown) + "\n") * 1024)
    (folder / "reward.py").write_text(
        "import torch\n\ndef reward_func(queries, prompts, labels):\n    return torch.ones(len(queries))\n"
    )
    (folder / "agent.py").write_text(
        "from openrlhf.utils.agent import AgentExecutorBase\n\n"
        "class AgentExecutor(AgentExecutorBase):\n    async def execute(self, *args, **kwargs): ...\n"
    )
    return {"model": folder / "model", "reward": folder / "reward.py", "agent": folder / "agent.py",
            "out": folder / "out", "rows": folder / "rows.jsonl", "shown": folder / "shown.jsonl"}  # fmt: skip


def command(script: str, files: dict) -> list[str]:
    data = files["shown" if "--data.image_key" in script else "rows"]
    own = [
        "--actor.model_name_or_path", files["model"], "--data.prompt_dataset", data, "--ckpt.path",
        files["out"] / "ckpt", "--ckpt.output_dir", files["out"] / "model",
    ]  # fmt: skip
    words = (COMMON + script).format(**files).split()
    return ["python3", "-m", "riskpo_openrlhf.cli.train", *words, *map(str, own), *TWO_FLAGS]


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_script_of_openrlhf_passes_the_dry_run_with_riskpos_flags(name, files, dry_run):
    code, output = dry_run(command(SCRIPTS[name], files))
    assert code == 0 and "[riskpo] dry run: ok" in output, output[-3000:]


def test_the_script_with_a_penalty_for_truncation_is_refused_with_the_flag_that_lets_it_act(files, dry_run):
    code, output = dry_run(command(PRORL, files))
    assert code == 2 and "add --algo.riskpo.shaped_rewards true" in output
    code, output = dry_run([*command(PRORL, files), "--algo.riskpo.shaped_rewards", "true"])
    assert code == 0, output[-3000:]
