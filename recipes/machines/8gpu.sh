# One node of 8 GPUs, shared by 8 engines and 8 ranks in turn.
machine_flags=(
    --actor.num_nodes 1 --actor.num_gpus_per_node 8 --vllm.num_engines 8 --vllm.tensor_parallel_size 1
    --train.colocate_all --vllm.enable_sleep --ds.enable_sleep --vllm.gpu_memory_utilization 0.6
)
