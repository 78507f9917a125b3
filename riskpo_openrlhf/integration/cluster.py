"""Start Ray for a job, or join a cluster, and compare the cluster with what the job needs.

OpenRLHF's `train` starts Ray itself only if nobody has. It would wait for missing GPUs for ever, and for minutes for
a cluster that does not answer. Here each of these ends in a message, before a GPU is taken.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from riskpo_openrlhf.console import MARK, say
from riskpo_openrlhf.integration.causes import last_error
from riskpo_openrlhf.integration.final_flags import PACKAGES, names, versions

ANSWER_SECONDS = 25  # for a cluster to answer
NODE_SECONDS = 60  # for a node to start a process and answer
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by `ray job submit` in the job's own process
# What OpenRLHF gives its workers when it starts Ray itself; a variable that is set wins.
OPENRLHF_VARIABLES = {
    "TOKENIZERS_PARALLELISM": "true",
    "NCCL_DEBUG": "WARN",
    "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1",
}
VERIFIERS = ("RISKPO_SANDBOX", "RISKPO_CODE_", "RISKPO_VERIFIER_")  # settings that the engines' processes read
SAME = ("riskpo_openrlhf", "openrlhf")  # other versions of these on a node stop the job


class ClusterError(ValueError):
    """The cluster does not answer, is too small, or has a node that lacks something. The message says what to do."""


def start_ray(runtime: str, gpus: int, variables: dict[str, str] = OPENRLHF_VARIABLES) -> None:
    """Start Ray, or join a cluster, unless this process has done so.

    The address is RAY_ADDRESS. Without it, a job on GPUs joins the cluster that was started on this machine, as with
    OpenRLHF, and a job of the CPU runtime starts its own. The address of a cluster that has died is ignored.

    Args:
        runtime: "gpu" or "cpu".
        gpus: how many pretend GPUs an own Ray of the CPU runtime has.
        variables: what workers on GPUs get; a variable that is set in this process wins.

    Raises `ClusterError` if no cluster answers at the address.
    """
    import ray

    if ray.is_initialized():
        return
    environment = worker_environment(runtime, variables)
    address = os.environ.get("RAY_ADDRESS") or _address_left_here(runtime)
    if address and address != "local":
        with reaching(address) as address:
            ray.init(address=address, runtime_env=environment)
        return
    alone = {"num_gpus": gpus, "num_cpus": gpus + 4, "include_dashboard": False} if runtime == "cpu" else {}
    # After a SIGKILL of this process Ray's agents would look for their head for a minute (Ray's default).
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
    # Ray keeps a record of the last 100,000 calls: 134 MB per 1,000 steps of a small run (docs/results/soak.md).
    os.environ.setdefault("RAY_task_events_max_num_task_in_gcs", "10000")
    ray.init(address="local", runtime_env=environment, **alone)


def check(gpus: int, paths: Sequence[str], wait: float = 0) -> None:
    """Compare the cluster with what the job needs.

    Args:
        gpus: how many GPUs the job will ask for.
        paths: files and folders that every node must see.
        wait: seconds to wait for GPUs that are not there yet, e.g. of an autoscaling cluster.

    Raises `ClusterError` if there are too few GPUs, or a node lacks the package or a path.
    """
    import ray

    require_gpus(gpus, wait)
    if sum(node["Alive"] for node in ray.nodes()) > 1:
        compare_nodes(paths)


def worker_environment(runtime: str, variables: dict[str, str] = OPENRLHF_VARIABLES) -> dict:
    """Return Ray's `runtime_env` for the job's workers.

    The verifiers' settings of this process go along: a cluster that is joined would not see them.
    Ray refuses a key that the submitted job's `runtime_env` holds too. Variables of the job win; they are set in this
    process already.

    Raises `ClusterError` if the job sets the hook that the CPU runtime needs.
    """
    if runtime == "cpu":
        from riskpo_openrlhf.runtime import cpu

        environment = cpu.worker_environment()
    else:
        environment = {"env_vars": {name: os.environ.get(name, value) for name, value in variables.items()}}
    environment["env_vars"] |= {name: value for name, value in os.environ.items() if name.startswith(VERIFIERS)}
    theirs = (json.loads(os.environ.get(JOB_CONFIG) or "{}").get("runtime_env")) or {}
    if "worker_process_setup_hook" in theirs and "worker_process_setup_hook" in environment:
        raise ClusterError("the job's runtime_env sets worker_process_setup_hook, which --riskpo.runtime cpu needs")
    given = set(theirs.get("env_vars") or {})
    environment["env_vars"] = {name: v for name, v in environment["env_vars"].items() if name not in given}
    return environment


def _address_left_here(runtime: str) -> str | None:
    """Return the address of the living cluster of this machine that the job should join, or None."""
    address = _written_address()
    if not address or _refusal(address, seconds=2):
        return None
    if runtime == "cpu":
        say(f"note: a Ray cluster runs at {address}; this job starts its own. To join it, set RAY_ADDRESS={address}")
        return None
    say(
        f"note: joins the Ray cluster that runs on this machine, {address}; to start an own one, set RAY_ADDRESS=local"
    )
    return address


def _written_address() -> str | None:
    """Return the address that the last `ray start` on this machine wrote down. Its cluster may be dead."""
    from ray._private.utils import read_ray_address

    return read_ray_address()


@contextmanager
def reaching(address: str) -> Iterator[str]:
    """Join a cluster in the block, at the address that is yielded. Raises `ClusterError`, or ends with exit code 2."""
    where = f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}" if os.environ.get("RAY_ADDRESS") else address
    if address == "auto":
        if not (address := _written_address()):
            raise ClusterError(f"{where}: no Ray cluster was started on this machine: run `ray start`, or name one")
    if refusal := _refusal(address, seconds=10):
        raise ClusterError(
            f"no Ray cluster answers at {where} ({refusal}): correct the address (HEAD:6379), or unset RAY_ADDRESS "
            "to use this machine alone"
        )
    with _deadline(ANSWER_SECONDS, f"{where}: something listens there but does not answer as a Ray head (HEAD:6379)"):
        try:
            yield address
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(f"can't join the Ray cluster at {where}: {error}") from error


def _refusal(address: str, seconds: float) -> str | None:
    """Return why nothing can be reached at "host:port", or None."""
    if address.startswith("ray://"):
        return "a job can't be watched through Ray's client: run it on a node of the cluster, or by `ray job submit`"
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        return "that is not HOST:PORT"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds):
            return None
    except (OSError, OverflowError) as error:
        return str(error)


@contextmanager
def _deadline(seconds: float, message: str) -> Iterator[None]:
    """End the process with exit code 2 if the block takes longer: Ray's connection can't be interrupted."""

    def end() -> None:
        print(f"{MARK}error: {message}; no answer within {seconds:g} s", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def require_gpus(needed: int, wait: float = 0) -> None:
    """Compare the GPUs of the cluster with what OpenRLHF's placements will ask for.

    With `wait`, an autoscaling cluster is asked for them, and the check is repeated until they are there.

    Raises `ClusterError` if there are too few.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    end, asked = time.monotonic() + wait, False
    while (found := int(ray.cluster_resources().get("GPU", 0))) < needed:
        if time.monotonic() >= end:
            nodes = sum(node["Alive"] for node in ray.nodes())
            raise ClusterError(
                f"{needed} GPUs are needed, and Ray has {found} on {nodes} node{'s' * (nodes != 1)}: ask for fewer, "
                "or start more nodes. If nodes are still to join, add --riskpo.wait_for_gpus SECONDS"
            )
        if not asked:
            asked = True
            say(f"waits up to {wait:g} s for {needed - found} more GPUs")
            request_resources(bundles=[{"GPU": 1}] * needed)
        time.sleep(1)
    if asked:
        request_resources(bundles=[])  # placements hold them from here on
    free = int(ray.available_resources().get("GPU", 0))
    if free < needed:
        say(f"note: {found - free} of {found} GPUs are in use; the job waits until {needed} are free")


