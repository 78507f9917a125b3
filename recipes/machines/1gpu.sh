# One GPU of 80 GB: the engine sleeps while the actor trains, and the other way round.
machine_flags=(
    --actor.num_nodes 1 --actor.num_gpus_per_node 1 --vllm.num_engines 1 --vllm.tensor_parallel_size 1
    --train.colocate_all --vllm.enable_sleep --ds.enable_sleep --vllm.gpu_memory_utilization 0.5
)
# Micro-batches add up to hundreds a step: gradients are summed in fp32 (3.3 GiB for 1.5 billion parameters). Geometry's
# model has no room for it, and none for two responses at once.
if [[ ${task:-} == geometry ]]; then
    machine_flags+=(--train.micro_batch_size 1)
else
    machine_flags+=(--ds.grad_accum_dtype fp32)
fi
