"""Sizes that ranks can share out equally: the rule against OpenRLHF's own code that shares them out."""

import random
import re
from types import SimpleNamespace

import pytest
import torch
from openrlhf.trainer.ppo_utils.experience import Experience, balance_experiences
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ray import launcher
from openrlhf.utils.config import hierarchize

from riskpo_openrlhf.integration.check_sizes import _batches, fault, size_notes, size_problems, whole_groups

BASE = {
    "actor.num_nodes": 1, "actor.num_gpus_per_node": 1, "ref.num_nodes": 1, "ref.num_gpus_per_node": 1,
    "critic.num_nodes": 1, "critic.num_gpus_per_node": 1, "reward.num_nodes": 1, "reward.num_gpus_per_node": 1,
    "ds.ring_attn_size": 1, "ds.tensor_parallel_size": 1, "ds.zero_stage": 3, "ds.lora.rank": 0,
    "ds.zpg": 1,
    "algo.kl.init_coef": 0.0, "algo.advantage.estimator": "riskpo", "algo.dynamic_filtering_enable": False,
    "reward.remote_url": ["riskpo"], "train.agent_func_path": None, "reward.overlong_buffer_len": None,
    "train.dynamic_batch_enable": False, "train.colocate_all": False, "train.async_enable": False,
    "train.colocate_actor_ref": False, "train.colocate_critic_reward": False, "train.async_queue_size": 1,
    "rollout.batch_size": 12, "rollout.n_samples_per_prompt": 4, "rollout.micro_batch_size": 8,
    "rollout.max_tokens_per_gpu": 64, "rollout.max_new_tokens": 6, "rollout.vllm_generate_batch_size": None,
    "train.batch_size": 24, "train.micro_batch_size": 4, "train.num_episodes": 1, "train.max_epochs": 1,
    "vllm.num_engines": 1, "vllm.tensor_parallel_size": 1, "data.max_len": 48, "data.max_samples": 10**8,
    "logger.logging_steps": 1, "eval.n_samples_per_prompt": 1, "eval.steps": -1, "ckpt.save_steps": -1,
}  # fmt: skip


class Rank:
    """Counts what OpenRLHF hands to one rank, by method."""

    def __init__(self):
        self.got = {}
        self.execute_batch = SimpleNamespace(remote=self.call)

    def call(self, method, chunk, start, end):
        self.got[method] = [one for values in chunk.values() for one in values][: max(0, end - start)]


