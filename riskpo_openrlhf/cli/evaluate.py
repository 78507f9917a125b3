"""Evaluate a model: `python3 -m riskpo_openrlhf.cli.evaluate --model M --data a.jsonl,b.jsonl --out DIR`.

Samples n responses a problem on Ray-scheduled vLLM engines, grades them, and writes DIR/samples.jsonl and
DIR/summary.json. The same command goes on where a killed one stopped. `--compare DIR_A DIR_B` compares two models.

Exit codes: 0 finished; 1 the evaluation could not go on, finished samples are kept; 2 a flag is wrong; 3 OpenRLHF is
not the version that this was written for; 130 interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import Counter
from pathlib import Path

from riskpo_openrlhf.evaluation import compare_models, problems, summary
from riskpo_openrlhf.evaluation.problems import EvaluationError
from riskpo_openrlhf.evaluation.samples import SUMMARY, SampleStore, write_parquet
from riskpo_openrlhf.files import write_json

REWARD = Path(__file__).parents[1] / "verifiers" / "reward_func.py"
# OpenRLHF's flags for a run of engines alone, from which the CPU runtime counts its pretend GPUs.
NO_TRAINING = {
    "actor.num_nodes": 0,
    "actor.num_gpus_per_node": 0,
    "algo.kl.init_coef": 0,
    "algo.advantage.estimator": "",
    "reward.remote_url": "given",
    "train.colocate_all": False,
    "train.colocate_actor_ref": False,
}
FEW = 20  # so many samples before a verifier that fails most of the time stops the evaluation


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        if args.compare:
            return _compare(args)
        return _evaluate(args)
    except EvaluationError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"\nInterrupted. Finished samples are in {args.out}; the same command goes on from there.", file=sys.stderr
        )
        return 130


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--model", help="folder or hub name")
    add("--data", help="JSON-lines files of prepare_data, joined by commas")
    add("--out", type=Path, help="folder for samples and summary; one that holds some is gone on with")
    add("--n", type=int, help="responses a problem")
    add("--temperature", type=float, help="0 is greedy")
    add("--top_p", type=float)
    add("--max_new_tokens", type=int, help="most tokens of a response")
    add("--max_len", type=int, help="most tokens of prompt and response (default: what the longest prompt needs)")
    add("--reward", default=str(REWARD), help="reward file or URLs of verifier services, joined by commas")
    add("--input_key", help="the prompt's field (default: prompt, or else input)")
    add("--label_key", default="label", help="the label's field")
    template = "by the model's chat template (default: prompts that are lists of turns)"
    add("--apply_chat_template", action=argparse.BooleanOptionalAction, help=template)
    logprobs = "log-probabilities of the responses (default: yes; costs an engine's front end some 20 us a token)"
    add("--logprobs", action=argparse.BooleanOptionalAction, default=True, help=logprobs)
    add("--seed", type=int, default=0, help="fixes every sample's own seed")
    add("--num_engines", type=_positive, default=1)
    add("--tensor_parallel_size", type=_positive, default=1)
    add("--gpu_memory_utilization", type=float, default=0.9)
    add("--enforce_eager", action="store_true", help="no CUDA graphs")
    add("--runtime", choices=("gpu", "cpu"), default="gpu")
    add("--parquet", action="store_true", help="write samples.parquet too")
    add("--compare", nargs=2, type=Path, metavar=("FIRST", "SECOND"), help="compare two finished evaluations")
    args = parser.parse_args(argv)
    missing = [f"--{name}" for name in ("model", "data", "out") if getattr(args, name) is None]
    if missing and not args.compare:
        parser.error(f"{', '.join(missing)} must be given (or --compare FIRST SECOND)")
    if args.reward.endswith(".py"):
        args.reward = os.path.abspath(args.reward)
        if not os.path.exists(args.reward):
            parser.error(f"--reward {args.reward} does not exist")
    elif not args.reward.startswith("http"):
        parser.error(f"--reward {args.reward}: a file that ends in .py, or URLs that begin with http")
    return args


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _compare(args) -> int:
    comparison = compare_models.compare(*args.compare, seed=args.seed)
    print(compare_models.as_table(comparison))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_json(args.out / "comparison.json", comparison)
    return 0


def _evaluate(args) -> int:
    rows = problems.read_problems(
        [Path(path) for path in args.data.split(",") if path], args.input_key, args.label_key
    )
    overrides = {name: getattr(args, name) for name in ("temperature", "top_p", "n", "max_new_tokens")}
    sampling = problems.choose_sampling(rows, overrides)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    engines = engines_module(args)
    tokenizer = load_tokenizer(args.model)
    texts, longest = [], Counter()
    for row in rows:
        chat = isinstance(row.prompt, list) if args.apply_chat_template is None else args.apply_chat_template
        if isinstance(row.prompt, list) and not chat:
            raise EvaluationError("--no-apply_chat_template: the prompts are lists of turns, which need a template")
        texts.append(engines.render(row, tokenizer, chat))
        tokens = engines.prompt_tokens(texts[-1], tokenizer, row.images)
        longest[row.datasource] = max(longest[row.datasource], tokens)
    sampling = _fit(sampling, longest, args)
    args.max_len = args.max_len or max(longest[source] + s.max_new_tokens for source, s in sampling.items())
    _print_settings(sampling, Counter(row.datasource for row in rows))
    store = SampleStore(args.out, _settings(args, rows, sampling))
    try:
        wanted = []
        for row, text in zip(rows, texts, strict=True):
            chosen = sampling[row.datasource]
            missing = [j for j in range(chosen.n) if not store.finished((row.datasource, row.id, j))]
            if missing:
                fixed = {"seed": args.seed, "max_len": args.max_len, "logprobs": args.logprobs}
                wanted.append(engines.requests_of(row, text, chosen, missing, **fixed))
        if wanted:
            total = sum(sampling[row.datasource].n for row in rows)
            _sample(args, engines, tokenizer, store, wanted, total, images=max(len(row.images) for row in rows))
    finally:
        store.close()
    return _report(args, store, sampling)


def engines_module(args):
    """`integration.evaluation_engines`, which needs OpenRLHF, after what a machine without a GPU needs before it."""
    from riskpo_openrlhf.integration import contract

    try:
        contract.check_version()
        if args.runtime == "cpu":
            from riskpo_openrlhf.runtime import cpu

            cpu.prepare_driver()
        from riskpo_openrlhf.integration import evaluation_engines
    except (contract.ContractError, ModuleNotFoundError) as error:
        hint = "" if args.runtime == "cpu" else " (without a GPU, add --runtime cpu)"
        print(f"evaluate: {error}{hint}", file=sys.stderr)
        sys.exit(3)
    return evaluation_engines


def load_tokenizer(model: str):
    from openrlhf.utils.utils import get_tokenizer

    if model.startswith((os.sep, ".")) and not os.path.isdir(model):
        raise EvaluationError(f"--model {model} does not exist")
    try:
        return get_tokenizer(model, None)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"--model {model} has no tokenizer that can be loaded: {error}") from error


def _fit(sampling: dict, longest: Counter, args) -> dict:
    """Settings whose responses fit into the model's positions, and into --max_len, beside the longest prompt."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(args.model, trust_remote_code=True).get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or sys.maxsize
    limit = min(positions, args.max_len or positions)
    fitted = {}
    for source, chosen in sampling.items():
        room = limit - longest[source]
        if chosen.max_new_tokens > room:
            what = f"{source}: the longest prompt has {longest[source]} tokens of {limit} (--max_len, or the model's)"
            if args.max_new_tokens or room < 1:
                raise EvaluationError(f"{what}, which leaves {room} for --max_new_tokens {chosen.max_new_tokens}")
            print(f"{what}: responses get {room} tokens instead of {chosen.max_new_tokens}")
            chosen = chosen._replace(max_new_tokens=room)
        fitted[source] = chosen
    return fitted


