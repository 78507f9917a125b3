#!/usr/bin/env bash
# Run all checks of the project: style, then the tests. `bash tests/run.sh [--fast] [pytest's arguments]`
# --fast leaves out the tests that start real engines. The exit status is that of the first check that failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/lib/environment.sh
ensure_environment dev

arguments=()
for argument in "$@"; do
    if [[ $argument == --fast ]]; then
        arguments+=(-m "not system")
    else
        arguments+=("$argument")
    fi
done

# Several processes share the machine in the tests of real engines: half of the cores each.
cores=$(env -u OMP_NUM_THREADS nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > 2 ? cores / 2 : 1))}
# The tests need no network.
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} RAY_USAGE_STATS_ENABLED=0 VLLM_NO_USAGE_STATS=1

# Every check runs, so that one report shows all that is wrong.
first=0 failed=()
check() {
    local name=$1 status=0
    shift
    "$@" || status=$?
    if ((status)); then
        failed+=("$name")
        ((first)) || first=$status
    fi
}
check "ruff check" python3 -m ruff check .
check "ruff format --check" python3 -m ruff format --check .
# Three processes share the files, in the order of tests/conftest.py; `-n 0` takes one, for --pdb.
check "pytest" python3 -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 15 "${arguments[@]}"
for name in "${failed[@]}"; do
    echo "tests/run.sh: $name failed" >&2
done
exit "$first"
