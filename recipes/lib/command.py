"""Finish and check the training command of a recipe, for `launch.sh`. Needs the standard library only.

`command.py finish [--without FLAG ...] [--smoke] [--need_data] -- COMMAND` prints the final words, each ended by NUL.
`command.py check --machines NAMES -- COMMAND` ends with exit code 2 if the command can't run here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="action", required=True)
    finishing = commands.add_parser("finish")
    finishing.add_argument("--without", action="append", default=[], metavar="FLAG")
    finishing.add_argument("--smoke", action="store_true")
    finishing.add_argument("--need_data", action="store_true")
    commands.add_parser("check").add_argument("--machines", required=True)
    split = sys.argv.index("--")
    args, command = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    try:
        if args.action == "check":
            check(command, args.machines)
        else:
            sys.stdout.write("".join(f"{word}\0" for word in finish(command, args)))
    except ValueError as error:
        print(f"recipe: {error}", file=sys.stderr)
        sys.exit(2)


def finish(command: list[str], args) -> list[str]:
    """Take out the flags `args.without`, and leave out the rows that fill no rollout.

    Raises:
        ValueError: a flag to take out is not there, or with `args.need_data` a data file is missing.
    """
    for flag in args.without:
        if flag not in command and not args.smoke:
            raise ValueError(f"--without {flag}: the recipe does not set it")
        command = without(command, flag)
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


def without(command: list[str], flag: str) -> list[str]:
    """Remove a flag and its values."""
    kept, dropping = [], False
    for word in command:
        if word.startswith("--"):
            dropping = word.partition("=")[0] == flag
        if not dropping:
            kept.append(word)
    return kept


def value(command: list[str], flag: str) -> str:
    """Return the flag's last value, which is the one that counts; an empty string without the flag."""
    found = ""
    for word, after in zip(command, [*command[1:], ""], strict=True):
        name, mark, text = word.partition("=")
        if name == flag:
            found = text if mark else after
    return found


def whole_rollouts(command: list[str]) -> list[str]:
    """Return the flag that leaves out the rows which fill no rollout, or nothing.

    A short last rollout trains on little. Without dynamic batching its micro-batches can't be shared out equally, and
    ranks would wait for each other forever.
    """
    files = [Path(file) for file in value(command, "--data.prompt_dataset").split(",")]
    readable = all(file.suffix == ".jsonl" and file.is_file() for file in files)
    if value(command, "--data.max_samples") or not readable:
        return []
    rows, batch = sum(map(lines_of, files)), int(value(command, "--rollout.batch_size"))
    return ["--data.max_samples", str(rows - rows % batch)] if rows > batch and rows % batch else []


def lines_of(file: Path) -> int:
    with open(file, "rb") as lines:
        return sum(1 for _ in lines)


def check(command: list[str], machines: str) -> None:
    """Dry run the command and count the GPUs. OpenRLHF would wait for missing GPUs without a word.

    Raises:
        ValueError: a setting is wrong, or there are too few GPUs.
    """
    run = subprocess.run([*command, "--riskpo.dry_run", "json"], text=True, capture_output=True)
    try:
        report = json.loads(run.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        output = (run.stdout + run.stderr).strip().splitlines()[-5:]
        raise ValueError("\n".join(["the dry run ended with an error:", *output])) from None
    if not report["ok"]:
        raise ValueError("\n".join(["the settings are wrong:", *(each["message"] for each in report["problems"])]))
    found = gpus()
    if found < report["gpus"]:
        place = "the cluster has" if os.environ.get("RAY_ADDRESS") else "here are"
        raise ValueError(
            f"{report['gpus']} GPUs are needed and {place} {found}: choose other machines with --machines\n"
            f"  ({machines}), for several nodes start a Ray cluster and set RAY_ADDRESS=auto,\n"
            "  or try the recipe without a GPU by --smoke"
        )


def gpus() -> int:
    """Count the GPUs of this machine, or of the cluster that RAY_ADDRESS names.

    Raises:
        ValueError: no cluster answers.
    """
    if not os.environ.get("RAY_ADDRESS"):
        import torch

        return torch.cuda.device_count()
    import ray

    try:
        ray.init(log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"no Ray cluster answers at RAY_ADDRESS={os.environ['RAY_ADDRESS']}: {error}") from error
    return int(ray.cluster_resources().get("GPU", 0))


if __name__ == "__main__":
    main()
