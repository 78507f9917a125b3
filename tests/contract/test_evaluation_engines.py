"""What the evaluation relies on inside OpenRLHF and vLLM, and its engine's actor without an engine."""

import asyncio
import inspect
import math
from types import SimpleNamespace

import pytest
import torch
from vllm.config import SchedulerConfig

from riskpo_openrlhf.evaluation.problems import EvaluationError, Problem, Sampling, sample_seed
from riskpo_openrlhf.integration import evaluation_engines as engines
from riskpo_openrlhf.integration.reward_calls import RewardCalls
from riskpo_openrlhf.integration.rollout_actor import whole_prompts
from riskpo_openrlhf.lab.tiny_model import build_tiny_tokenizer
from riskpo_openrlhf.verifiers import STATUSES

SAMPLING = Sampling(0.6, 0.95, 4, 8, "")
PROBLEM = Problem("s", "1", "1+1=", "2")


@pytest.mark.parametrize(
    ("module", "name", "parameters"),
    [
        (
            "openrlhf.trainer.ray.vllm_engine",
            "create_vllm_engines",
            "num_engines tensor_parallel_size pretrain seed full_determinism enable_prefix_caching enforce_eager "
            "max_model_len shared_pg gpu_memory_utilization vllm_enable_sleep logprobs_mode agent_func_path "
            "remote_rm_url max_images_per_prompt",
        ),
        (
            "openrlhf.datasets.prompts_dataset",
            "preprocess_data",
            "data input_template input_key label_key apply_chat_template",
        ),
        ("openrlhf.utils.vlm_utils", "process_prompt_with_images", "processor prompt images"),
        ("openrlhf.utils.utils", "get_tokenizer", "pretrain model padding_side strategy use_fast"),
        (
            "openrlhf.utils.agent",
            "SingleTurnAgentExecutor.execute",
            "self prompt label sampling_params max_length hf_tokenizer llm_engine images",
        ),
    ],
)
def test_openrlhf_has_what_the_evaluation_calls(module, name, parameters):
    function = __import__(module, fromlist=["_"])
    for part in name.split("."):
        function = getattr(function, part)
    assert list(inspect.signature(function).parameters) == parameters.split()


def test_vllm_s_offline_batch_sizes_can_be_asked_for():
    for sizes in engines.vllm.AsyncEngineArgs.get_batch_defaults(1):
        assert sizes[engines.UsageContext.LLM_CLASS] > 0


@pytest.mark.parametrize(("length", "tokens"), [(400, 4096), (8192, 4096)])
def test_a_cpu_engine_reads_each_prompt_at_once_since_its_random_numbers_can_not_be_rewound(length, tokens):
    with pytest.raises(RuntimeError, match="offset"):  # what vLLM calls for a prompt that it has read in part
        torch.Generator("cpu").get_offset()
    given = whole_prompts({"max_model_len": length, "max_num_batched_tokens": tokens})
    # Raises ValueError if a prompt of the model's length does not fit into a batch.
    config = SchedulerConfig(max_model_len=length, is_encoder_decoder=False, **given)
    assert not config.enable_chunked_prefill and config.max_num_batched_tokens == max(length, tokens)
    assert whole_prompts({"max_model_len": length}) == {"enable_chunked_prefill": False}


def test_response_j_has_the_seed_that_vllm_gives_to_its_own_j():
    from vllm.v1.engine.parallel_sampling import ParentRequest

    first = sample_seed(0, PROBLEM)
    requests = engines.requests_of(PROBLEM, "1+1=", SAMPLING, (0, 2), seed=0, max_len=20)
    parent = ParentRequest.__new__(ParentRequest)
    parent.sampling_params, parent.cached_child_sampling_params = engines.vllm.SamplingParams(n=3, seed=first), None
    for request, place in zip(requests, (0, 2), strict=True):
        assert request["sampling"]["seed"] == first + place == parent._get_child_sampling_params(place).seed


def test_the_prompt_is_the_one_of_training():
    tokenizer = build_tiny_tokenizer()
    assert engines.render(PROBLEM, tokenizer, False) == "1+1="
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}="
    chat = PROBLEM._replace(prompt=[{"role": "user", "content": "1+1"}])
    assert engines.render(chat, tokenizer, True) == "<user>1+1="
    assert engines.prompt_tokens("1+1=", tokenizer, ()) == 4


def test_a_missing_chat_template_is_said_with_the_problem_s_name():
    with pytest.raises(EvaluationError, match=r"s/1: .*chat.template"):
        engines.render(PROBLEM._replace(prompt=[{"role": "user", "content": "1"}]), build_tiny_tokenizer(), True)


class Executor:
    """Stands in for OpenRLHF's: answers `2`, takes time, and fails where it is told to."""

    def __init__(self, actor, scores=1.0, logs=None, fails=()):
        self.actor, self.scores, self.logs, self.fails, self.calls = actor, scores, logs or {}, fails, []

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images):
        self.calls.append((sampling_params, max_length, images))
        place = sampling_params.seed - sample_seed(0, PROBLEM)
        await asyncio.sleep(0.01 * place)
        if place in self.fails:
            raise OSError("the engine is gone")
        if self.scores is None and place != 2:
            self.actor.rewards.last_error = f"KeyError: sample {place}"
        prompt_ids, answer = hf_tokenizer(text=prompt)["input_ids"], hf_tokenizer(text="2")["input_ids"]
        log_probs = None if sampling_params.logprobs is None else [0.0] * 4 + [-0.5, -1.5]
        return {
            "observation_tokens": prompt_ids + answer + [hf_tokenizer.eos_token_id], "action_ranges": [(4, 6)],
            "rollout_log_probs": log_probs, "truncated": False, "scores": self.scores, "extra_logs": self.logs,
        }  # fmt: skip


