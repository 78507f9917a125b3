"""Rewards to advantages inside OpenRLHF's experiences."""

import copy
import itertools
import logging
from types import SimpleNamespace

import pytest
import torch
from openrlhf.models.utils import compute_reward
from openrlhf.trainer.ppo_utils.experience import Experience, balance_experiences
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
from PIL import Image

from riskpo_openrlhf.config import FIXED_BY_RELEASED, KNOBS, RiskPOConfig
from riskpo_openrlhf.core.estimator import RiskPOEstimator
from riskpo_openrlhf.integration.experience_maker import YARDSTICK, RiskPOExperienceMaker
from riskpo_openrlhf.integration.faults import RunFault
from riskpo_openrlhf.integration.samples import RiskPOSamplesGenerator, VerifierError

GROUP, PROMPTS, TOKENS = 4, 12, 7


def make_args(**changes):
    args = SimpleNamespace(
        train=SimpleNamespace(seed=3, dynamic_batch_enable=False, agent_func_path=None, full_determinism_enable=False),
        riskpo=SimpleNamespace(reward_timeout=600.0, max_restarts=0, max_steps=None, eval_max_new_tokens=None),
        rollout=SimpleNamespace(
            n_samples_per_prompt=GROUP, batch_size=PROMPTS, max_new_tokens=TOKENS, micro_batch_size=2,
        ),
        reward=SimpleNamespace(
            remote_url=["reward.py"], clip_range=(-10, 10), overlong_buffer_len=None, overlong_penalty_factor=1.0,
            stop_properly_penalty_coef=None,
        ),
        algo=SimpleNamespace(
            advantage=SimpleNamespace(estimator="riskpo", gamma=1.0, no_std_norm=False, is_correction_level="off"),
            kl=SimpleNamespace(use_loss=False, init_coef=0.0), dynamic_filtering_enable=False,
            dynamic_filtering_range=(0, 1),
        ),
        actor=SimpleNamespace(num_nodes=1, num_gpus_per_node=2, policy_loss_type="riskpo"),
        ds=SimpleNamespace(ring_attn_size=1, tensor_parallel_size=1, zero_stage=3),
        data=SimpleNamespace(max_len=64),
    )  # fmt: skip
    for path, value in changes.items():
        *groups, name = path.split("__")
        node = args
        for group in groups:
            node = getattr(node, group)
        setattr(node, name, value)
    return args


def flags_of(config):
    """`args.algo.riskpo` of a configuration, as `arguments.resolve` leaves it."""
    fixed = FIXED_BY_RELEASED if config.released else ()
    knobs = {knob.name: None if knob.name in fixed else getattr(config, knob.name) for knob in KNOBS}
    return SimpleNamespace(preset=f"released-{config.released}" if config.released else "paper", **knobs)


def make_maker(config=None, kl=0.0, args=None, cls=RiskPOExperienceMaker):
    args = args or make_args()
    args.algo.riskpo = flags_of(config or RiskPOConfig())
    reference = object() if kl else None  # only its presence is asked for
    return cls(None, None, None, reference, FixedKLController(kl), SimpleNamespace(args=args), None)


