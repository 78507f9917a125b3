# NODES nodes (default 2) of GPUS_PER_NODE GPUs (default 8), shared by engines and ranks in turn. Needs a running Ray
# cluster: `ray start --head` on one node, `ray start --address HEAD:6379` on the others, and RAY_ADDRESS=auto here.
if [[ ! ${NODES:-2} =~ ^[1-9][0-9]*$ || ! ${GPUS_PER_NODE:-8} =~ ^[1-9][0-9]*$ ]]; then
    _launch_stop "NODES=${NODES:-2} GPUS_PER_NODE=${GPUS_PER_NODE:-8}: whole numbers above 0"
fi
machine_flags=(
    --actor.num_nodes "${NODES:-2}" --actor.num_gpus_per_node "${GPUS_PER_NODE:-8}"
    --vllm.num_engines $((${NODES:-2} * ${GPUS_PER_NODE:-8})) --vllm.tensor_parallel_size 1
    --train.colocate_all --vllm.enable_sleep --ds.enable_sleep --vllm.gpu_memory_utilization 0.6
)
