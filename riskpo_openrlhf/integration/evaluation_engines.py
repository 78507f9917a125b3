"""vLLM engines for a separate evaluation: OpenRLHF's actors, placement and rewards, without a trainer.

The engines' processes import this module, so it stands apart from the trainers: OpenRLHF keeps DeepSpeed out of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import openrlhf.trainer.ray.vllm_engine as vllm_engine
import ray
import vllm
from openrlhf.datasets.prompts_dataset import preprocess_data
from openrlhf.utils.utils import get_tokenizer
from vllm.sampling_params import RequestOutputKind
from vllm.usage.usage_lib import UsageContext

from riskpo_openrlhf.evaluation.problems import EvaluationError, InputError, Problem, Sampling, sample_seed
from riskpo_openrlhf.integration import cluster
from riskpo_openrlhf.integration.launch import EVALUATION, replace_names
from riskpo_openrlhf.integration.rewards import number
from riskpo_openrlhf.integration.rollout_actor import RiskPORolloutActor
from riskpo_openrlhf.verifiers import STATUSES

WORKER_VARIABLES = {"TOKENIZERS_PARALLELISM": "true", "NCCL_DEBUG": "WARN", "VLLM_LOGGING_LEVEL": "ERROR"}
IN_FLIGHT = 2048  # samples that an engine holds at once: more than it runs, so that it is never idle
GATHER_SECONDS = 0.1  # an answer to the driver waits this long for more samples


class RiskPOEvaluationActor(RiskPORolloutActor):
    """A vLLM engine that returns each graded sample as soon as it is done, instead of whole groups."""

    async def __init__(self, *args, **kwargs):
        # Batch sizes of vLLM's offline `LLM`: an AsyncLLMEngine is meant to serve and takes smaller ones.
        tokens, sequences = vllm.AsyncEngineArgs.get_batch_defaults(kwargs["tensor_parallel_size"])
        context = UsageContext.LLM_CLASS
        kwargs |= {"max_num_batched_tokens": tokens[context], "max_num_seqs": sequences[context]}
        await super().__init__(*args, disable_log_stats=True, **kwargs)

    async def begin(self, tokenizer) -> None:
        """Return when the engine is up. `tokenizer`: OpenRLHF's, sent once instead of with every prompt."""
        self._tokenizer = tokenizer
        self._finished: asyncio.Queue = asyncio.Queue()
        self._tasks: set[asyncio.Task] = set()

    async def exchange(self, requests: list[dict]) -> list[dict]:
        """Start samples, then return those that are done. Call it only while some are in flight: it waits for one.

        Args:
            requests: the keywords of `_sample`, one dictionary per sample.

        Raises:
            RuntimeError: the engine died; the message is its error.
        """
        for request in requests:
            task = asyncio.create_task(self._sample(**request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        done = [await self._finished.get()]
        await asyncio.sleep(GATHER_SECONDS)
        while not self._finished.empty():
            done.append(self._finished.get_nowait())
        samples = [sample for sample in done if isinstance(sample, dict)]
        failures = [sample for sample in done if isinstance(sample, Exception)]
        if failures and not samples:
            raise RuntimeError(f"{type(failures[0]).__name__}: {failures[0]}") from failures[0]
        for failure in failures:  # for the next call: what is done comes first
            self._finished.put_nowait(failure)
        return samples

    async def _sample(self, key: tuple, prompt: str, label: str, images: list, sampling: dict, max_len: int) -> None:
        """Make one sample and queue it as `evaluation.samples` stores it, or queue the engine's error instead."""
        params = vllm.SamplingParams(
            **sampling, flat_logprobs=True, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )  # no text: OpenRLHF decodes the tokens for the verifier
        try:
            output = await self.executor.execute(prompt, label, params, max_len, self._tokenizer, self, images or None)
            # Nothing else ran since the executor asked for the reward, so the error belongs to this sample.
            error = self.last_reward_error() if number(output["scores"]) is None else ""
            self.rewards.last_error = ""
            self._finished.put_nowait(self._row(key, output, error))
        except Exception as failure:
            self._finished.put_nowait(failure)

    def _row(self, key: tuple, output: dict, error: str) -> dict:
        datasource, problem, sample = key
        (start, end), *_ = output["action_ranges"]
        score, logprobs = number(output["scores"]), output["rollout_log_probs"]
        logs = {name: number(value) or 0.0 for name, value in output["extra_logs"].items()}
        named = (status for status in STATUSES[1:-1] if logs.get(f"verifier/{status}"))
        status = next(named, "error" if score is None else "ok")
        row = {
            "datasource": datasource,
            "id": problem,
            "sample": sample,
            "response": self._tokenizer.decode(output["observation_tokens"][start:end], skip_special_tokens=True),
            "score": score,
            "status": status,
            "tokens": end - start,
            "truncated": bool(output["truncated"]),
            "logprob": None if logprobs is None else number(np.mean(logprobs[start:end])),
            "extra_logs": logs,
        }
        return {**row, "error": error or "no reward came"} if status == "error" else row


def load_tokenizer(model: str):
    """Load a model's tokenizer as OpenRLHF does. Raises `InputError` if that is not possible."""
    if model.startswith((os.sep, ".")) and not os.path.isdir(model):
        raise InputError(f"--model {model} does not exist")
    try:
        return get_tokenizer(model, None)
    except (OSError, ValueError) as error:
        cause = f"--model {model} has no tokenizer that can be loaded: {error}"
        if not os.path.isdir(model):
            offline = " unset HF_HUB_OFFLINE, and" if os.environ.get("HF_HUB_OFFLINE") else ""
            cause += f"\nThere is no folder {model} either. For a model of the hub,{offline} check its name"
        raise InputError(cause) from error


@contextmanager
def running(args: argparse.Namespace, tokenizer, *, max_len: int, reward: list[str], images: int) -> Iterator[list]:
    """Start Ray (or join the cluster that RAY_ADDRESS names) and the engines; disconnect at the end.

    The arguments are those of `start_engines`.
    """
    try:
        cluster.start_ray(args.runtime, args.num_engines * args.tensor_parallel_size, WORKER_VARIABLES)
    except cluster.ClusterError as error:
        raise EvaluationError(str(error)) from error
    try:
        yield start_engines(args, tokenizer, max_len=max_len, reward=reward, images=images)
    finally:
        ray.shutdown()


def start_engines(args: argparse.Namespace, tokenizer, *, max_len: int, reward: list[str], images: int) -> list:
    """Start OpenRLHF's engines on the Ray cluster of this process. Return when all are up.

    Args:
        args: the flags of `cli.evaluate`.
        reward: the absolute path of a reward file, or URLs, as for OpenRLHF's `--reward.remote_url`.
        images: maximum number of images in a prompt, 0 for text.

    Raises:
        EvaluationError: the cluster has too few GPUs, or an engine did not start. The message carries its error.
    """
    engines, size = args.num_engines, args.tensor_parallel_size
    if (gpus := ray.cluster_resources().get("GPU", 0)) < engines * size:  # OpenRLHF would wait for ever
        raise EvaluationError(
            f"--num_engines {engines} with --tensor_parallel_size {size} needs {engines * size} GPUs, and Ray has "
            f"{gpus:g}: take fewer engines, or a larger cluster (or --runtime cpu, on a machine without any)"
        )
    replace_names(EVALUATION)
    try:
        actors = vllm_engine.create_vllm_engines(
            engines, size, args.model, args.seed, False, True, args.enforce_eager or args.runtime == "cpu", max_len,
            gpu_memory_utilization=args.gpu_memory_utilization, remote_rm_url=reward, max_images_per_prompt=images,
        )  # fmt: skip
        tokenizer = ray.put(tokenizer)
        ray.get([actor.begin.remote(tokenizer) for actor in actors])
    except ray.exceptions.RayError as error:
        raise EvaluationError(f"an engine did not start: {error}") from error
    return actors


def render(problem: Problem, tokenizer, chat_template: bool) -> str:
    """Render a prompt as OpenRLHF's training data set does."""
    template = tokenizer.apply_chat_template if chat_template else None
    try:
        return preprocess_data({"prompt": problem.prompt}, None, "prompt", None, template)[0]
    except ValueError as error:  # transformers': the tokenizer has no chat template
        raise EvaluationError(f"{problem.datasource}/{problem.id}: {error}") from error


def prompt_tokens(prompt: str, tokenizer, images: Sequence[str]) -> int:
    """Count a prompt's tokens as OpenRLHF's executor does, image placeholders included."""
    if images:
        from openrlhf.utils.vlm_utils import process_prompt_with_images

        return len(process_prompt_with_images(tokenizer, prompt, list(images))[0])
    return len(tokenizer(text=prompt, add_special_tokens=False)["input_ids"])


def requests_of(
    problem: Problem, prompt: str, sampling: Sampling, missing: Sequence[int], *, seed: int, max_len: int,
    logprobs: bool = True,
) -> list[dict]:  # fmt: skip
    """Describe the missing samples of one problem for `generate`. Each has its own seed, the same in every run."""
    first = sample_seed(seed, problem)
    values = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens}
    values |= {"min_tokens": 1, "logprobs": 0 if logprobs else None}  # 0: of the drawn token alone
    shared = {"prompt": prompt, "label": problem.label, "images": list(problem.images), "max_len": max_len}
    return [
        {**shared, "key": (problem.datasource, problem.id, place), "sampling": {**values, "seed": first + place}}
        for place in missing
    ]


def generate(engines: list, problems: Sequence[list[dict]]) -> Iterator[list[dict]]:
    """Yield lists of samples as they are done.

    `problems`: the requests of each problem. They all go to one engine, which caches the prompt.
    Raises `EvaluationError` when an engine dies.
    """
    waiting = deque(problems)
    in_flight, exchanging = [0] * len(engines), {}
    while waiting or any(in_flight):
        requests = [[] for _ in engines]
        idle = [i for i in range(len(engines)) if i not in exchanging.values()]
        while waiting and (free := [i for i in idle if in_flight[i] < IN_FLIGHT]):
            i = min(free, key=in_flight.__getitem__)
            requests[i] += waiting[0]
            in_flight[i] += len(waiting.popleft())
        for i in idle:
            if in_flight[i]:
                exchanging[engines[i].exchange.remote(requests[i])] = i
        ready, _ = ray.wait(list(exchanging), num_returns=1)
        for reference in ready:
            i = exchanging.pop(reference)
            try:
                done = ray.get(reference)
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None) or error
                raise EvaluationError(f"engine {i + 1} of {len(engines)} failed: {cause}") from error
            in_flight[i] -= len(done)
            yield done
