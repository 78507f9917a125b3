"""Prepare training and test sets for OpenRLHF: `python3 -m riskpo_openrlhf.cli.prepare_data NAME... --out DIR`.

`--list` shows the names. `--check PATH...` reports how OpenRLHF reads your own files. See docs/data.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from riskpo_openrlhf.console import lines_not_bars
from riskpo_openrlhf.data.instructions import INSTRUCTIONS
from riskpo_openrlhf.data.prepare import Options, decontaminate_folder, prepare
from riskpo_openrlhf.data.reasoning import TASKS
from riskpo_openrlhf.data.sources import SOURCES
from riskpo_openrlhf.tables import to_json

DEFAULTS = Options()
FAILURES = (ModuleNotFoundError, OSError, ValueError)  # which the user can mend


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.json and not args.check:
        parser.error("--json goes with --check PATH...")
    if args.list:
        return _list()
    lines_not_bars()
    try:
        if args.check:
            return _check(args)
        return _prepare(args)
    except FAILURES as error:
        _warn(str(error))
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="data sets to prepare; see --list")
    add("--out", type=Path, help="output folder: NAME.jsonl, its manifest, its images or tests")
    add("--list", action="store_true", help="show the names, with rows, licence and source")
    add("--force", action="store_true", help="prepare sets again that are finished")
    boxed = [name for name, instruction in INSTRUCTIONS.items() if "math" in instruction.verifiers]
    add("--instruction", choices=boxed, help="instruction of all mathematics prompts (default: each set's own)")
    add("--from", dest="copies", metavar="DIR", help="read local copies, DIR/OWNER/NAME, instead of the hub")
    revision = "take another commit or branch of one set; may be repeated"
    add("--revision", action="append", default=[], metavar="NAME=COMMIT", help=revision)
    counts = "only warn if a source has more or fewer rows than expected"
    add("--accept_row_counts", action="store_true", help=counts)
    add("--tokenizer", help="count tokens with this model's tokenizer: its folder, or its name on the hub")
    add(
        "--max_prompt_tokens",
        type=int,
        default=DEFAULTS.max_prompt_tokens,
        help="drop longer prompts; needs --tokenizer (default: 1024)",
    )
    add = parser.add_argument_group("reasoning_gym_train and reasoning_gym_test").add_argument
    add("--tasks", nargs="+", default=DEFAULTS.tasks, metavar="TASK[:KEY=VALUE,...]", help=f"of: {', '.join(TASKS)}")
    add("--count", type=int, help="problems in a set (default: 4800 for training, 160 for a test)")
    add("--seed", type=int, default=DEFAULTS.seed, help="draws the problems (default: 0)")
    add = parser.add_argument_group(
        "check your own files", "The defaults fit files that this command has prepared."
    ).add_argument
    add(
        "--check",
        nargs="+",
        metavar="PATH",
        help="check these files or folders, as --data.prompt_dataset would read them",
    )
    add("--json", action="store_true", help="with --check: print one JSON object instead of text")
    add("--split", default="train", help="your --data.prompt_split or --eval.split (default: train)")
    add("--data.input_key", dest="input_key", default="prompt", help="default: prompt")
    add("--data.label_key", dest="label_key", default="label", help="default: label")
    add("--data.image_key", dest="image_key", default="images", help="default: images")
    template = "true if your command has this flag (default: true)"
    add(
        "--data.apply_chat_template",
        dest="apply_chat_template",
        choices=("true", "false"),
        default="true",
        help=template,
    )
    return parser


def _list() -> int:
    width = max(map(len, SOURCES))
    for source in SOURCES.values():
        low, high = source.kept or source.rows
        rows = "any" if low == 1 else f"{low:,}" if low == high else f"{low:,} to {high:,}"
        print(f"{source.name:{width}}  {source.role:5}  {rows:>16}  {source.licence:16}  {source.repo}")
    return 0


def _prepare(args) -> int:
    unknown = [name for name in args.names if name not in SOURCES]
    if unknown or not args.names:
        problem = f"{', '.join(unknown)} is not known" if unknown else "no NAME is given"
        raise ValueError(f"{problem}; known are: {', '.join(SOURCES)}")
    if args.out is None:
        raise ValueError("--out is missing: the folder to write to")
    revisions = dict(_name_and_commit(text) for text in args.revision)
    chosen = {knob.name: getattr(args, knob.name) for knob in dataclasses.fields(Options) if knob.name != "revision"}
    options = Options(**{**chosen, "tasks": tuple(args.tasks)})
    code = 0
    try:
        for name in dict.fromkeys(args.names):
            mine = dataclasses.replace(options, revision=revisions.get(name))
            manifest = prepare(SOURCES[name], args.out, mine, force=args.force, warn=_warn)
            left_out = ", ".join(f"{n:,} {reason}" for reason, n in manifest["dropped"].items())
            print(f"{args.out / manifest['file']}: {manifest['rows']['kept']:,} rows; left out: {left_out or 'none'}")
    except FAILURES as error:  # reported first, since decontamination may fail as well
        _warn(str(error))
        code = 2
    finally:
        if args.out.is_dir():  # also after a failure: sets that are there must be decontaminated
            decontaminate_folder(args.out, _warn)
    return code


def _name_and_commit(text: str) -> tuple[str, str]:
    name, _, commit = text.partition("=")
    if name not in SOURCES or not commit:
        raise ValueError(f"--revision {text!r} is not allowed: NAME=COMMIT, NAME one of {', '.join(SOURCES)}")
    return name, commit


def _warn(text: str) -> None:
    print(f"prepare_data: {text}", file=sys.stderr)


def _check(args) -> int:
    from riskpo_openrlhf.integration.check_data import ERROR, LEVELS, check_paths

    findings = check_paths(
        args.check, input_key=args.input_key, label_key=args.label_key, image_key=args.image_key, split=args.split,
        apply_chat_template=args.apply_chat_template == "true", tokenizer=args.tokenizer,
        max_prompt_tokens=args.max_prompt_tokens,
    )  # fmt: skip
    worst = max((finding.level for finding in findings), default=0)
    if args.json:
        listed = [dataclasses.asdict(finding) | {"level": LEVELS[finding.level]} for finding in findings]
        print(to_json({"ok": worst < ERROR, "findings": listed}))
        return worst
    for finding in findings:
        print(finding)
    print(("OpenRLHF will read this as it is.", "Read the warnings.", "Repair the errors first.")[worst])
    return worst


if __name__ == "__main__":
    sys.exit(main())
