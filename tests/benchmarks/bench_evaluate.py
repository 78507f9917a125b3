"""What an evaluation costs beside plain vLLM: the same samples, by our engines and by `vllm.LLM`, in turns in one run.

    python3 tests/benchmarks/bench_evaluate.py --runtime cpu

Ours: Ray, OpenRLHF's executor, grading, log-probabilities, every sample on disk. Plain: `LLM.generate` with `n` and
`seed`, nothing else. Starting the engines counts in neither. Prints both times of each turn, their ratio and the share
of responses that are the same; asserts nothing. Without --model, an untrained one of 25 million parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from riskpo_openrlhf.cli import evaluate
from riskpo_openrlhf.evaluation.problems import Problem, choose_sampling, sample_seed
from riskpo_openrlhf.evaluation.samples import SAMPLES, SampleStore, read_samples
from riskpo_openrlhf.lab import last_number


class Benchmark:
    """Both engines, up and warm."""

    def __init__(self, options: argparse.Namespace, model: str):
        words = ["--model", model, "--data", "-", "--out", "-", "--runtime", options.runtime]
        args = evaluate.parse(words)
        self.options, self.engines = options, evaluate.load_engines(args)
        self.tokenizer = self.engines.load_tokenizer(model)
        self.problems = [
            Problem("bench", str(i), f"{11 * i + 23}+{i}=", str(12 * i + 23)) for i in range(options.problems)
        ]
        overrides = {"temperature": 1.0, "top_p": 1.0, "n": options.n, "max_new_tokens": options.tokens}
        self.sampling = choose_sampling(self.problems, overrides)["bench"]
        self.max_len = options.tokens + max(
            self.engines.prompt_tokens(problem.prompt, self.tokenizer, ()) for problem in self.problems
        )
        shared = {"enforce_eager": options.runtime == "cpu", "gpu_memory_utilization": 0.4}

        import vllm

        self.vllm = vllm
        self.plain = vllm.LLM(
            model, dtype="bfloat16", max_model_len=self.max_len, enable_prefix_caching=True, **shared
        )
        args.gpu_memory_utilization = shared["gpu_memory_utilization"]
        self.running = self.engines.running(
            args, self.tokenizer, max_len=self.max_len, reward=[last_number.__file__], images=0
        )
        self.actors = self.running.__enter__()  # until this process ends

    def by_us(self, turn: int, folder: Path) -> float:
        wanted = [
            self.engines.requests_of(
                problem, problem.prompt, self.sampling, range(self.options.n), seed=turn, max_len=self.max_len,
                logprobs=self.options.logprobs,
            )
            for problem in self.problems
        ]  # fmt: skip
        for request in (request for requests in wanted for request in requests):
            request["sampling"]["min_tokens"] = self.options.tokens
        store = SampleStore(folder, {})
        start = time.monotonic()
        for samples in self.engines.generate(self.actors, wanted):
            store.add(samples)
        seconds = time.monotonic() - start
        store.close()
        return seconds

    def by_vllm(self, turn: int) -> tuple[float, dict]:
        tokens = {"min_tokens": self.options.tokens, "max_tokens": self.options.tokens}
        params = [
            self.vllm.SamplingParams(n=self.options.n, seed=sample_seed(turn, problem), temperature=1.0, **tokens)
            for problem in self.problems
        ]
        prompts = [
            {"prompt_token_ids": self.tokenizer(text=problem.prompt, add_special_tokens=False)["input_ids"]}
            for problem in self.problems
        ]
        start = time.monotonic()
        outputs = self.plain.generate(prompts, params, use_tqdm=False)
        seconds = time.monotonic() - start
        both = zip(self.problems, outputs, strict=True)
        return seconds, {(p.id, response.index): response.text for p, output in both for response in output.outputs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model")
    parser.add_argument("--runtime", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128, help="length of every response")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--logprobs", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Benchmark(options, options.model or _untrained_model(folder / "model"))
        bench.by_us(-1, folder / "warm")
        bench.by_vllm(-1)
        samples = options.problems * options.n
        print(f"{samples} responses of {options.tokens} tokens, {options.n} a problem; {os.cpu_count()} cores")
        print("turn    evaluate  plain vLLM   ratio  same responses")
        ratios = []
        for turn in range(options.turns):
            home = folder / str(turn)
            if turn % 2:
                ours, (theirs, texts) = bench.by_us(turn, home), bench.by_vllm(turn)
            else:
                (theirs, texts), ours = bench.by_vllm(turn), bench.by_us(turn, home)
            rows = (json.loads(line) for _, _, line in read_samples(home / SAMPLES))
            same = sum(texts[row["id"], row["sample"]] == row["response"] for row in rows) / samples
            ratios.append(ours / theirs)
            print(f"{turn + 1:4d} {ours:9.2f} s {theirs:9.2f} s {ratios[-1]:7.3f} {100 * same:13.1f} %", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f}")


def _untrained_model(folder: Path) -> str:
    from transformers import Qwen2ForCausalLM

    from riskpo_openrlhf.lab.tiny_model import build_tiny_tokenizer, qwen2_config

    tokenizer = build_tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    Qwen2ForCausalLM(qwen2_config(tokenizer, 512, 1344, layers=8, heads=8, positions=4096)).save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()