def shared_out(values: dict, responses: int, monkeypatch) -> tuple[list[int], list[int]] | None:
    """Share a rollout out by OpenRLHF's own code: forward calls and micro-batches of training for each rank.

    Returns None if OpenRLHF refuses it.
    """
    args = hierarchize(SimpleNamespace(**values))
    maker = RemoteExperienceMaker.__new__(RemoteExperienceMaker)
    maker.args, maker.strategy = args, SimpleNamespace(args=args)
    maker.tokenizer = SimpleNamespace(pad_token_id=0)
    lengths = random.Random(responses).choices(range(2, 9), k=responses)
    samples = [
        Experience(
            sequences=torch.ones(1, n, dtype=torch.long), attention_mask=torch.ones(1, n, dtype=torch.long),
            action_mask=torch.ones(1, n - 1, dtype=torch.bool), total_length=torch.tensor([float(n)]),
            prompts=[""], labels=[""], images=[None], info={"reward": torch.zeros(1)},
        )
        for n in lengths
    ]  # fmt: skip
    ranks = values["actor.num_nodes"] * values["actor.num_gpus_per_node"]
    group = launcher.RayActorGroup.__new__(launcher.RayActorGroup)
    group._actor_handlers = [Rank() for _ in range(ranks)]
    group.duplicate_actors = values["ds.ring_attn_size"] * values["ds.tensor_parallel_size"]
    monkeypatch.setattr(launcher.ray, "put", lambda value: value)
    try:
        batches = maker.split_rollout_samples(samples)
        group.async_run_method_batch("forward", sequences=batches)
        if values["train.dynamic_batch_enable"]:
            batches = balance_experiences(batches, args)
        group.async_run_method_batch("append", experience=batches)
    except (ValueError, AssertionError):
        return None
    calls, micro = [], []
    data_ranks = ranks // group.duplicate_actors
    for rank in group._actor_handlers:
        held = sum(len(one.sequences) for one in rank.got["append"])
        calls.append(len(rank.got["forward"]))
        # NaiveReplayBuffer: whole micro-batches (drop_last), or the steps that fit
        unit = values["train.micro_batch_size"]
        whole = values["train.batch_size"] // data_ranks if values["train.dynamic_batch_enable"] else unit
        micro.append(held // whole)
    if values["train.dynamic_batch_enable"]:  # OpenRLHF takes the smallest number of steps of all ranks
        micro = [min(micro)] * len(micro)
    return calls, micro


def works(values, responses, monkeypatch) -> bool:
    shared = shared_out(values, responses, monkeypatch)
    return shared is not None and len(set(shared[0])) == 1 and len(set(shared[1])) == 1


@pytest.mark.parametrize("seed", range(8))
def test_no_size_that_passes_gives_ranks_unequal_work_and_few_that_are_refused_would_work(seed, monkeypatch):
    rng, refused, would_work = random.Random(seed), 0, 0
    for _ in range(60):
        values = {
            **BASE, "actor.num_gpus_per_node": rng.choice([1, 2, 3, 4, 8]),
            "rollout.micro_batch_size": rng.choice([1, 2, 4, 8]),
            "train.micro_batch_size": rng.choice([1, 2, 4]), "train.dynamic_batch_enable": rng.random() < 0.3,
        }  # fmt: skip
        responses = rng.randint(1, 12) * rng.choice([2, 4, 5])
        if not fault(values, responses):
            assert works(values, responses, monkeypatch), (values, responses)
        else:
            refused += 1
            would_work += works(values, responses, monkeypatch)
    # Refused although it works: ranks with unequal responses, of which whole micro-batches happen to be equal.
    assert refused > 10 and would_work <= 0.25 * refused


@pytest.mark.parametrize("seed", range(4))
def test_a_command_that_passes_makes_an_optimizer_step_in_every_full_rollout(seed, monkeypatch):
    rng, passed = random.Random(100 + seed), 0
    for _ in range(150):
        values = {
            **BASE, "actor.num_gpus_per_node": rng.choice([1, 2, 4]),
            "rollout.micro_batch_size": rng.choice([1, 2, 4, 8]),
            "train.micro_batch_size": rng.choice([1, 2, 4]), "train.batch_size": rng.choice([8, 12, 24, 48, 64]),
            "rollout.batch_size": rng.choice([6, 8, 12, 16]), "train.dynamic_batch_enable": rng.random() < 0.3,
        }  # fmt: skip
        if list(size_problems(values)):
            continue
        passed += 1
        responses = values["rollout.batch_size"] * values["rollout.n_samples_per_prompt"]
        _, micro = shared_out(values, responses, monkeypatch)
        window = values["train.batch_size"] // values["train.micro_batch_size"] // values["actor.num_gpus_per_node"]
        window = 1 if values["train.dynamic_batch_enable"] else window
        assert micro[0] >= window and micro[0] % window == 0, values
    assert passed > 15


@pytest.mark.parametrize("seed", range(4))
def test_a_training_batch_that_a_message_offers_fits_ranks_and_rollout(seed):
    rng, offered = random.Random(200 + seed), 0
    for _ in range(300):
        values = {
            **BASE, "actor.num_gpus_per_node": rng.choice([1, 2, 3, 5, 8]),
            "train.micro_batch_size": rng.choice([1, 2, 4]),
            "train.batch_size": rng.randint(1, 300), "rollout.batch_size": rng.randint(1, 40),
            "rollout.n_samples_per_prompt": rng.randint(1, 10), "train.dynamic_batch_enable": rng.random() < 0.3,
        }  # fmt: skip
        for problem in _batches(values):
            if found := re.search(r"take ([\d or]+?)(?: with --rollout.batch_size (\d+))?$", str(problem)):
                for batch in found[1].split(" or "):
                    offered += 1
                    prompts = int(found[2] or values["rollout.batch_size"])
                    taken = {**values, "train.batch_size": int(batch), "rollout.batch_size": prompts}
                    assert list(_batches(taken)) == [], (values, str(problem))
    assert offered > 100


WITH_REF = {"train.colocate_all": True, "algo.kl.init_coef": 0.01}
TWO = {"actor.num_gpus_per_node": 2}


@pytest.mark.parametrize(
    ("changes", "rows", "flag", "cure"),
    [
        ({**TWO, "rollout.micro_batch_size": 16}, None, "--rollout.micro_batch_size 16", "_batch_size 12"),
        (TWO, 27, "--data.max_samples", "Take --data.max_samples 24"),
        (TWO, 25, "--data.max_samples", "Take --data.max_samples 24"),
        ({"train.batch_size": 128, "data.max_samples": 24}, 24, "--train.batch_size 128", "Take at most 48"),
        ({"train.batch_size": 128, "rollout.batch_size": 64}, 10, "--data.prompt_dataset", "divides 40"),
        ({"train.batch_size": 20}, None, "--rollout.batch_size 12", "divides 48"),
        ({**TWO, "train.batch_size": 12}, None, "--train.batch_size 12", "take 8 or 16"),
        ({"actor.num_gpus_per_node": 8, "train.micro_batch_size": 1, "train.batch_size": 100,
          "rollout.batch_size": 32, "rollout.n_samples_per_prompt": 8}, None, "--train.batch_size 100",
         "take 64 or 128"),
        ({"actor.num_gpus_per_node": 5}, None, "--train.batch_size 24", "take 20 or 60 with --rollout.batch_size 15"),
        ({"rollout.vllm_generate_batch_size": 3}, None, "--rollout.vllm_generate_batch_size 3", "take at least 12"),
        ({"data.max_samples": 0}, 30, "--data.max_samples 0", "1 or more"),
        ({}, 0, "--data.prompt_dataset", "no row"),
        ({"train.dynamic_batch_enable": True, "ds.zero_stage": 2}, None, "--ds.zero_stage 2", "--ds.zero_stage 3"),
        ({"ds.lora.rank": 8}, None, "--ds.lora.rank 8", "Leave it out"),
        ({"actor.num_gpus_per_node": 3, "ds.zpg": 2}, None, "--ds.zpg 2", "take 1"),
        ({"vllm.num_engines": 0}, None, "--vllm.num_engines 0", "1 or more"),
        ({"ckpt.save_steps": 0}, None, "--ckpt.save_steps 0", "-1 for never"),
        ({"train.num_episodes": 0}, None, "--train.num_episodes 0", "1 or more"),
        ({**WITH_REF, "ref.num_gpus_per_node": 8}, None, "--train.colocate_all", "make them equal"),
        ({"train.colocate_all": True, "reward.remote_url": None, "reward.num_gpus_per_node": 8}, None,
         "--reward.num_gpus_per_node 8", "take at most 1"),
        ({"actor.num_gpus_per_node": 3, "ds.ring_attn_size": 2}, None, "--actor.num_gpus_per_node 3", "groups of"),
        ({"actor.num_gpus_per_node": 1, "ds.ring_attn_size": 2}, None, "--actor.num_gpus_per_node 1", "groups of"),
    ],
)  # fmt: skip
def test_each_kind_is_refused_for_every_estimator_with_sizes_that_work(changes, rows, flag, cure):
    for estimator in ("riskpo", "group_norm", "reinforce_baseline"):
        values = {**BASE, **changes, "algo.advantage.estimator": estimator}
        found = [str(problem) for problem in size_problems(values, rows)]
        assert found and found[0].startswith(flag) and cure in found[0], found


@pytest.mark.parametrize("rows", [24, 36, 28, 32, 20])
def test_the_sizes_that_a_message_names_work(rows):
    values = {**BASE, **TWO}
    for problem in size_problems(values, rows):
        assert problem.flag == "--data.max_samples"
        fixed = int(str(problem).rsplit(" ", 1)[1])
        assert list(size_problems({**values, "data.max_samples": fixed}, rows)) == []


def test_a_rollout_is_cut_to_whole_groups_that_can_be_shared_out(monkeypatch):
    values = {**BASE, **TWO}
    for responses in range(4, 49, 4):
        kept = whole_groups(values, responses)
        assert kept <= responses and kept % 4 == 0
        assert kept == 0 or works(values, kept, monkeypatch)
        assert kept >= responses - 12  # k x micro-batch is 16
    assert whole_groups(BASE, 28) == 28


def test_what_is_left_over_of_the_last_rollout_is_said():
    assert list(size_notes(BASE, 36)) == []
    (note,) = size_notes(BASE, 27)
    assert "12 of its 12 responses" in note and "--data.max_samples 24" in note
    assert list(size_notes(BASE, None)) == []
