# NODES nodes (default 2, an even number) of GPUS_PER_NODE GPUs (default 8): half of the nodes generate while the
# other half trains. A Ray cluster as in nodes.sh; the correction as in 8gpu-async.sh.
if [[ ! ${NODES:-2} =~ ^[1-9][0-9]*$ || ! ${GPUS_PER_NODE:-8} =~ ^[1-9][0-9]*$ ]] || ((${NODES:-2} % 2)); then
    _launch_stop "NODES=${NODES:-2} GPUS_PER_NODE=${GPUS_PER_NODE:-8}: whole numbers above 0, NODES even"
fi
machine_flags=(
    --actor.num_nodes $((${NODES:-2} / 2)) --actor.num_gpus_per_node "${GPUS_PER_NODE:-8}"
    --vllm.num_engines $((${NODES:-2} / 2 * ${GPUS_PER_NODE:-8})) --vllm.tensor_parallel_size 1
    --train.async_enable --vllm.gpu_memory_utilization 0.85
    --algo.advantage.is_correction_level token
)
