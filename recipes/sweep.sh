#!/usr/bin/env bash
# Run the paper's ablations one after the other: math_easy by the method `paper` with one setting changed.
#
#   bash recipes/sweep.sh levels|bundle_size|omega|profile [--seeds "42 43"] [options of math_easy.sh] [-- FLAGS]
#
#   levels        alpha and beta, Table 3          omega     the tail's weight, Table 5
#   bundle_size   B from 1 to 10, Table 4          profile   risk-averse or risk-seeking, Figure 6
#
# To resume, start the same command again: finished runs are skipped, and one that was cut off is resumed. --out is the
# folder of the runs (default: runs/sweep); take another one for other FLAGS. --method recommended varies that method.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
stop() { echo "sweep: $*" >&2 && exit 2; }

case ${1:-} in
    levels) values=("0.2 0.8" "0.1 0.8" "0.3 0.8" "0.4 0.8" "0.2 0.6" "0.2 0.7" "0.2 0.9") ;;
    bundle_size) values=(1 2 3 4 5 6 7 8 9 10) ;;
    omega) values=(0.0 0.1 0.5 0.6 1.0) ;;
    profile) values=(averse seeking) ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && stop "'${1:-}' is no ablation: levels, bundle_size, omega or profile" ;;
esac
ablation=$1 && shift

seeds=42 out="" method=paper options=() mode=train
while (($#)); do
    case $1 in
        --seeds | --out | --method) [[ -n ${2:-} ]] || stop "$1 takes a value" ;;&
        --seeds) seeds=$2 && shift 2 ;;
        --out) out=$2 && shift 2 ;;
        --method) method=$2 && shift 2 ;;
        --seed | --resume) stop "$1 is set by the sweep itself; see --help" ;;
        --) break ;;
        --dry-run | --print | --smoke) mode=${1#--} && options+=("$1") && shift ;;
        *) options+=("$1") && shift ;;
    esac
done
[[ ${1:-} != -- ]] || shift
if [[ -z $out ]]; then
    out=${here%/*}/runs/sweep
    [[ $mode != smoke ]] || out=${here%/*}/runs/smoke/sweep # a smoke run must not be taken for a finished one
fi

for seed in $seeds; do
    for value in "${values[@]}"; do
        case $ablation in
            levels) flags=(--algo.riskpo.alpha "${value% *}" --algo.riskpo.beta "${value#* }") ;;
            *) flags=("--algo.riskpo.$ablation" "$value") ;;
        esac
        run=$out/$method/$ablation/${value// /-}-seed$seed
        resume=()
        if [[ $mode == print || $mode == dry-run ]]; then
            : # runs are left alone
        elif [[ -e $run/finished ]]; then
            echo "sweep: $ablation $value, seed $seed: finished already"
            continue
        elif [[ -e $run/checkpoints ]]; then
            resume=(--resume)
        elif [[ -e $run ]]; then # cut off before its first checkpoint
            mv "$run" "$run-cut-off-$(date +%s)"
        fi
        echo "sweep: $ablation $value, seed $seed -> $run"
        bash "$here/math_easy.sh" --method "$method" --seed "$seed" --out "$run" "${resume[@]}" "${options[@]}" \
            -- --logger.wandb.run_name "$method-$ablation-${value// /-}-seed$seed" "${flags[@]}" "$@"
        if [[ $mode == train || $mode == smoke ]]; then
            touch "$run/finished"
        fi
    done
done
