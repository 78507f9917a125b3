"""What ended a run, and what to do: one table from errors to causes and cures. Imports nothing heavy."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from riskpo_openrlhf.files import existing
from riskpo_openrlhf.integration.faults import RunFault

# Class of a Ray actor -> the part of a run that it is. Ray may name OpenRLHF's class where ours adds no method.
PARTS = {
    "RiskPORolloutActor": "vLLM engine", "RolloutRayActor": "vLLM engine",
    "RiskPOPolicyActor": "policy worker", "PolicyModelActor": "policy worker",
    "ReferenceModelActor": "reference worker", "RewardModelActor": "reward worker",
    "CriticModelActor": "critic worker",
    "RiskPOTrainer": "driver", "RiskPOTrainingActor": "training driver", "RiskPOTrainerAsync": "asynchronous launcher",
    "PPOTrainer": "driver", "TrainingActor": "training driver", "PPOTrainerAsync": "asynchronous launcher",
    "RiskPOGenerateSamplesActor": "generator", "GenerateSamplesActor": "generator",
    "VLLMLock": "lock of the engines", "_QueueActor": "rollout queue",
}  # fmt: skip

RUN_FAULT, INFRASTRUCTURE, START = "run", "infrastructure", "start"
FULL = 100 * 2**20  # bytes free under which a disk counts as full


@dataclass
class Fault:
    """Why a run ended. `kind`: RUN_FAULT is never restarted; START is tried again without --riskpo.max_restarts."""

    cause: str
    cure: str
    kind: str = INFRASTRUCTURE

    def lines(self) -> tuple[str, str]:
        """The last two lines of the run."""
        return f"failed: {self.cause}", f"cure: {self.cure}"


class Row(NamedTuple):
    """A known error: `pattern` is looked for in the whole error; `cause` may use {disks}, {engine}, {line} of it."""

    pattern: str
    cause: str
    cure: str
    kind: str = INFRASTRUCTURE


_SMALLER = (
    "lower --vllm.gpu_memory_utilization, --train.micro_batch_size, --rollout.micro_batch_size or "
    "--train.max_tokens_per_gpu, or spread the model over more GPUs"
)
_RESTART = "--riskpo.max_restarts N goes on from the last checkpoint"
_MEMORY = (
    "if the machine ran out of memory (`dmesg | grep -i oom`), use fewer or smaller processes a node; else look above "
    f"for the part's own last lines, or for who killed it; {_RESTART}"
)
LOST_CONNECTION = "the connection between two processes of the run was lost, or never came about"
# The first row that matches counts: exact causes stand before their consequences.
TABLE = (
    Row(r"No space left on device|\bENOSPC\b|OutOfDiskError|PytorchStreamWriter failed|"
        r"unexpected pos|Disk quota exceeded|local disk is full",
        "a disk is full: {disks}",
        "free space there, or move --ckpt.path, --ckpt.output_dir or RAY_TMPDIR; keep fewer checkpoints "
        "(--ckpt.max_num); then resume with --ckpt.load_enable", RUN_FAULT),
    Row(r"CUDA out of memory|CUDA error: out of memory|torch\.(cuda\.)?OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "a GPU is out of memory", _SMALLER),
    Row(r"No available memory for the cache blocks|KV cache is needed, which is larger than the available|"
        r"Free memory on device .* is less than desired",
        "a vLLM engine has too little memory for its KV cache",
        "raise --vllm.gpu_memory_utilization, lower --data.max_len, or end what else uses that GPU"),
    Row(r"ObjectStoreFullError|object store is full|plasma store is full",
        "Ray's object store is full",
        "give it more memory (`ray start --object-store-memory BYTES`, a larger /dev/shm), or lower "
        "--rollout.batch_size"),
    Row(r"ray\.exceptions\.OutOfMemoryError|due to the node running low on memory|memory pressure",
        "Ray ended a process because the machine ran low on memory",
        "use fewer or smaller processes a node, or a machine with more memory; the threshold is Ray's "
        "RAY_memory_usage_threshold"),
    Row(r"EADDRINUSE|[Aa]ddress already in use",
        "a network port was taken before it could be used",
        "start again: the next start takes another port", START),
    Row(r"NodeDiedError|node .{0,80}(?:has died|was marked dead|is dead)|Worker exit type: NODE_",
        "a node of the cluster was lost",
        f"bring the node back, or use fewer; {_RESTART}"),
    Row(r"ActorUnavailableError[\s\S]*(?:Socket closed|Connection refused|failed to connect)|Owner's node has crashed|"
        r"Raylet is terminated",
        "Ray's node process (raylet) ended, and the node's processes with it",
        "look for who ended it: `dmesg | grep -i oom`, and raylet.out in Ray's logs (/tmp/ray/session_latest/logs); "
        f"{_RESTART}"),
    Row(r"Timed out waiting for file .{0,200}_port",
        "Ray did not start: its processes wrote nothing into its temporary folder; {disks}",
        "if that disk is full, free space there, or name a short folder on another disk (RAY_TMPDIR); else look into "
        "Ray's logs (/tmp/ray/session_latest/logs)"),
    Row(r"AF_UNIX path length cannot exceed",
        "the path of Ray's temporary folder is too long for its sockets",
        "name a folder with a short path: RAY_TMPDIR=/tmp/ray-me", RUN_FAULT),
    Row(r"wandb\.errors|wandb/(?:sdk|errors)/|\bWANDB_API_KEY\b",
        "Weights & Biases failed: {last}",
        "correct --logger.wandb.key, or check the network of the node; without a network set WANDB_MODE=offline; or "
        "leave out --logger.wandb.key", RUN_FAULT),
    Row(r"EngineDeadError[\s\S]*root cause: ",
        "a process of a vLLM engine died{engine}",
        "mend what the error names; its lines above are marked with (EngineCore"),
    Row(r"EngineDeadError|EngineCore encountered an issue|Engine core proc .* died",
        "a process of a vLLM engine died", _MEMORY),
    Row(r"Engine core initialization failed",
        "a vLLM engine failed in its start{engine}",
        "mend what vLLM names; its lines above are marked with (EngineCore"),
    Row(r"NCCL error|ncclRemoteError|ncclInternalError|Connection closed by peer|Connection reset by peer|"
        r"Watchdog caught collective|Timed out waiting for clients|timed out after \d+ms waiting|clients joined",
        LOST_CONNECTION,
        "look above for the process that ended first; check the network between the nodes (NCCL_DEBUG=INFO)"),
    Row(r"Read-only file system|Permission denied",
        "a file or folder can't be used: {line}",
        "make it readable and writable for the user of this run on every node (`ls -ld`, `mount`, `dmesg`), or name "
        "another place; then resume with --ckpt.load_enable", RUN_FAULT),
    Row(r"Input/output error|Stale file handle",
        "a disk, or a server of files, failed: {line}",
        f"look at that disk (`dmesg`, `df`) and its server; {_RESTART}"),
)  # fmt: skip

_ELSE = "the traceback above shows where; docs/reliability.md and docs/troubleshooting.md list known causes"
_DIED_IN_START = re.compile(r"error raised in its creation task|creation_task_failure|failed in its start")
_RUN_FAULT = re.compile(r"^(?:[\w.]+\.)?\w*Fault: (.+)$", re.MULTILINE)
_ACTOR = re.compile(r"class_name: (\w+)")
# Errors that the same code with the same flags and data would raise again: a restart would not help.
_OF_CODE = re.compile(
    r"(Value|Validation|Type|Key|Index|Attribute|Name|UnboundLocal|Assertion|Import|ModuleNotFound|NotImplemented|"
    r"ZeroDivision|Unicode\w*)Error\b"
)
_LAST = re.compile(r"^(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning))(?:: (.*))?$", re.MULTILINE)


def explain(error: BaseException, folders: Sequence[str] = ()) -> Fault:
    """Return cause and cure of the error that ended a run. `folders`: where the run writes, to name a full disk."""
    chain = list(_chain(error))
    for found in reversed(chain):  # the innermost
        if isinstance(found, RunFault) and isinstance(found.cause, str):
            return Fault(found.cause, found.cure, RUN_FAULT)
    return explain_text("\n".join(f"{type(each).__name__}: {each}" for each in chain), folders)


def explain_text(text: str, folders: Sequence[str] = ()) -> Fault:
    """Return cause and cure of an error of which only the text is known: tracebacks, Ray's words about a death."""
    if told := _RUN_FAULT.findall(text):  # in the start of an actor, of whose error Ray hands on the text alone
        return Fault(_cut(told[-1]), "as said; the traceback above shows where", RUN_FAULT)
    known, where = next(((row, found) for row in TABLE if (found := re.search(row.pattern, text))), (None, None))
    part = _ACTOR.search(text)
    name = PARTS.get(part[1], part[1]) if part else ""
    if known:
        line = _cut(text[text.rfind("\n", 0, where.start()) + 1 :].partition("\n")[0].strip())
        cause = known.cause.format(disks=full_disks(folders), engine=_root(text), line=line, last=last_error(text))
        return Fault(f"{cause} ({name})" if name and name not in cause else cause, known.cure, known.kind)
    last = last_error(text)
    kind = RUN_FAULT if _OF_CODE.match(last) else INFRASTRUCTURE
    if _DIED_IN_START.search(text):
        return Fault(f"{_one(name or 'part of the run')} failed in its start: {last}", _ELSE, kind)
    if part and re.search(r"ActorDiedError|ActorUnavailableError|actor died|actor is dead|Worker exit", text):
        return Fault(f"{_one(name)} died{_how(text)}", _MEMORY)
    return Fault(last, _ELSE, kind)


