#!/usr/bin/env bash
# Multi-modal reasoning (Table 2 of the paper): Qwen2.5-VL-3B-Instruct on Geometry3K.
#
#   bash recipes/geometry.sh [--method paper] [--machines 8gpu] [--dry-run | --smoke] [options] [-- FLAGS]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"

task=geometry
model=Qwen/Qwen2.5-VL-3B-Instruct
train_sets=(geometry3k_train)
test_sets=(geometry3k_test)
# 2101 problems: 4 whole rollouts an episode. One image a prompt (OpenRLHF's default, 0, would drop it), and no packing.
# A picture takes about width x height / 784 tokens. A prompt that does not fit ends the job: there is room for 2048.
task_flags=(
    --data.max_len 5120
    --data.image_key images --data.max_images_per_prompt 1
    --train.micro_batch_size 2 --rollout.micro_batch_size 4
    --train.num_episodes 30 --eval.n_samples_per_prompt 4
)

launch "$@"
