#!/usr/bin/env bash
# Code (Table 2 of the paper): DeepSeek-R1-Distill-Qwen-1.5B on Archer's problems, tested on LiveCodeBench v5.
#
#   bash recipes/code.sh [--method paper] [--machines 8gpu] [--dry-run | --smoke] [options] [-- FLAGS]
#
# Answers run in a sandbox on the nodes of the vLLM engines (docs/sandbox.md), and the tests are files: the data folder
# must be at the same path on every node.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"

task=code
model=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
train_sets=(archer_code)
test_sets=(livecodebench_v5)
# 6.7 thousand problems: 13 whole rollouts an episode. Prompts are longer than those of mathematics.
task_flags=(
    "${packed_flags[@]}" --data.max_len 5120
    --train.num_episodes 10 --eval.n_samples_per_prompt 4
)

launch "$@"
