# NODES nodes (default 2, an even number) of GPUS_PER_NODE GPUs (default 8): half of the nodes generate while the
# other half trains. A Ray cluster as in nodes.sh; the correction as in 8gpu-async.sh.
source "$(dirname "${BASH_SOURCE[0]}")/nodes.sh"
((${NODES:-2} % 2 == 0)) || _launch_stop "NODES=${NODES:-2} GPUS_PER_NODE=${GPUS_PER_NODE:-8}: whole numbers above 0, NODES even"
machine_flags=(
    --actor.num_nodes $((${NODES:-2} / 2)) --actor.num_gpus_per_node "${GPUS_PER_NODE:-8}"
    --vllm.num_engines $((${NODES:-2} / 2 * ${GPUS_PER_NODE:-8})) --vllm.tensor_parallel_size 1
    --train.async_enable --vllm.gpu_memory_utilization 0.85
    --algo.advantage.is_correction_level token
)
