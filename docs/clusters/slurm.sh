#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --exclusive --signal=B:TERM@300
set -euo pipefail
source "$HOME/riskpo-openrlhf/.venv/bin/activate"
port=$((20000 + SLURM_JOB_ID % 10000))          # two jobs of one head node must not share it
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_ADDRESS=$head:$port RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID    # /tmp/ray belongs to whoever came first
srun --kill-on-bad-exit=1 bash -c '
    mkdir -p "$RAY_TMPDIR"
    if ((SLURM_PROCID == 0)); then
        exec ray start --block --head --port "${RAY_ADDRESS##*:}" --include-dashboard false --temp-dir "$RAY_TMPDIR"
    fi
    until ray health-check --address "$RAY_ADDRESS" 2>/dev/null; do sleep 2; done
    exec ray start --block --address "$RAY_ADDRESS"' &
until ray health-check --address "$RAY_ADDRESS" 2>/dev/null; do sleep 2; done
NODES=$SLURM_NNODES bash recipes/math_hard.sh --machines nodes --out "$HOME/runs/hard" "$@" -- \
    --riskpo.wait_for_gpus 300 &
job=$!
trap 'kill -TERM $job' TERM
wait $job
