# Library to source, not to run: what the recipes of the paper's tasks share. A recipe sets
#   task         its name: the folder of its runs and of its smoke material
#   model        hub name of the model that the paper trains
#   train_sets   names of prepared data sets (python3 -m riskpo_openrlhf.cli.prepare_data --list)
#   test_sets    the same, for the evaluation during training
#   task_flags   training flags of this task alone
# and calls `launch "$@"`. The last of several equal flags wins, in this order:
#   shared_flags, task_flags, methods/METHOD.sh, machines/MACHINES.sh, what follows -- on the command line
# A method sets method_flags, and if its authors' runs are to be repeated also method_settings and method_model.

launch_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# Settings of the paper (B.1): 512 prompts x 10 responses a rollout, mini-batches of 128 prompts (1280 responses),
# temperature 0.8, top_p 1, responses of at most 3072 tokens, no KL, no entropy bonus (0 logs the entropy).
# The paper does not give learning rate, prompt length (here 1024 tokens), evaluation and checkpoints: they are ours.
shared_flags=(
    --rollout.batch_size 512 --rollout.n_samples_per_prompt 10 --train.batch_size 1280
    --rollout.temperature 0.8 --rollout.top_p 1.0 --rollout.max_new_tokens 3072 --data.max_len 4096
    --algo.kl.init_coef 0 --actor.entropy_coef 0
    --actor.adam.lr 1e-6 --actor.lr_scheduler constant_with_warmup
    --ds.zero_stage 3 --ds.param_dtype bf16 --actor.gradient_checkpointing_enable
    --vllm.enable_prefix_caching --vllm.sync_backend nccl
    --data.input_key prompt --data.label_key label --data.apply_chat_template
    --eval.steps 20 --eval.temperature 0.6 --eval.n_samples_per_prompt 16
    --ckpt.save_steps 20 --ckpt.max_num 3 --riskpo.max_restarts 3
)

# For text only: samples are packed into micro-batches of at most so many tokens. (OpenRLHF can't pack images.)
packed_flags=(
    --ds.packing_samples --train.dynamic_batch_enable
    --train.max_tokens_per_gpu 16384 --rollout.max_tokens_per_gpu 32768
)

# What --smoke changes: the same recipe with a tiny model and embedded data on a CPU, one rank and one engine, 2 steps.
smoke_flags=(
    --riskpo.runtime cpu --actor.num_nodes 1 --actor.num_gpus_per_node 1
    --vllm.num_engines 1 --vllm.tensor_parallel_size 1
    --rollout.batch_size 10 --rollout.n_samples_per_prompt 4 --train.batch_size 20
    --rollout.micro_batch_size 4 --train.micro_batch_size 4 --rollout.max_new_tokens 24 --data.max_len 400
    --actor.lr_warmup_ratio 0 --train.num_episodes 1 --data.max_samples 20
    --eval.steps 2 --eval.n_samples_per_prompt 2 --ckpt.save_steps -1 --riskpo.max_restarts 0
)