def _settings(args, rows, sampling: dict) -> dict:
    """What the samples depend on. An evaluation with other settings is another one, see `SampleStore`."""
    reward = {"reward": args.reward}
    if args.reward.endswith(".py"):
        reward["reward_sha256"] = hashlib.sha256(Path(args.reward).read_bytes()).hexdigest()[:16]
    return {
        "model": os.path.realpath(args.model) if os.path.isdir(args.model) else args.model,
        "model_files": _fingerprint(args.model),
        "problems": problems.digest(rows),
        "counts": dict(Counter(row.datasource for row in rows)),
        "sampling": {
            source: dict(zip(chosen._fields[:-1], chosen, strict=False)) for source, chosen in sampling.items()
        },
        "apply_chat_template": args.apply_chat_template,
        "max_len": args.max_len,
        "logprobs": args.logprobs,
        "seed": args.seed,
        **reward,
    }


def _fingerprint(model: str) -> str | None:
    """Names, sizes and times of a model folder's files: other weights under the same name are another model."""
    if not os.path.isdir(model):
        return None
    files = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in os.scandir(model) if f.is_file())
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]


def _print_settings(sampling: dict, counts: Counter) -> None:
    lines = [["", "problems", "n", "temperature", "top_p", "max_new_tokens", "  as in"]]
    for source, s in sampling.items():
        values = (counts[source], s.n, s.temperature, s.top_p, s.max_new_tokens)
        lines.append([source, *(f"{value:g}" for value in values), "  " + s.source])
    print(summary.aligned(lines), flush=True)


