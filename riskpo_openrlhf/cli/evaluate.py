"""Evaluate a model: `python3 -m riskpo_openrlhf.cli.evaluate --model M --data a.jsonl,b.jsonl --out DIR`.

Samples n responses to each problem on vLLM engines that Ray places, grades them, and writes DIR/samples.jsonl and
DIR/summary.json. The same command resumes an interrupted evaluation. `--compare DIR_A DIR_B` compares two models.

Exit codes: 0 finished; 1 the evaluation stopped (finished samples are kept), or the verifier could not read a single
response; 2 a flag or what it names is wrong, and nothing was begun; 3 OpenRLHF is missing or unsuitable; 130
interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from riskpo_openrlhf.evaluation.problems import SETTINGS, EvaluationError, InputError
from riskpo_openrlhf.integration import contract
from riskpo_openrlhf.integration.contract import ContractError


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        return _compare(args) if args.compare else _evaluate(args)
    except EvaluationError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except ContractError as error:
        hint = "" if args.runtime == "cpu" else " (without a GPU, add --runtime cpu)"
        print(f"evaluate: {error}{hint}", file=sys.stderr)
        return 3
    except ModuleNotFoundError as error:
        print(f"evaluate: {error.name} is missing: install as in the README", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        kept = "" if args.compare else f" {args.out} keeps finished samples; the same command resumes."
        print(f"\nInterrupted.{kept}", file=sys.stderr)
        return 130


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", help="the model: its folder, or its name on the hub")
    add("--data", help="test sets: JSON-lines files as prepare_data writes them, joined by commas")
    out = (
        "output folder; an unfinished evaluation found there is resumed (default: evaluation, beside a model's folder)"
    )
    add("--out", type=Path, help=out)
    setting = "public: how public reports sample each benchmark (default); paper: one greedy answer of 3072 tokens"
    add("--setting", choices=SETTINGS, default="public", help=setting)
    add("--n", type=int, help="responses to each problem (default: the setting's, for each benchmark)")
    add("--temperature", type=float, help="0 is greedy (default: the setting's)")
    add("--top_p", type=float, help="share of probability to sample from (default: the setting's)")
    add("--max_new_tokens", type=int, help="most tokens of a response (default: the setting's)")
    add("--max_len", type=int, help="most tokens of prompt and response (default: what the longest prompt needs)")
    add(
        "--reward",
        help="reward function: a file, URLs of verifier services joined by commas, or riskpo for the built-in "
        "verifiers (default: as in the run that trained the model, else the verifier that each label names)",
    )
    add("--input_key", help="the prompt's field (default: prompt, or else input)")
    add("--label_key", default="label", help="the label's field (default: label)")
    template = "render all prompts by the model's chat template (default: as in the run that trained the model, else "
    template += "only prompts that are lists of turns)"
    add("--apply_chat_template", action=argparse.BooleanOptionalAction, help=template)
    logprobs = "keep log-probabilities of the responses (default: yes; costs about 20 us a token)"
    add("--logprobs", action=argparse.BooleanOptionalAction, default=True, help=logprobs)
    add("--seed", type=int, default=0, help="decides the seed of every sample (default: 0)")
    add("--num_engines", type=_positive, default=1, help="number of vLLM engines (default: 1)")
    add("--tensor_parallel_size", type=_positive, default=1, help="GPUs of one engine (default: 1)")
    add("--gpu_memory_utilization", type=float, default=0.9, help="share of a GPU that an engine takes (default: 0.9)")
    add("--enforce_eager", action="store_true", help="run without CUDA graphs")
    runtime = "cpu: run without a GPU (default: as in the run that trained the model, else gpu)"
    add("--runtime", choices=("gpu", "cpu"), help=runtime)
    add("--parquet", action="store_true", help="also write samples.parquet")
    add("--compare", nargs=2, type=Path, metavar=("FIRST", "SECOND"), help="compare two finished evaluations")
    add("--json", action="store_true", help="print the result as JSON, on the last line")
    args = parser.parse_args(argv)
    if args.model and not args.out and os.path.isdir(args.model):
        args.out = Path(args.model).absolute().parent / "evaluation"
    missing = [f"--{name}" for name in ("model", "data", "out") if getattr(args, name) is None]
    if missing and not args.compare:
        parser.error(f"{', '.join(missing)} must be given (or --compare FIRST SECOND)")
    if args.reward and args.reward.endswith(".py"):
        args.reward = os.path.abspath(args.reward)
        if not os.path.exists(args.reward):
            parser.error(f"--reward {args.reward} does not exist: give the path of a reward file")
    elif args.reward not in (None, "riskpo") and not args.reward.startswith("http"):
        parser.error(f"--reward {args.reward} is not allowed: a .py file, URLs that begin with http, or riskpo")
    return args


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not allowed: 1 or more")
    return value


def _compare(args) -> int:
    from riskpo_openrlhf.evaluation import compare_models
    from riskpo_openrlhf.files import write_json
    from riskpo_openrlhf.tables import to_json

    comparison = compare_models.compare(*args.compare, seed=args.seed)
    print(to_json(comparison) if args.json else compare_models.as_table(comparison))
    if args.out:
        write_json(args.out / "comparison.json", comparison)
    return 0


def _evaluate(args) -> int:
    from riskpo_openrlhf.evaluation import run, samples, summary
    from riskpo_openrlhf.tables import to_json

    trained = run.settings_of(args.model)
    flags = trained.flags if trained else {}
    args.runtime = args.runtime or flags.get("riskpo.runtime") or "gpu"
    if args.apply_chat_template is None and flags.get("data.apply_chat_template"):
        args.apply_chat_template = True
    plan = run.plan(args, trained)
    result = run.evaluate(args, plan, load_engines(args))
    failed = result.pop("failed")
    print(f"\n{summary.as_table(result)}\n{summary.PLUS_MINUS}\n")
    for name in ("lower_tail", "upper_tail"):
        tail = result["logprob_by_reward"][name]
        rho = "" if tail.get("spearman") is None else f" (Spearman {tail['spearman']:+.2f})"
        print(f"Assumption 1, {name.replace('_', ' ')}: {tail['verdict']}{rho}")
    if args.parquet:
        print(f"Samples: {samples.write_parquet(args.out)}")
    if failed:
        print(f"{len(failed)} samples have no verdict, e.g. {failed[0]}. To sample these again, run the same command.")
    print(f"Summary: {args.out / samples.SUMMARY}")
    unreadable = summary.unreadable(result)
    for explanation in unreadable.values():
        print(f"evaluate: {explanation}.", file=sys.stderr)
    if args.json:
        print(to_json(result), flush=True)
    return int(len(unreadable) == len(result["sources"]))


def load_engines(args):
    """Import `integration.evaluation_engines`. Raises `ContractError` if OpenRLHF is missing or unsuitable."""
    contract.check_version()
    if args.runtime == "cpu":
        from riskpo_openrlhf.runtime import cpu

        cpu.prepare_driver()
    for note in contract.check(contract.EVALUATION):
        print(f"evaluate: note: {note}", file=sys.stderr)
    from riskpo_openrlhf.integration import evaluation_engines

    return evaluation_engines


if __name__ == "__main__":
    sys.exit(main())