def _one(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def died(code: int) -> Fault:
    """Return the cause for a process that ended without a word. `code`: as `subprocess` has it."""
    if code < 0:
        return Fault(f"the submitting process ended by {signal.Signals(-code).name} (signal {-code})", _MEMORY)
    cure = f"the lines above are its last; they name the cause, or the library that ended it; {_RESTART}"
    return Fault(f"the submitting process ended by itself, with exit code {code}", cure)


def hung(pid: int, seconds: int) -> Fault:
    """Return the fault of a submitting process in which nothing has run for so many seconds."""
    return Fault(
        f"the submitting process (process {pid}) stood still: no look of its watcher for {seconds} s "
        "(--riskpo.stall_timeout and a minute)",
        "it was stopped (SIGSTOP), hangs outside Python (`dmesg`), or nobody reads its output; raise "
        f"--riskpo.stall_timeout if that may take so long; {_RESTART}",
    )


def no_head(error: Exception) -> Fault:
    """Return the fault of a cluster whose head can't be asked."""
    return Fault(
        f"Ray's head process (gcs_server) does not answer: {type(error).__name__}: {error}",
        "look on the head node for its end or its load: `dmesg | grep -i oom`, and gcs_server.out in Ray's logs "
        f"(/tmp/ray/session_latest/logs); {_RESTART}",
    )


def last_error(text: str) -> str:
    """Return the last `Error: message` of a traceback, with the lines that belong to the message joined."""
    found = list(_LAST.finditer(text))
    if not found:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return _cut(lines[-1] if lines else "unknown error")
    kind, message = found[-1].groups()
    rest = text[found[-1].end() :].splitlines()[:3]
    more = [line.strip() for line in rest if line.strip() and not line.startswith(("\x1b", "(", "Traceback"))]
    return _cut(" ".join([f"{kind}: {message}" if message else kind, *more]))


def full_disks(folders: Sequence[str] = ()) -> str:
    """Name the disks that are full among `folders` and the temporary ones, else all, with their free space."""
    # Python passes over a TMPDIR that is full.
    temporary = [*filter(None, map(os.environ.get, ("RAY_TMPDIR", "TMPDIR"))), tempfile.gettempdir()]
    free = {}
    for folder in [*folders, *temporary]:
        try:
            free[folder] = shutil.disk_usage(existing(folder)).free
        except OSError:
            continue
    full = {folder: size for folder, size in free.items() if size < FULL} or free
    return ", ".join(f"{folder} ({size / 2**20:,.0f} MiB free)" for folder, size in full.items())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what Ray wrapped in it, and what it was raised from, outermost first."""
    seen: set[int] = set()
    waiting: list = [error]
    while waiting:
        error = waiting.pop(0)
        if not isinstance(error, BaseException) or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        waiting += [
            getattr(error, "cause", None),
            error.__cause__,
            error.__context__,
            *getattr(error, "exceptions", ()),
        ]


def _how(text: str) -> str:
    """Return how a process died, as far as Ray knows."""
    if code := re.search(r"exit code (-?\d+)|exit_code=(-?\d+)", text):
        return f" with exit code {code[1] or code[2]}"
    if "connection error code 2" in text or "End of file" in text:
        pid = re.search(r"pid[=:] ?(\d+)", text)
        return f"{f' (process {pid[1]})' if pid else ''} without a word: killed (SIGKILL, out of memory) or crashed"
    return ""


def _root(text: str) -> str:
    """Return the root cause that an engine left in its error (`rollout_actor`)."""
    found = re.search(r"root cause: (.+)", text)
    return f": {_cut(found[1])}" if found else ""


def _cut(line: str, length: int = 500) -> str:
    line = re.sub(r"\x1b\[[0-9;]*m", "", line)
    return line if len(line) <= length else line[: length - 1] + "…"
