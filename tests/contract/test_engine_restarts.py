"""Engines that die are replaced, and the rollout is made again: the driver's half, without engines."""

from itertools import islice
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from riskpo_openrlhf.integration import engine_restarts
from riskpo_openrlhf.integration.engine_restarts import BROKEN, KNOWN, NEW, Engines, Replay, is_a_death, replaceable
from riskpo_openrlhf.integration.samples import RiskPOSamplesGenerator

DEAD_CORE = RayTaskError("generate", "EngineDeadError: EngineCore encountered an issue", ValueError())


@given(st.lists(st.integers(0, 12), max_size=5))
def test_a_replay_gives_what_it_gave_once_more_and_nothing_twice(draws):
    source = iter(range(100))
    replay, most = Replay(source), 0
    for count in draws:
        replay.begin_again()
        assert list(islice(replay, count)) == list(range(count))
        most = max(most, count)
    assert next(source) == most


def test_engines_are_replaced_only_where_the_driver_notices_their_death():
    def args(restarts, asynchronous, with_ray):
        return SimpleNamespace(
            riskpo=SimpleNamespace(max_restarts=restarts), train=SimpleNamespace(async_enable=asynchronous),
            vllm=SimpleNamespace(sync_with_ray=with_ray),
        )  # fmt: skip

    assert replaceable(args(1, False, False))
    assert not any(map(replaceable, (args(0, False, False), args(1, True, False), args(1, False, True))))


@pytest.fixture
def generator(monkeypatch):
    """A generator whose parent's rollout takes two prompts and then does what `outcomes` says."""
    found = object.__new__(RiskPOSamplesGenerator)
    found._responses, found._failed, found.filter_watch, found._pending = 7, 1, None, []
    found.outcomes, found.calls = [], []

    def rollout(self, dataloader_iter, **more):
        prompts = list(islice(dataloader_iter, 2))
        self.calls.append(prompts)
        self._responses += 2
        self._pending.append(f"ref {len(self.calls)}")
        if isinstance(outcome := self.outcomes.pop(0), Exception):
            raise outcome
        return prompts, 2, False

    monkeypatch.setattr(SamplesGenerator, "_generate_vllm", rollout)
    monkeypatch.setattr("ray.cancel", lambda ref: found.calls.append(f"cancel {ref}"))
    found.restore_engines = lambda: found.calls.append("restore")
    return found


@pytest.mark.parametrize("death", [ActorUnavailableError("unavailable", b"x" * 16), ActorDiedError(), DEAD_CORE])
def test_a_rollout_in_which_an_engine_dies_is_made_again_of_the_same_prompts(generator, death):
    generator.outcomes = [death, None, None]
    prompts = iter("abcdef")
    rollout = dict(num_prompts=2, dynamic_filtering=False)
    assert generator._generate_vllm(dataloader_iter=prompts, **rollout) == (["a", "b"], 2, False)
    assert generator.calls == [["a", "b"], "cancel ref 1", "restore", ["a", "b"]]
    assert generator._responses == 9  # those of the rollout that counts
    assert generator._generate_vllm(dataloader_iter=prompts, **rollout)[0] == ["c", "d"]


def test_prompts_that_replaced_filtered_ones_before_the_death_come_next_if_they_are_not_needed_again(generator):
    def died_after(count):
        def rollout(self, dataloader_iter, **more):
            prompts = list(islice(dataloader_iter, count.pop(0)))
            if count:
                raise ActorDiedError()
            return prompts, len(prompts), False

        return rollout

    generator._dataloader_iter = iter("abcdefgh")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SamplesGenerator, "_generate_vllm", died_after([5, 4, 2]))
        rollout = dict(dataloader_iter=generator._dataloader_iter, num_prompts=2, dynamic_filtering=True)
        assert generator._generate_vllm(**rollout)[0] == ["a", "b"]
    assert list(generator._dataloader_iter) == list("cdefgh")


def test_any_other_error_and_one_without_restarts_end_the_rollout(generator):
    error = RayTaskError("generate", "ValueError: no such prompt", ValueError())
    generator.outcomes = [error, DEAD_CORE]
    with pytest.raises(RayTaskError, match="no such prompt"):
        generator._generate_vllm(dataloader_iter=iter("ab"), num_prompts=2, dynamic_filtering=False)
    generator.restore_engines = None
    with pytest.raises(RayTaskError, match="EngineDead"):
        generator._generate_vllm(dataloader_iter=iter("ab"), num_prompts=2, dynamic_filtering=False)
    assert not is_a_death(error)


def test_no_reference_to_a_rollout_is_kept_after_it(generator, monkeypatch):
    generator.outcomes = [None]
    generator._generate_vllm(dataloader_iter=iter("ab"), num_prompts=2, dynamic_filtering=False)
    assert generator._pending == []
    # Without restarts nobody would ever drop them, and Ray would keep every response of the run.
    generator.restore_engines = None
    generator.args = SimpleNamespace(train=SimpleNamespace(full_determinism_enable=False))
    monkeypatch.setattr(SamplesGenerator, "_dispatch_prompts_to_vllm", lambda self, prompts, labels, **more: ["ref"])
    assert generator._dispatch_prompts_to_vllm(["a"], ["b"]) == ["ref"]
    assert generator._pending == []


class Engine:
    """A handle whose `state` answers, or raises, as listed; `done` keeps what was asked of it."""

    def __init__(self, *states):
        self.states, self.done = list(states), []

    def __getattr__(self, name):
        def remote(*args):
            if name != "state":
                return self.done.append((name, *args))
            return self.states.pop(0) if len(self.states) > 1 else self.states[0]

        return SimpleNamespace(remote=remote)


@pytest.fixture
def ray_of_handles(monkeypatch):
    """`ray.get` and `ray.kill` on the handles above, without waiting."""

    def get(answer):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("ray.get", get)
    monkeypatch.setattr("ray.kill", lambda engine, no_restart: engine.done.append(("kill", no_restart)))
    monkeypatch.setattr(engine_restarts.time, "sleep", lambda seconds: None)


@pytest.mark.usefixtures("ray_of_handles")
def test_new_engines_join_the_weight_sync_and_get_the_runs_settings(capsys):
    away = ActorUnavailableError("restarting", b"x" * 16)
    engines = [Engine(KNOWN), Engine(away, away, NEW), Engine(BROKEN, away, NEW)]
    joined = []
    policy = SimpleNamespace(async_run_method=lambda method_name: joined.append(method_name))
    assert Engines(engines, policy, 60.0).mend()
    assert joined == ["join_engines"]
    assert [engine.done for engine in engines] == [
        [], [("begin_run", 60.0, True)], [("kill", False), ("begin_run", 60.0, True)],
    ]  # fmt: skip
    assert "2 of 3 were replaced" in capsys.readouterr().out


@pytest.mark.usefixtures("ray_of_handles")
def test_known_engines_stay_and_one_that_does_not_come_back_ends_the_run(monkeypatch):
    engines = [Engine(KNOWN), Engine(KNOWN)]
    assert not Engines(engines, None, 60.0).mend()
    monkeypatch.setattr(engine_restarts, "SECONDS", -1.0)
    for error in (ActorDiedError(), ActorUnavailableError("restarting", b"x" * 16)):
        with pytest.raises(type(error)):
            Engines([Engine(error)], None, 60.0).mend()