def make_experiences(scores, micro_batch=5, order=None, kl=None, lengths=None, **fields):
    """One experience for each micro-batch; `scores` [prompts, group], `order`: where each response stands."""
    n = scores.numel()
    order = torch.arange(n) if order is None else order
    lengths = torch.arange(n) % TOKENS + 1 if lengths is None else lengths
    experiences = []
    for index in order.split(micro_batch):
        mask = torch.arange(TOKENS).expand(len(index), -1) < lengths[index, None]
        flat = scores.reshape(-1)[index]
        experiences.append(
            Experience(
                index=index.tolist(),
                action_mask=mask,
                rewards=flat.nan_to_num(0.0),
                scores=flat,
                response_length=lengths[index],
                truncated=torch.zeros(len(index), dtype=torch.bool),
                total_length=lengths[index] + 3,
                prompts=[f"prompt {i // GROUP}" for i in index.tolist()],
                labels=[str(i // GROUP) for i in index.tolist()],
                images=[None] * len(index),
                kl=torch.zeros(len(index), TOKENS) if kl is None else kl[index],
                info={"reward": flat.nan_to_num(0.0)},
                **{name: [value[i] for i in index.tolist()] for name, value in fields.items()},
            )
        )
    return experiences


def in_order(experiences, name="advantages"):
    index = torch.tensor(list(itertools.chain.from_iterable(e.index for e in experiences)))
    values = torch.cat([e.info[name] if name in e.info else getattr(e, name) for e in experiences])
    return values[index.argsort()]


def random_scores(seed=0):
    return torch.rand(PROMPTS, GROUP, generator=torch.Generator().manual_seed(seed)).round()


def prompt_keys():
    return [f"prompt {i}\x1f{i}\x1fNone" for i in range(PROMPTS)]


def expected_advantages(scores, config, step=0, valid=None):
    return RiskPOEstimator(config, seed=3).step(scores, step, valid, prompt_keys()).advantages.reshape(-1)


@pytest.mark.parametrize("preset", ["paper", "recommended", "released-dapo"])
def test_every_response_token_gets_the_estimators_advantage_and_padding_gets_none(preset):
    config, scores = RiskPOConfig.preset(preset), random_scores()
    experiences = make_maker(config).compute_advantages_and_returns(make_experiences(scores))
    mask = in_order(experiences, "action_mask")
    torch.testing.assert_close(in_order(experiences), expected_advantages(scores, config)[:, None] * mask)
    torch.testing.assert_close(in_order(experiences, "return"), expected_advantages(scores, config))
    assert all(e.kl is None for e in experiences)


@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_no_micro_batch_takes_the_whole_rollouts_values_along_when_it_is_pickled(kl):
    experiences = make_maker(kl=kl).compute_advantages_and_returns(make_experiences(random_scores()))
    for name in ("advantages", "returns"):
        assert all(getattr(e, name).untyped_storage().nbytes() == getattr(e, name).nbytes for e in experiences)
    for name in ("group_reward_std", "return"):
        assert all(e.info[name].untyped_storage().nbytes() == e.info[name].nbytes for e in experiences)


def test_micro_batches_may_come_in_any_order():
    scores, shuffled = random_scores(), torch.randperm(PROMPTS * GROUP, generator=torch.Generator().manual_seed(1))
    plain = make_maker().compute_advantages_and_returns(make_experiences(scores))
    mixed = make_maker().compute_advantages_and_returns(make_experiences(scores, micro_batch=7, order=shuffled))
    torch.testing.assert_close(in_order(plain), in_order(mixed))


def test_arrival_order_of_prompts_does_not_matter():
    scores, arrival = random_scores(), torch.randperm(PROMPTS, generator=torch.Generator().manual_seed(2))
    plain = make_maker().compute_advantages_and_returns(make_experiences(scores, lengths=torch.full((48,), 3)))
    late = make_experiences(scores[arrival], lengths=torch.full((48,), 3))
    for experience in late:
        experience.prompts = [f"prompt {arrival[i // GROUP]}" for i in experience.index]
        experience.labels = [str(arrival[i // GROUP].item()) for i in experience.index]
    make_maker().compute_advantages_and_returns(late)
    by_prompt = in_order(late).view(PROMPTS, GROUP, TOKENS)[arrival.argsort()]
    torch.testing.assert_close(by_prompt, in_order(plain).view(PROMPTS, GROUP, TOKENS))


@pytest.mark.parametrize("preset", ["paper", "recommended", "released-dapo"])
@pytest.mark.parametrize("micro_batch", [1, 7, PROMPTS * GROUP])
def test_tracker_and_metrics_are_equal_to_the_bit_whatever_the_ranks_and_the_order_of_arrival(preset, micro_batch):
    # More ranks or engines mean other micro-batches, and groups that arrive in another order. Nothing else.
    config = RiskPOConfig.preset(preset)
    plain, other = make_maker(config), make_maker(config)
    lengths = torch.full((PROMPTS * GROUP,), 3)
    for step in range(4):
        scores, random = random_scores(step), torch.Generator().manual_seed(100 + step)
        plain.step = other.step = step
        plain.compute_advantages_and_returns(make_experiences(scores, lengths=lengths))
        arrival = torch.randperm(PROMPTS, generator=random)
        order = torch.randperm(PROMPTS * GROUP, generator=random)
        late = make_experiences(scores[arrival], micro_batch, order, lengths=lengths)
        for experience in late:
            experience.prompts = [f"prompt {arrival[i // GROUP]}" for i in experience.index]
            experience.labels = [str(arrival[i // GROUP].item()) for i in experience.index]
        other.compute_advantages_and_returns(late)
        assert other.risk_estimator.state_dict() == plain.risk_estimator.state_dict()
        assert {k: v for k, v in other.metrics.items() if "/" in k} == {
            k: v for k, v in plain.metrics.items() if "/" in k
        }
        assert any(name.startswith("riskpo/") for name in plain.metrics)


def test_kl_in_the_reward_matches_openrlhfs_token_loop():
    scores, kl = random_scores(), torch.randn(PROMPTS * GROUP, TOKENS, generator=torch.Generator().manual_seed(4))
    maker = make_maker(kl=0.3)
    experiences = maker.compute_advantages_and_returns(make_experiences(scores, kl=kl))
    mask = in_order(experiences, "action_mask")
    reward = compute_reward(expected_advantages(scores, maker.config), 0.3, kl, action_mask=mask)
    theirs = RemoteExperienceMaker.get_cumulative_returns(maker, reward, mask, 1.0)
    torch.testing.assert_close(in_order(experiences) * mask, theirs * mask)
    torch.testing.assert_close(in_order(experiences, "return"), (reward * mask).sum(-1))


def test_kl_as_loss_leaves_the_advantage_alone():
    scores, args = random_scores(), make_args(algo__kl__use_loss=True)
    experiences = make_maker(kl=0.3, args=args).compute_advantages_and_returns(make_experiences(scores))
    torch.testing.assert_close(in_order(experiences)[:, 0], expected_advantages(scores, RiskPOConfig()))


def test_openrlhfs_reward_clip_never_touches_advantages():
    scores = random_scores() * 100
    config = RiskPOConfig()
    args = make_args(reward__clip_range=(-0.01, 0.01))
    experiences = make_maker(config, args=args).compute_advantages_and_returns(make_experiences(scores))
    torch.testing.assert_close(in_order(experiences)[:, 0], expected_advantages(scores, config))
    assert in_order(experiences).abs().max() > 1


@pytest.mark.parametrize(
    "penalty", [{"reward__overlong_buffer_len": 4.0}, {"reward__stop_properly_penalty_coef": -0.5}]
)
def test_length_penalties_enter_the_advantage_and_never_the_statistics(penalty):
    config, scores = RiskPOConfig(shaped_rewards=True), random_scores()
    experiences = make_experiences(scores)
    for experience in experiences:
        experience.truncated = experience.response_length == TOKENS
    maker = make_maker(config, args=make_args(**penalty))
    maker.compute_advantages_and_returns(experiences)
    length = (torch.arange(PROMPTS * GROUP) % TOKENS + 1).float()
    if "reward__overlong_buffer_len" in penalty:
        shaping = -(length - 3).clamp(min=0) / 4
    else:
        shaping = torch.where(length == TOKENS, -0.5 - scores.reshape(-1), 0.0)
    shaping = shaping.view(PROMPTS, GROUP)
    centred = (shaping - shaping.mean(-1, keepdim=True)).reshape(-1)
    torch.testing.assert_close(in_order(experiences)[:, 0], expected_advantages(scores, config) + centred)
    plain = make_maker(config)
    plain.compute_advantages_and_returns(make_experiences(scores))
    assert maker.metrics == plain.metrics


def test_a_response_without_a_verdict_gets_no_advantage_and_is_counted():
    scores = random_scores()
    scores[2, 1] = scores[5, 3] = torch.nan
    maker = make_maker()
    experiences = maker.compute_advantages_and_returns(make_experiences(scores))
    advantages = in_order(experiences).view(PROMPTS, GROUP, TOKENS)
    assert (advantages[2, 1] == 0).all() and (advantages[5, 3] == 0).all()
    assert torch.isfinite(advantages).all()
    assert maker.metrics["verifier/error_share"] == pytest.approx(2 / 48)
    # group_reward_std is of the verdicts alone
    expected = scores.nan_to_num(2.0)
    for i, row in enumerate(expected):
        kept = row[row <= 1]
        torch.testing.assert_close(in_order(experiences, "group_reward_std").view(PROMPTS, GROUP)[i, 0], kept.std())


def test_a_reward_models_nan_never_reaches_the_logs():
    scores = random_scores()
    scores[2, 1] = torch.nan
    experiences = make_experiences(scores)
    for experience in experiences:
        experience.rewards, experience.scores = experience.scores, None
        experience.info["reward"] = experience.rewards
    make_maker().compute_advantages_and_returns(experiences)
    for experience in experiences:
        assert experience.rewards.isfinite().all()
        for value in experience.info.values():
            assert torch.isfinite(value).all()


def test_too_many_non_finite_rewards_of_a_reward_model_stop_the_job():
    scores = random_scores()
    scores[:4] = torch.nan
    maker = make_maker()
    maker.reward_model_group = object()  # only its presence is asked for
    with pytest.raises(VerifierError, match=r"16 of 48 .*max_error_share 0\.2.*the reward model's are not finite"):
        maker.compute_advantages_and_returns(make_experiences(scores))


def test_a_reward_models_scores_are_its_rewards():
    scores = random_scores() + 0.5
    experiences = make_experiences(scores)
    for experience in experiences:
        experience.scores = None
    make_maker().compute_advantages_and_returns(experiences)
    torch.testing.assert_close(in_order(experiences)[:, 0], expected_advantages(scores, RiskPOConfig()))


def test_the_step_draws_the_bundles_and_the_tracker_lives_in_the_maker():
    scores, maker = random_scores(), make_maker()
    first = in_order(maker.compute_advantages_and_returns(make_experiences(scores)))
    before = maker.risk_estimator.state_dict()["tracker"]
    maker.step = 1
    second = in_order(maker.compute_advantages_and_returns(make_experiences(scores)))
    assert not torch.equal(first, second)
    assert maker.risk_estimator.state_dict()["tracker"] != before


def test_other_estimators_pass_through_untouched():
    scores, args = random_scores(), make_args(algo__advantage__estimator="group_norm")
    ours = make_maker(args=args).compute_advantages_and_returns(make_experiences(scores))
    theirs = make_maker(args=args, cls=RemoteExperienceMaker).compute_advantages_and_returns(make_experiences(scores))
    torch.testing.assert_close(in_order(ours), in_order(theirs), rtol=0, atol=0)


def test_the_tail_and_the_signal_are_measured_alike_for_every_estimator_and_setting():
    scores = random_scores()
    measured = []
    for maker in (
        make_maker(),
        make_maker(RiskPOConfig.preset("recommended")),
        make_maker(args=make_args(algo__advantage__estimator="group_norm")),
    ):
        maker.compute_advantages_and_returns(make_experiences(scores))
        measured.append({k: v for k, v in maker.metrics.items() if k.startswith(("risk/", "signal/"))})
    assert measured[0] == measured[1] == measured[2]
    assert {"risk/mvar", "risk/rvar_lower", "signal/prompts_all_wrong"} <= measured[0].keys()
    own = RiskPOEstimator(YARDSTICK, seed=3).step(scores, 0, None, prompt_keys()).metrics
    assert measured[0]["risk/rvar_lower"] == own["riskpo/rvar_lower"]


def test_dynamic_batching_keeps_each_responses_advantage():
    scores = random_scores()
    experiences = make_experiences(scores)
    for experience in experiences:
        size = len(experience.index)
        experience.sequences = torch.arange(size * (TOKENS + 1)).view(size, -1)
        experience.info["place"] = torch.tensor(experience.index, dtype=torch.float)
    make_maker().compute_advantages_and_returns(experiences)
    want = in_order(experiences)
    balanced = balance_experiences(copy.deepcopy(experiences), make_args())
    got = torch.cat([e.advantages for e in balanced])
    place = torch.cat([torch.stack(list(e.info["place"])) for e in balanced]).long()
    assert len(balanced) == 2
    torch.testing.assert_close(got, want[place])


def test_images_are_part_of_the_prompt_and_processor_outputs_survive():
    scores = random_scores()
    images = [[f"{i // GROUP}.png"] for i in range(PROMPTS * GROUP)]
    pixels = [{"pixel_values": torch.full((1, 2), float(i))} for i in range(PROMPTS * GROUP)]
    experiences = make_experiences(scores, mm_train_inputs=pixels)
    for experience in experiences:
        experience.images = [images[i] for i in experience.index]
        experience.prompts = ["<image>What is shown?"] * len(experience.index)  # the same text for every picture
        experience.labels = ["a cube"] * len(experience.index)
        experience.sequences = torch.ones(len(experience.index), TOKENS + 1, dtype=torch.long)
    make_maker().compute_advantages_and_returns(experiences)
    keys = [f"<image>What is shown?\x1fa cube\x1f['{i}.png']" for i in range(PROMPTS)]
    want = RiskPOEstimator(RiskPOConfig(), seed=3).step(scores, 0, None, keys).advantages.reshape(-1)
    torch.testing.assert_close(in_order(experiences)[:, 0], want)
    assert [e["pixel_values"][0, 0].item() for x in experiences for e in x.mm_train_inputs] == list(range(48))


def test_bundles_are_equal_between_equal_runs_on_pictures():
    scores, advantages = random_scores(), []
    for _ in range(2):
        experiences = make_experiences(scores)
        for experience in experiences:
            experience.images = [[Image.new("L", (2, 2), i // GROUP)] for i in experience.index]
            experience.prompts = ["<image>What is shown?"] * len(experience.index)
            experience.labels = ["a cube"] * len(experience.index)
        advantages.append(in_order(make_maker().compute_advantages_and_returns(experiences)))
    torch.testing.assert_close(*advantages, rtol=0, atol=0)


@pytest.mark.parametrize("estimator", ["riskpo", "group_norm", "dr_grpo", "rloo"])
def test_an_advantage_that_is_not_finite_ends_the_run_whatever_the_estimator(estimator):
    scores, kl = random_scores(), torch.zeros(PROMPTS * GROUP, TOKENS)
    kl[7, 0] = torch.nan
    maker = make_maker(kl=0.3, args=make_args(algo__advantage__estimator=estimator))
    with pytest.raises(RunFault, match="advantages of 1 of 48 responses in step 1 are NaN"):
        maker.compute_advantages_and_returns(make_experiences(scores, kl=kl))


def test_a_reward_model_that_gives_nan_ends_the_run_of_another_estimator():
    experiences = make_experiences(random_scores())
    for experience in experiences:
        experience.rewards[0] = torch.nan
    maker = make_maker(args=make_args(algo__advantage__estimator="group_norm"))
    with pytest.raises(RunFault, match=f"rewards of {len(experiences)} of 48 responses in step 1"):
        maker.compute_advantages_and_returns(experiences)


def test_whether_a_rollout_has_a_signal_is_known_after_its_advantages():
    maker = make_maker(RiskPOConfig.preset("recommended"))
    for scores, signal in ((random_scores(), True), (torch.ones(PROMPTS, GROUP), False)):
        maker.compute_advantages_and_returns(make_experiences(scores))
        assert maker.signal is signal


def response(**changes):
    return {
        "prompt": "1+1=", "label": "2", "images": None, "mm_train_inputs": None, "observation_tokens": [5, 6, 7, 8],
        "action_ranges": [(2, 4)], "rollout_log_probs": None, "truncated": False, "reward": 1.0, "scores": 1.0,
        "extra_logs": {"parsed": 1.0}, **changes,
    }  # fmt: skip


class Engine:
    """Answers as a `RiskPORolloutActor` handle does."""

    class last_reward_error:
        @staticmethod
        def remote():
            return "ValueError: no such key"

    class begin_run:
        @staticmethod
        def remote(reward_timeout, replaceable):
            assert (reward_timeout, replaceable) == (600, False)


def make_generator(monkeypatch=None, responses=(), **changes):
    """A generator; its parent's vLLM part, if asked for, yields these responses as one rollout."""
    args = make_args(**changes)
    args.algo.riskpo = flags_of(RiskPOConfig())
    generator = RiskPOSamplesGenerator(SimpleNamespace(args=args), None, None, None, [Engine()])
    if monkeypatch is not None:
        monkeypatch.setattr("ray.get", lambda refs: refs)
        parent = "openrlhf.trainer.ppo_utils.samples_generator.SamplesGenerator."
        for name, wrap in (
            ("generate_samples", lambda x: (x, None, 1, False)),
            ("generate_eval_samples", lambda x: x),
        ):
            monkeypatch.setattr(
                parent + name,
                lambda self, wrap=wrap: wrap([self._process_response_into_experience(r) for r in responses]),
            )
    return generator


@pytest.mark.parametrize(
    "missing",
    [{"reward": None, "scores": None}, {"reward": float("nan")}, {"scores": float("inf")}],
    ids=["exception", "nan", "inf"],
)
def test_a_missing_or_non_finite_reward_is_no_verdict(missing):
    generator = make_generator()
    sample = generator._process_response_into_experience(response(**missing))
    assert torch.isnan(sample.scores).all() and (sample.rewards == 0).all()
    assert all(torch.isfinite(value).all() for value in sample.info.values())
    kept = generator._process_response_into_experience(response())
    assert kept.scores.item() == kept.rewards.item() == kept.info["parsed"].item() == 1.0


@pytest.mark.parametrize("scores", [{"scores": None}, {}], ids=["none", "absent"])
def test_an_agents_reward_without_scores_is_its_score(scores):
    given = response(reward=0.5)
    del given["scores"]
    sample = make_generator()._process_response_into_experience({**given, **scores})
    assert sample.scores.item() == sample.rewards.item() == 0.5


@pytest.mark.parametrize("one", [lambda x: [x], lambda x: torch.tensor([x]), lambda x: torch.tensor(x)])
def test_lists_and_tensors_of_one_number_merge_with_failed_verdicts(one):
    generator = make_generator()
    given = response(reward=one(1.0), scores=one(0.5), extra_logs={"parsed": one(1.0)})
    samples = [generator._process_response_into_experience(r) for r in (given, response(reward=None, scores=None))]
    merged = Experience.concat_experiences(samples, 0)
    assert merged.rewards.tolist() == [1.0, 0.0]
    assert merged.scores[0] == 0.5 and merged.scores[1].isnan()
    assert merged.info["parsed"].tolist() == [1.0, 1.0] and merged.info["score"].tolist() == [0.5, 0.0]


@pytest.mark.parametrize(
    "junk", ["right", [1.0, 0.0], {"a": 1}, torch.zeros(2)], ids=["text", "two", "dict", "tensor"]
)
def test_what_is_no_number_is_no_verdict(junk):
    sample = make_generator()._process_response_into_experience(response(reward=junk))
    assert sample.scores.isnan().all() and (sample.rewards == 0).all()


def test_to_other_estimators_a_missing_verdict_is_a_wrong_answer_and_too_many_stop_the_job(monkeypatch):
    other = dict(algo__advantage__estimator="group_norm")
    failed = response(reward=None, scores=None)
    sample = make_generator(**other)._process_response_into_experience(failed)
    assert sample.scores.item() == sample.rewards.item() == 0.0
    with pytest.raises(VerifierError, match="3 of 10 responses"):
        make_generator(monkeypatch, [failed] * 3 + [response()] * 7, **other).generate_samples()


def test_rewards_for_a_reward_model_to_fill_stay_open():
    generator = make_generator(reward__remote_url=None)
    sample = generator._process_response_into_experience(response(reward=None, scores=None))
    assert sample.rewards is None and sample.scores is None


def test_logs_of_any_shape_and_other_keys_from_response_to_response_merge(monkeypatch):
    logs = [
        None,
        {"a": "text"},
        {"b": {"c": 1}},
        [1],
        torch.ones(3),
        {"reward": 5.0},
        {"kl": 1.0, "a": 2},
        {},
        "x",
        {3: 4},
    ]
    generator = make_generator(monkeypatch, [response(extra_logs=one) for one in logs])
    samples, *_ = generator.generate_samples()
    merged = Experience.concat_experiences(samples, 0)
    assert merged.info["b/c"].tolist() == [0.0, 0.0, 1.0] + [0.0] * 7
    assert merged.info["reward"].tolist() == [1.0] * 10 and merged.info["extra_logs/reward"].sum() == 5
    assert merged.info["a"].sum() == 2 and "kl" not in merged.info


def test_the_generator_tells_when_dynamic_filtering_kept_nothing(monkeypatch):
    filtered = dict(algo__dynamic_filtering_enable=True)
    generator = make_generator(monkeypatch, [response()] * 2 * PROMPTS * GROUP, **filtered)
    generator.generate_samples()
    assert "every score is 1" in generator.nothing_kept().cause
    generator = make_generator(monkeypatch, [response(scores=0.0), response()] * PROMPTS * GROUP, **filtered)
    generator.generate_samples()
    assert generator.nothing_kept() is None
    generator = make_generator(monkeypatch, [response()] * PROMPTS * GROUP, **filtered)
    generator.generate_eval_samples()
    assert generator.nothing_kept() is None  # an evaluation is not filtered
    assert make_generator(monkeypatch, [response()] * 10).nothing_kept() is None


def test_every_sample_carries_the_same_log_keys_in_one_order(monkeypatch):
    failed = response(reward=None, scores=None, extra_logs={})
    generator = make_generator(monkeypatch, [failed, *[response()] * 9])
    samples, *_ = generator.generate_samples()
    assert list(samples[0].info) == list(samples[1].info) == sorted(samples[1].info)
    merged = Experience.concat_experiences(samples, 0)
    assert merged.info["parsed"].tolist() == [0.0] + [1.0] * 9


@pytest.mark.parametrize("kind", ["generate_samples", "generate_eval_samples"])
def test_too_many_missing_verdicts_stop_the_job_with_the_verifiers_own_error(monkeypatch, kind):
    failed = response(reward=None, scores=None)
    message = r"3 of 10 responses .*max_error_share 0\.2.*ValueError: no such key"
    with pytest.raises(VerifierError, match=message):
        getattr(make_generator(monkeypatch, [failed] * 3 + [response()] * 7), kind)()
    getattr(make_generator(monkeypatch, [failed] * 2 + [response()] * 8), kind)()


def test_responses_that_dynamic_filtering_dropped_count_too(monkeypatch):
    generator = make_generator(monkeypatch, [response(reward=None, scores=None)] * 5)
    made = SamplesGenerator.generate_samples
    monkeypatch.setattr(SamplesGenerator, "generate_samples", lambda self: ([], *made(self)[1:]))
    with pytest.raises(VerifierError, match="5 of 5 responses"):
        generator.generate_samples()


@pytest.mark.parametrize("kind", ["generate_samples", "generate_eval_samples"])
@pytest.mark.parametrize("failing", [[0], [48], range(48, 52)])
def test_one_missing_verdict_in_more_than_a_rollouts_worth_stops_nothing_wherever_it_comes(kind, failing, monkeypatch):
    failed = response(reward=None, scores=None)
    responses = [failed if i in failing else response() for i in range(PROMPTS * GROUP + GROUP)]
    generator = make_generator(monkeypatch, responses, algo__dynamic_filtering_enable=True)
    for _ in range(2):
        getattr(generator, kind)()


def test_in_an_evaluation_a_missing_verdict_is_left_out_by_every_estimator(monkeypatch):
    failed = response(reward=None, scores=None)
    for estimator in ("riskpo", "group_norm"):
        responses, changes = [failed, *[response()] * 9], {"algo__advantage__estimator": estimator}
        samples = make_generator(monkeypatch, responses, **changes).generate_eval_samples()
        assert samples[0].scores.isnan().all() and samples[0].rewards.isfinite().all()


def test_a_verifier_that_always_fails_stops_dynamic_filtering_after_one_rollouts_worth(monkeypatch):
    generator, failed = make_generator(monkeypatch), response(reward=None, scores=None)
    for _ in range(PROMPTS * GROUP - 1):
        generator._process_response_into_experience(failed)
    with pytest.raises(VerifierError, match="48 of 48 responses"):
        generator._process_response_into_experience(failed)


def test_the_papers_formula_warns_at_a_weak_start(caplog):
    scores = torch.zeros(PROMPTS, GROUP)
    scores[0] = 1.0
    with caplog.at_level(logging.WARNING, logger="riskpo_openrlhf"):
        make_maker(RiskPOConfig.preset("recommended")).compute_advantages_and_returns(make_experiences(scores))
        assert not caplog.records
        make_maker().compute_advantages_and_returns(make_experiences(scores))
    assert "preset recommended" in caplog.text


@pytest.mark.parametrize(("micro", "kept"), [(2, 4), (4, 0)])
def test_a_last_rollout_that_ranks_can_not_share_is_left_out_and_is_no_step(micro, kept, monkeypatch):
    changes = {"algo__dynamic_filtering_enable": True, "rollout__micro_batch_size": micro}
    generator = make_generator(monkeypatch, [response()] * GROUP, **changes)
    samples, *_ = generator.generate_samples()
    assert len(samples) == kept and generator.step_limit.steps == bool(kept)
