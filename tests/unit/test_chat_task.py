"""The chat task of the plain loop: what it computes in fewer reads is what a model says that reads everything."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from riskpo_openrlhf.lab.tiny_model import build_tiny_tokenizer

PROMPTS = ["1+2=", "12+34=", "7*8="]


@pytest.fixture
def task(monkeypatch):
    """A task with a random model of two layers, whose heads share keys."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    task = object.__new__(importlib.import_module("chat_task").SmolLM2)
    task.tokenizer, task.tokens, task.responses, task.at_once = build_tiny_tokenizer(), 3, 4, 2
    task.tokenizer.padding_side, task.device = "left", "cpu"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(task.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.5, attn_implementation="grouped",
        eos_token_id=task.tokenizer.eos_token_id, pad_token_id=task.tokenizer.pad_token_id,
    )  # fmt: skip
    task.model = LlamaForCausalLM(config).eval()
    return task


def alone(task, prompt: str, tokens: list[int]) -> torch.Tensor:
    """The log-probabilities of a response that is read by itself."""
    ids = [*task.tokenizer(prompt).input_ids, *tokens]
    logits = task.model(input_ids=torch.tensor([ids])).logits[0, -len(tokens) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]


def test_a_prompt_read_once_gives_the_log_probabilities_and_gradients_of_each_response_read_alone(task):
    tokens, _ = task.sample(PROMPTS, task.responses)
    of = torch.tensor([0, 1, 3, 5, 8, 9])
    found = task.log_probs(PROMPTS, tokens, of)
    found.sum().backward()
    gradients = [p.grad.clone() for p in task.model.parameters()]
    task.model.zero_grad()
    written = sys.modules["chat_task"].written(tokens, task.tokenizer)
    for row, i in zip(found, of.tolist(), strict=True):
        expected = alone(task, PROMPTS[i // task.responses], tokens[i][written[i]].tolist())
        expected.sum().backward()
        torch.testing.assert_close(row[: len(expected)], expected, atol=1e-5, rtol=1e-4)
        assert not row[len(expected) :].any()
    for p, gradient in zip(task.model.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient, atol=1e-4, rtol=1e-3)


def test_responses_are_drawn_from_the_model_and_end_at_the_end_token(task):
    many = 3000
    tokens, logged = task.sample(PROMPTS, many)
    written = sys.modules["chat_task"].written(tokens, task.tokenizer)
    assert (tokens[~written] == task.tokenizer.eos_token_id).all()
    assert logged["rollout/response_length_mean"] == pytest.approx(written.sum(1).double().mean().item())
    for number, prompt in enumerate(PROMPTS):
        logits = task.model(input_ids=torch.tensor([task.tokenizer(prompt).input_ids])).logits[0, -1]
        chances = logits.softmax(-1)
        seen = torch.bincount(tokens[number * many : (number + 1) * many, 0], minlength=len(chances)) / many
        assert ((seen - chances).abs() < 5 * (chances * (1 - chances) / many).sqrt() + 1e-3).all()


def test_tokens_drawn_after_ended_responses_left_have_the_entropy_that_is_logged(task):
    task.tokens, task.responses = 12, 20
    prompts = PROMPTS * 20
    tokens, logged = task.sample(prompts, task.responses)
    mask = sys.modules["chat_task"].written(tokens, task.tokenizer)
    assert mask[:, -1].double().mean() < 0.8  # they left
    with torch.no_grad():
        surprise = -task.log_probs(prompts, tokens, torch.arange(len(tokens)))[mask].double()
    # The mean surprise of what is drawn is the entropy.
    assert abs(surprise.mean() - logged["entropy"]) < 5 * surprise.std() / len(surprise) ** 0.5


def test_an_update_has_every_response_whose_advantage_is_not_0_once_and_counts_the_others(task):
    A = torch.tensor([1.0, 0, 0, -1, 0, 0, 0, 0, 2, 2, 2, 2, -1, 0, 0, 0])[:, None]
    updates = list(task.batches(A))
    assert [count for count, _ in updates] == [8, 8]
    rows = torch.cat([of for _, batches in updates for of in batches])
    assert sorted(rows.tolist()) == A[:, 0].nonzero()[:, 0].tolist()
    for _, batches in updates:
        assert all(len(set((of // task.responses).tolist())) <= task.at_once for of in batches)