def run(wanted=4, logprobs=True, **kwargs):
    """All samples of one problem through `exchange`, as the driver calls it."""

    async def all_of_them():
        actor = engines.RiskPOEvaluationActor.__new__(engines.RiskPOEvaluationActor)
        actor.executor = Executor(actor, **kwargs)
        actor.rewards = RewardCalls(actor.executor)
        await actor.begin(build_tiny_tokenizer())
        requests = engines.requests_of(PROBLEM, "1+1=", SAMPLING, range(wanted), seed=0, max_len=20, logprobs=logprobs)
        samples = []
        while len(samples) < wanted:
            try:
                samples += await actor.exchange(requests)
            except RuntimeError as error:
                return samples, str(error), actor.executor.calls
            requests = []
        return samples, None, actor.executor.calls

    return asyncio.run(all_of_them())


def test_a_sample_holds_its_answer_its_length_and_its_mean_log_probability():
    samples, _, calls = run(logs={"verifier/no_answer": 0.0})
    assert sorted(sample["sample"] for sample in samples) == [0, 1, 2, 3]
    assert samples[0] == {
        "datasource": "s", "id": "1", "sample": 0, "response": "2", "score": 1.0, "status": "ok", "tokens": 2,
        "truncated": False, "logprob": -1.0, "extra_logs": {"verifier/no_answer": 0.0},
    }  # fmt: skip
    params, max_len, images = calls[0]
    assert (params.temperature, params.top_p, params.max_tokens, params.n, max_len) == (0.6, 0.95, 8, 1, 20)
    assert images is None and len({params.seed for params, _, _ in calls}) == 4


def test_log_probabilities_can_be_left_out():
    samples, _, _ = run(logprobs=False)
    assert {sample["logprob"] for sample in samples} == {None}


@pytest.mark.parametrize(
    ("score", "log", "status", "stored"),
    [
        (0.0, "verifier/no_answer", "no_answer", 0.0),
        (0.0, "verifier/unparsable", "unparsable", 0.0),
        (math.nan, "verifier/timeout", "timeout", None),
        ([1.0], "other", "ok", 1.0),
        (math.nan, "other", "error", None),
    ],
)
def test_the_status_is_the_verifier_s(score, log, status, stored):
    samples, _, _ = run(1, scores=score, logs={log: 1.0})
    assert (samples[0]["status"], samples[0]["score"]) == (status, stored)
    assert status in STATUSES


def test_a_reward_function_s_error_stays_with_its_sample():
    samples, _, _ = run(scores=None)
    errors = {sample["sample"]: sample["error"] for sample in samples}
    assert errors == {i: "no reward came" if i == 2 else f"KeyError: sample {i}" for i in range(4)}
    assert {sample["status"] for sample in samples} == {"error"}


def test_what_was_done_before_an_engine_died_comes_before_its_error():
    samples, error, _ = run(fails=(3,))
    assert sorted(sample["sample"] for sample in samples) == [0, 1, 2]
    assert error == "OSError: the engine is gone"


def test_more_engines_than_gpus_are_refused_instead_of_waited_for(monkeypatch):
    monkeypatch.setattr(engines.ray, "cluster_resources", lambda: {"GPU": 1.0})
    with pytest.raises(EvaluationError, match="needs 4 GPUs, and Ray has 1"):
        args = SimpleNamespace(num_engines=2, tensor_parallel_size=2)
        engines.start_engines(args, None, max_len=8, reward=["r.py"], images=0)


def test_every_problem_goes_to_one_engine_and_engines_share_the_load(monkeypatch):
    class Engine:
        def __init__(self):
            self.seen, self.waiting, self.exchange = [], [], SimpleNamespace(remote=self.answer)

        def answer(self, requests):
            self.seen.append([request["key"] for request in requests])
            self.waiting += [request["key"] for request in requests]
            done, self.waiting = self.waiting[:3], self.waiting[3:]
            return (id(self), len(self.seen), tuple(done))

    monkeypatch.setattr(engines.ray, "wait", lambda references, num_returns: (references[:1], references[1:]))
    monkeypatch.setattr(engines.ray, "get", lambda reference: list(reference[2]))
    monkeypatch.setattr(engines, "IN_FLIGHT", 8)
    pair = [Engine(), Engine()]
    problems = [[{"key": ("s", str(i), j)} for j in range(4)] for i in range(10)]
    done = [key for keys in engines.generate(pair, problems) for key in keys]
    assert sorted(done) == sorted(request["key"] for requests in problems for request in requests)
    homes = [{key[1] for call in engine.seen for key in call} for engine in pair]
    assert not homes[0] & homes[1] and all(len(home) >= 3 for home in homes)