def _sample(args, engines, tokenizer, store: SampleStore, wanted: list, total: int, images: int) -> None:
    import ray
    from tqdm import tqdm

    start_ray(args)
    try:
        actors = engines.start_engines(
            args.model,
            tokenizer,
            num_engines=args.num_engines,
            tensor_parallel_size=args.tensor_parallel_size,
            max_len=args.max_len,
            seed=args.seed,
            reward=args.reward.split(","),
            enforce_eager=args.enforce_eager or args.runtime == "cpu",
            gpu_memory_utilization=args.gpu_memory_utilization,
            images=images,
        )
        missing = sum(map(len, wanted))
        seconds = 0.1 if sys.stderr.isatty() else 10  # between two lines of a log
        with tqdm(total=total, initial=total - missing, desc="Evaluating", unit="sample", mininterval=seconds) as bar:
            done = right = failed = 0
            for samples in engines.generate(actors, wanted):
                store.add(samples)
                done += len(samples)
                right += sum((sample["score"] or 0) > 0 for sample in samples)
                failed += sum(sample["status"] == "error" for sample in samples)
                if done >= min(FEW, missing) and failed > done / 2:
                    error = next(row["error"] for row in store.rows.values() if row["status"] == "error")
                    raise EvaluationError(
                        f"{failed} of {done} samples have no verdict. An error of the verifier: {error}. Mend "
                        f"--reward {args.reward}, then run this command again: those samples are made again"
                    )
                bar.set_postfix_str(f"right {100 * right / done:.1f} %", refresh=False)
                bar.update(len(samples))
    finally:
        ray.shutdown()


def start_ray(args) -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine."""
    if args.runtime == "cpu":
        from riskpo_openrlhf.runtime import cpu

        cpu.start_ray(argparse.Namespace(**NO_TRAINING, **_engine_flags(args)))
        return
    import ray

    variables = {"TOKENIZERS_PARALLELISM": "true", "NCCL_DEBUG": "WARN", "VLLM_LOGGING_LEVEL": "ERROR"}
    ray.init(runtime_env={"env_vars": {name: os.environ.get(name, value) for name, value in variables.items()}})


def _engine_flags(args) -> dict:
    return {"vllm.num_engines": args.num_engines, "vllm.tensor_parallel_size": args.tensor_parallel_size}


def _report(args, store: SampleStore, sampling: dict) -> int:
    result = summary.summarise(store.rows.values())
    stated = {source: chosen._asdict() for source, chosen in sampling.items()}
    write_json(args.out / SUMMARY, {"model": args.model, "sampling": stated, **result})
    print(f"\n{summary.as_table(result)}\n")
    for name in ("lower_tail", "upper_tail"):
        tail = result["logprob_by_reward"][name]
        rho = "" if tail.get("spearman") is None else f" (Spearman {tail['spearman']:+.2f})"
        print(f"Assumption 1, {name.replace('_', ' ')}: {tail['verdict']}{rho}")
    if args.parquet:
        print(f"Samples: {write_parquet(args.out)}")
    failed = [row["error"] for row in store.rows.values() if row["status"] == "error"]
    if failed:
        print(f"{len(failed)} samples have no verdict, e.g. {failed[0]}. The same command makes them again.")
    print(f"Summary: {args.out / SUMMARY}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
