#!/usr/bin/env bash
# Hard mathematics (Table 1 of the paper): DeepSeek-R1-Distill-Qwen-1.5B on DAPO-Math-17k.
#
#   bash recipes/math_hard.sh [--method paper] [--machines 8gpu] [--dry-run | --smoke] [options] [-- FLAGS]
#
# Evaluates on AIME24, AIME25, AMC and MATH-500 during training. Evaluate Minerva and OlympiadBench afterwards.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/launch.sh"

task=math_hard
model=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
train_sets=(dapo_math_17k)
test_sets=(aime24 aime25 amc math500)
# 17.4 thousand problems: 33 whole rollouts an episode. The paper does not say how long it trains.
task_flags=("${packed_flags[@]}" --train.num_episodes 10)

launch "$@"
