#!/usr/bin/env bash
# Easier mathematics (Tables 2 to 5 of the paper): Qwen2.5-Math-1.5B-Instruct on MATH and GSM8K.
#
#   bash recipes/math_easy.sh [--method paper] [--machines 8gpu] [--dry-run | --smoke] [options] [-- FLAGS]
#
# The model has 4096 positions: 1024 for the prompt and 3072 for the response.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"

task=math_easy
model=Qwen/Qwen2.5-Math-1.5B-Instruct
train_sets=(math_train gsm8k_train)
test_sets=(math_test gsm8k_test)
# 15 thousand problems: 29 whole rollouts an episode. Two samples a problem, since the test sets are large.
task_flags=("${packed_flags[@]}" --train.num_episodes 10 --eval.n_samples_per_prompt 2)

launch "$@"