launch() {
    local method=paper machines=8gpu method_model="" method_settings=() given_model="" data="" out="" submit="" seed=42
    local mode=train resume="" finish=()
    while (($#)); do
        case ${1//_/-} in # --dry_run too: training flags have underscores
            --method | --machines | --model | --data | --out | --seed | --submit | --without)
                [[ -n ${2:-} ]] || _launch_stop "$1 takes a value; see --help"
                ;;&
            --method) method=$2 && shift 2 ;;
            --machines) machines=$2 && shift 2 ;;
            --model) model=$2 given_model=yes && shift 2 ;;
            --data) data=$2 && shift 2 ;;
            --out) out=$2 && shift 2 ;;
            --seed) seed=$2 && shift 2 ;;
            --submit) submit=$2 && shift 2 ;;
            --without) finish+=("--without=$2") && shift 2 ;;
            --resume) resume=yes && shift ;;
            --dry-run) mode=dry-run && shift ;;
            --smoke) mode=smoke && shift ;;
            --print) mode=print && shift ;;
            --) shift && break ;;
            -h | --help) _launch_usage && exit ;;
            *) _launch_stop "$1 is not known; see --help" ;;
        esac
    done
    _launch_source method "$method"
    _launch_source machines "$machines"
    [[ -n $given_model || -z $method_model ]] || model=$method_model
    [[ $seed =~ ^[0-9]+$ ]] || _launch_stop "--seed $seed is not a whole number"

    data=$(realpath -m "${data:-${RISKPO_DATA:-$launch_root/data}}")
    if [[ $data$launch_root == *[,@]* ]]; then
        _launch_stop "$data, $launch_root: OpenRLHF cuts paths at ',' and '@'; take a folder without them"
    fi
    local kind=runs name command words
    if [[ $mode == smoke ]]; then
        kind=runs/smoke
        source "$launch_root/recipes/lib/environment.sh"
        ensure_environment cpu
        data=$(realpath -m "${RISKPO_CACHE:-$launch_root/.cache}/smoke-${task%_*}")
        model=$data/model
        finish+=(--smoke)
        for name in --vllm.enable_sleep --ds.enable_sleep --ds.packing_samples --train.dynamic_batch_enable \
            --actor.gradient_checkpointing_enable; do
            finish+=("--without=$name")
        done
        [[ -d $data ]] || DS_ACCELERATOR=cpu python3 -m riskpo_openrlhf.lab.smoke --task "${task%_*}" --out "$data"
    fi
    out=$(realpath -m "${out:-$launch_root/$kind/$task-$method-seed$seed}")

    command=(
        python3 -m riskpo_openrlhf.cli.train
        --actor.model_name_or_path "$model"
        --data.prompt_dataset "$(_launch_files "$data" "${train_sets[@]}")"
        --eval.dataset "$(_launch_files "$data" "${test_sets[@]}")"
        --reward.remote_url "${RISKPO_REWARD:-riskpo}"
        --ckpt.path "$out/checkpoints" --ckpt.output_dir "$out/model"
        --logger.tensorboard_dir "$out/tensorboard" --logger.wandb.run_name "$task-$method-seed$seed"
        --train.seed "$seed"
        "${shared_flags[@]}" "${task_flags[@]}" "${method_flags[@]}" "${method_settings[@]}"
        "${machine_flags[@]}"
    )
    [[ -z $resume ]] || command+=(--ckpt.load_enable)
    # By itself an engine would take all cores of its node for programs, as would its neighbours.
    if [[ $task == code && $mode != smoke && " ${machine_flags[*]} " =~ " --vllm.num_engines "([0-9]+) ]]; then
        local engines=${BASH_REMATCH[1]} cards=${GPUS_PER_NODE:-8}
        export RISKPO_CODE_ENGINES=${RISKPO_CODE_ENGINES:-$((engines < cards ? engines : cards))}
    fi
    if [[ $mode == smoke ]]; then
        command+=("${smoke_flags[@]}")
        # The penalty's zone must not be longer than a response, and a filter needs more prompts than it keeps.
        [[ " ${method_flags[*]} " != *" --reward.overlong_buffer_len "* ]] || command+=(--reward.overlong_buffer_len 8)
        [[ " ${method_flags[*]} " != *" --algo.dynamic_filtering_enable "* ]] || command+=(--data.max_samples 40)
    fi
    [[ $mode != train ]] || finish+=(--need_data)
    words=$(mktemp)
    python3 "$launch_root/recipes/lib/command.py" finish "${finish[@]}" -- "${command[@]}" "$@" >"$words" || exit
    mapfile -d '' -t command <"$words"
    rm -f "$words"
    local check=(python3 "$launch_root/recipes/lib/command.py" check --machines "$(_launch_names machines)")
    local job id=""
    [[ -z $submit ]] || check+=(--submit "$submit")
    check+=(-- "${command[@]}")
    job=("${command[@]}")
    if [[ -n $submit && $mode != smoke ]]; then
        id=$task-$method-seed$seed-$(date +%Y%m%d-%H%M%S)
        local settings
        settings=$(python3 "$launch_root/recipes/lib/command.py" environment --)
        job=(ray job submit --address "$submit" --submission-id "$id" --runtime-env-json "$settings" -- "${command[@]}")
    fi

    case $mode in
        print) printf '%s\n' "${job[@]}" && exit ;;
        dry-run)
            _launch_python
            if [[ -n $submit ]]; then
                printf '%q ' "${job[@]}" && echo
                "${check[@]}"
            fi
            local status=0
            "${command[@]}" --riskpo.dry_run || status=$?
            # If data is missing, the command that makes it. (With the flag, notes on rows do not come twice.)
            ((status == 0)) || python3 "$launch_root/recipes/lib/command.py" finish --need_data -- "${command[@]}" \
                --data.max_samples 1 >/dev/null || true
            exit "$status"
            ;;
        smoke) ;;
        train)
            if [[ -n $submit ]]; then
                command -v ray >/dev/null || _launch_stop "--submit needs the command ray: pip install 'ray[default]'"
                python3 -c 'import riskpo_openrlhf.cli.progress, tqdm' 2>/dev/null ||
                    _launch_stop "--submit needs this package here too, and $(command -v python3) lacks it:
  pip install -e '$launch_root[analysis]'"
            elif ! _launch_installed; then
                _launch_stop "OpenRLHF or this package is not installed for $(command -v python3):
  install as in README.md, On GPUs, or try the recipe without a GPU by --smoke"
            fi
            ;;
    esac
    if [[ -z $resume && -e $out/tensorboard ]]; then
        _launch_stop "$out holds a run already: resume it with --resume, or choose another folder with --out"
    fi
    if [[ -n $resume && ! -e $out/checkpoints ]]; then
        if [[ -n $submit ]]; then # the run's folder may be on the cluster alone
            echo "This machine sees no checkpoints in $out: if there are none, the job starts from the beginning"
        elif [[ -e $out/command.sh || -e $out/tensorboard ]]; then
            echo "There are no checkpoints in $out: the run starts from the beginning"
        else
            _launch_stop "--resume: there is no run in $out; start without it, or name the run's folder with --out"
        fi
    fi
    [[ $mode == smoke ]] || "${check[@]}"
    mkdir -p "$out"
    printf '%q ' "${job[@]}" >"$out/command.sh"
    if [[ -n $id ]]; then
        echo "Job $id: ray job logs --address $submit $id"
        trap '_launch_goes_on "$submit" "$id" 130' INT
        trap '_launch_goes_on "$submit" "$id" 143' TERM
    fi
    "${job[@]}" 2>&1 | python3 -m riskpo_openrlhf.cli.progress --log "$out/train.log"
    trap - INT TERM
    local report=(python3 -m riskpo_openrlhf.cli.report "$out" --out "$out/report.html")
    if [[ -e $out/tensorboard ]]; then
        "${report[@]}"
    else
        echo "The job wrote $out on a node that this machine shares no folder with. Make the report there:"
        printf '%q ' "${report[@]}" && echo
    fi
    echo "Model: $out/model   Checkpoints: $out/checkpoints   TensorBoard: $out/tensorboard   Log: $out/train.log"
}

