"""Finish and check the training command of a recipe, for `launch.sh`. Needs the standard library only.

`command.py finish [--without FLAG ...] [--smoke] [--need_data] -- COMMAND` prints the final words, each ended by NUL.
`command.py check --machines NAMES [--submit ADDRESS] -- COMMAND` ends with exit code 2 if the command can't run here,
or on the Ray cluster whose dashboard has that address.
`command.py environment --` prints the `runtime_env` of a submitted job: the verifiers' settings of this environment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ANSWER_SECONDS = 10  # for each of two questions to a cluster
READ = (
    "--actor.model_name_or_path", "--reward.model_name_or_path", "--critic.model_name_or_path",
    "--data.prompt_dataset", "--eval.dataset", "--reward.remote_url", "--train.agent_func_path",
)  # fmt: skip
WRITTEN = ("--ckpt.path", "--ckpt.output_dir", "--logger.tensorboard_dir")
VERIFIERS = ("RISKPO_SANDBOX", "RISKPO_CODE_", "RISKPO_VERIFIER_")  # as in integration/cluster.py
FILES = (".py", ".json", ".jsonl", ".parquet", ".csv", ".arrow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="action", required=True)
    finishing = commands.add_parser("finish")
    finishing.add_argument("--without", action="append", default=[], metavar="FLAG")
    finishing.add_argument("--smoke", action="store_true")
    finishing.add_argument("--need_data", action="store_true")
    checking = commands.add_parser("check")
    checking.add_argument("--machines", required=True)
    checking.add_argument("--submit", metavar="ADDRESS")
    commands.add_parser("environment")
    split = sys.argv.index("--")
    args, command = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    try:
        if args.action == "check":
            check(command, args.machines, args.submit)
        elif args.action == "environment":
            print(json.dumps({"env_vars": {n: value for n, value in os.environ.items() if n.startswith(VERIFIERS)}}))
        else:
            sys.stdout.write("".join(f"{word}\0" for word in finish(command, args)))
    except ValueError as error:
        print(f"recipe: {error}", file=sys.stderr)
        sys.exit(2)


def finish(command: list[str], args) -> list[str]:
    """Take out the flags `args.without`, make paths absolute, and leave out the rows that fill no rollout.

    Raises:
        ValueError: a flag to take out is not there, or with `args.need_data` a data file is missing.
    """
    for flag in args.without:
        if flag not in command and not args.smoke:
            raise ValueError(f"--without {flag}: the recipe does not set it")
        command = without(command, flag)
    command = absolute(command)
    if args.need_data:
        files = [*value(command, "--data.prompt_dataset").split(","), *value(command, "--eval.dataset").split(",")]
        missing = [Path(file) for file in files if file.startswith("/") and not Path(file).exists()]
        if missing:
            names = " ".join(file.stem for file in missing)
            raise ValueError(
                f"no data: {' '.join(map(str, missing))} is not there. Run\n"
                f"  python3 -m riskpo_openrlhf.cli.prepare_data {names} --out {missing[0].parent}\n"
                "or name the folder with --data or RISKPO_DATA"
            )
    return command + whole_rollouts(command)


def words(command: list[str]) -> Iterator[tuple[str, str, str | None]]:
    """Yield (its flag, the text before its value, its value) for each word; the value is None without one."""
    flag = ""
    for word in command:
        if word.startswith("--"):
            flag, mark, value = word.partition("=")
            yield flag, flag + mark, value if mark else None
        else:
            yield flag, "", word


def absolute(command: list[str]) -> list[str]:
    """Make relative paths absolute: a submitted job, ranks and engines run in other folders.

    What is neither there nor named like a file is a name on the hub, or an address.
    """

    def path(part: str, read: bool) -> str:
        part = os.path.expanduser(part)  # the shell leaves --ckpt.path=~/run as it is
        local = not read or os.path.exists(part) or part.startswith(("./", "../"))
        return os.path.abspath(part) if part and (local or ("://" not in part and part.endswith(FILES))) else part

    found = []
    for flag, before, value in words(command):
        if value and flag in (*READ, *WRITTEN):
            value = ",".join(path(part, flag in READ) for part in value.split(","))
        found.append(before + (value or ""))
    return found


def without(command: list[str], flag: str) -> list[str]:
    """Remove a flag and its values."""
    return [before + (value or "") for name, before, value in words(command) if name != flag]


def value(command: list[str], flag: str) -> str:
    """Return the flag's last value, which is the one that counts; an empty string without the flag."""
    found = ""
    for name, _, given in words(command):
        if name == flag and given is not None:
            found = given
    return found