def probe(paths: Sequence[str]) -> dict:
    """Describe this process's node: versions of the packages, and which of `paths` are not there."""
    found = {**versions(("riskpo_openrlhf", *PACKAGES)), "Python": platform.python_version()}
    return {"versions": found, "missing": [path for path in paths if not os.path.exists(path)]}


def compare_nodes(paths: Sequence[str]) -> None:
    """Run `probe` on every node, and print what differs from this process.

    Raises `ClusterError` that names each node which can't import the package, has another version of it or of
    OpenRLHF, or does not see a path.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].keys() & {"CPU", "GPU"}]
    task = ray.remote(num_cpus=0, max_retries=0)(probe)
    asked = [
        (_name(node), task.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(paths)) for node in nodes
    ]
    here, end, problems, notes = probe(()), time.monotonic() + NODE_SECONDS, [], []
    for name, reference in asked:
        try:
            found = ray.get(reference, timeout=max(0.1, end - time.monotonic()))
        except GetTimeoutError:
            problems.append(f"{name} did not answer within {NODE_SECONDS} s")
        except (RayError, ImportError) as error:
            problems.append(
                f"{name} can't run this package: {last_error(str(error))}; install it there as on this machine"
            )
        else:
            for package, (there, ours) in _differences(found["versions"], here["versions"]).items():
                text = f"{name} has {package} {there}, and this process {ours}"
                (problems if package in SAME else notes).append(text)
            problems += [
                f"{name} does not see {path}: copy it there, or use a shared folder" for path in found["missing"]
            ]
    for note in notes:
        say(f"note: {note}")
    if problems:
        raise ClusterError("the nodes of the cluster differ:\n  " + "\n  ".join(problems))
    say(f"{len(nodes)} nodes have the same packages and see the same {len(paths)} paths")


def _differences(there: dict, here: dict) -> dict[str, tuple[str, str]]:
    names = sorted(there.keys() | here.keys())
    pairs = {name: (there.get(name, "missing"), here.get(name, "missing")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _name(node: dict) -> str:
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"


# Flags that hold a path. Files that are read may also be names on a hub, or addresses.
READ = (
    "actor.model_name_or_path", "reward.model_name_or_path", "critic.model_name_or_path", "data.prompt_dataset",
    "eval.dataset", "reward.remote_url", "train.agent_func_path",
)  # fmt: skip
WRITTEN = ("ckpt.path", "ckpt.output_dir", "logger.tensorboard_dir")


def absolute_paths(values: dict) -> None:
    """Make relative paths absolute, in place: engines and ranks run in other folders. `values`: flags by dotted name.

    A name that is no file or folder here, e.g. of a model on the hub, stays as it is.
    """
    for flag in (flag for flag in READ if values.get(flag)):
        given = map(os.path.expanduser, names(values[flag]))  # a shell leaves `--flag=~/file` as it is
        parts = (os.path.abspath(name) if os.path.exists(name) else name for name in given)
        values[flag] = ",".join(parts)
    for flag in (flag for flag in WRITTEN if values.get(flag)):
        values[flag] = os.path.abspath(os.path.expanduser(values[flag]))


def paths_read(values: dict) -> list[str]:
    """Return the files and folders of this machine that the flags name, for `compare_nodes`."""
    named = dict.fromkeys(name for flag in READ for name in names(values.get(flag)))
    return [name for name in named if os.path.isabs(name) and os.path.exists(name)]
