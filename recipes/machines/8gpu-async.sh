# One node of 8 GPUs: 4 engines generate while 4 ranks train on the rollout before. Rollouts are then of an older
# policy, so tokens whose probability has moved too far are left out (OpenRLHF's own
# correction; with gspo it takes the rollout's log-probabilities instead and leaves nothing out).
machine_flags=(
    --actor.num_nodes 1 --actor.num_gpus_per_node 4 --vllm.num_engines 4 --vllm.tensor_parallel_size 1
    --train.async_enable --vllm.gpu_memory_utilization 0.85
    --algo.advantage.is_correction_level token
)
