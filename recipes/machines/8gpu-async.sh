# One node of 8 GPUs: 4 engines generate while 4 ranks train on the previous rollout. Rollouts then come from an older
# policy, so OpenRLHF's correction leaves out tokens whose probability has moved too far. (With gspo it puts the
# rollout's log-probabilities into the ratio instead, and leaves nothing out.)
machine_flags=(
    --actor.num_nodes 1 --actor.num_gpus_per_node 4 --vllm.num_engines 4 --vllm.tensor_parallel_size 1
    --train.async_enable --vllm.gpu_memory_utilization 0.85
    --algo.advantage.is_correction_level token
)