_launch_stop() {
    echo "${launch_name:-recipe}: $*" >&2
    exit 2
}

# The submitter ends, by a signal; the job does not.
_launch_goes_on() {
    printf '%s\n' "" "Job $2 goes on. Follow it: ray job logs --address $1 --follow $2" \
        "Stop it:  ray job stop --address $1 $2" >&2
    exit "$3"
}

_launch_usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    cat <<END

  --method NAME     one of: $(_launch_names methods) (default: paper)
  --machines NAME   one of: $(_launch_names machines) (default: 8gpu)
  --model MODEL     hub name or folder (default: $model)
  --data DIR        folder of prepare_data (default: \$RISKPO_DATA, or data)
  --out DIR         folder of the run (default: runs/TASK-METHOD-seedN)
  --seed N          default: 42
  --resume          resume from the last checkpoint in the run's folder; if it has none, start from the beginning
  --submit ADDRESS  hand the job to a Ray cluster (http://HEAD:8265) instead of running it here
  --without FLAG    leave out a flag that the recipe sets, e.g. --ds.packing_samples
  --dry-run         check everything that needs no GPU, print the final settings, then end
  --smoke           run 2 steps on a CPU with a tiny model and embedded data
  --print           print the command, one word a line, then end
  -- FLAGS          any training flag; it wins over the recipe's

Environment:
  RISKPO_DATA             folder of prepare_data, if --data is not given
  RISKPO_REWARD           another reward file, or the address of a verifier service (default: riskpo, the built-in ones)
  NODES, GPUS_PER_NODE    size of the cluster for --machines nodes and nodes-async (default: 2, 8)
  RISKPO_CODE_ENGINES     engines that share a node's cores for programs, for code.sh (default: as --machines has)
  RISKPO_CODE_SANDBOXES   programs that an engine runs at once (default: the node's cores over these engines)
END
}

_launch_names() {
    basename -s .sh -a "$launch_root/recipes/$1"/*.sh | paste -sd ' '
}

# Reads methods/NAME.sh or machines/NAME.sh, which set method_flags or machine_flags.
_launch_source() {
    local folder=${1%s}s
    local file=$launch_root/recipes/$folder/$2.sh
    [[ -f $file ]] || _launch_stop "--$1 $2 is not known; one of: $(_launch_names "$folder")"
    source "$file"
}

_launch_files() {
    local folder=$1 files=() name
    shift
    for name in "$@"; do
        files+=("$folder/$name.jsonl")
    done
    (IFS=, && echo "${files[*]}")
}

_launch_installed() {
    python3 -c 'import importlib.metadata as m; m.version("openrlhf"), m.version("riskpo_openrlhf")' 2>/dev/null
}

# A dry run needs OpenRLHF: if this Python lacks it, make and use the CPU environment.
_launch_python() {
    if ! _launch_installed; then
        source "$launch_root/recipes/lib/environment.sh"
        ensure_environment cpu
    fi
}
