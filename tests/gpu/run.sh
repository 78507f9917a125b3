#!/usr/bin/env bash
# Check this package on one GPU: bash tests/gpu/run.sh [--parts a b c] [--out FILE.json]
#
#   a  losses and estimator on the card against float64 on the CPU       seconds; needs torch alone
#   b  OpenRLHF's policy worker under DeepSpeed: memory, sleep, sums      minutes; needs DeepSpeed and flash-attn
#   c  whole jobs: train without CUDA graphs, resume with them, evaluate   five minutes; needs everything
#
# Install as in the README first. Without a card it says so and ends with 0; --device cpu runs all that needs no card,
# with a small model. The exit code is 1 if a check failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec python3 tests/gpu/check.py "$@"