def whole_rollouts(command: list[str]) -> list[str]:
    """Return the flag that leaves out the rows which fill no rollout, or nothing.

    A short last rollout trains on little. Without dynamic batching its micro-batches can't be shared out equally, and
    ranks would wait for each other forever. The flag cuts the evaluation as well: it is not set if that has more rows.
    """
    rows, evaluated = (rows_of(value(command, flag)) for flag in ("--data.prompt_dataset", "--eval.dataset"))
    if value(command, "--data.max_samples") or not rows:
        return []
    batch = int(value(command, "--rollout.batch_size"))
    whole = rows - rows % batch
    if rows < batch or rows == whole:
        return []
    if evaluated > whole:
        print(
            f"recipe: {rows - whole} of {rows} rows fill no --rollout.batch_size {batch}. They stay, because "
            f"--data.max_samples {whole} would cut the {evaluated} rows of the evaluation, too",
            file=sys.stderr,
        )
        return []
    return ["--data.max_samples", str(whole)]


def rows_of(files: str) -> int:
    """Count the rows of files joined by commas; 0 if one of them can't be read as JSON lines."""
    paths = [Path(file) for file in files.split(",")]
    if not all(path.suffix == ".jsonl" and path.is_file() for path in paths):
        return 0
    return sum(sum(1 for _ in path.open("rb")) for path in paths)


def check(command: list[str], machines: str, submit: str | None = None) -> None:
    """Dry run the command and count the GPUs. OpenRLHF would wait for missing GPUs without a word.

    Raises:
        ValueError: a setting is wrong, there are too few GPUs, or no cluster answers at `submit`.
    """
    if submit:
        ask(submit, "/api/version")  # before the dry run, which takes longer
        if not find_spec("openrlhf"):
            print(
                "recipe: OpenRLHF is not installed here: the job checks its settings when it starts", file=sys.stderr
            )
            return
    run = subprocess.run([*command, "--riskpo.dry_run", "json"], text=True, capture_output=True)
    try:
        report = json.loads(run.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        output = (run.stdout + run.stderr).strip().splitlines()[-5:]
        raise ValueError("\n".join(["the dry run ended with an error:", *output])) from None
    if not report["ok"]:
        raise ValueError("\n".join(["the settings are wrong:", *(each["message"] for each in report["problems"])]))
    if float(value(command, "--riskpo.wait_for_gpus") or 0):  # the job waits for them itself, and then refuses
        return
    found = cluster_gpus(submit) if submit else gpus()
    if found < report["gpus"]:
        place = f"the cluster at {submit} has" if submit else "the cluster has" if _address() else "here are"
        raise ValueError(
            f"{report['gpus']} GPUs are needed and {place} {found}: choose other machines with --machines\n"
            f"  ({machines}), for several nodes start a Ray cluster and set RAY_ADDRESS=auto,\n"
            "  for nodes that are still to join add -- --riskpo.wait_for_gpus SECONDS,\n"
            "  or try the recipe without a GPU by --smoke"
        )


def ask(address: str, path: str) -> dict:
    """Ask a Ray cluster's dashboard. Returns its answer.

    Raises:
        ValueError: nothing answers as a dashboard does.
    """
    try:
        with urllib.request.urlopen(address.rstrip("/") + path, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no Ray dashboard answers at --submit {address} ({error}): take the address that `ray start --head`\n"
            "  prints, http://HEAD:8265; from another machine, open a tunnel: ssh -L 8265:127.0.0.1:8265 HEAD"
        ) from None


def cluster_gpus(address: str) -> int:
    """Count the GPUs of the living nodes of a Ray cluster, by its dashboard."""
    nodes = ask(address, "/api/v0/nodes?limit=10000")["data"]["result"]["result"]
    return int(sum(node["resources_total"].get("GPU", 0) for node in nodes if node["state"] == "ALIVE"))


def _address() -> str | None:
    address = os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address


def gpus() -> int:
    """Count the GPUs of this machine, or of the cluster that RAY_ADDRESS names.

    Raises:
        ValueError: no cluster answers.
    """
    if not _address():
        import torch

        return torch.cuda.device_count()
    import ray

    from riskpo_openrlhf.integration.cluster import start_ray

    start_ray("gpu", 0)  # a ClusterError is a ValueError
    return int(ray.cluster_resources().get("GPU", 0))


if __name__ == "__main__":
    main()
