"""Seeds and order of samples under `--train.full_determinism_enable`."""

import itertools
import random
from types import SimpleNamespace

from riskpo_openrlhf.integration.determinism import draw_name, in_one_order, seeded


def test_each_sample_of_each_prompt_and_draw_has_a_seed_of_its_own_and_always_the_same():
    params = SimpleNamespace(temperature=0.7, seed=None)
    places = list(itertools.product(["1/12", "1/24", "2/12"], ["3 + 4", "3 + 5"], range(4)))
    seeds = [seeded(params, *place).seed for place in places]
    assert len(set(seeds)) == len(places) and all(0 <= seed < 2**32 for seed in seeds)
    assert seeds == [seeded(params, *place).seed for place in places]
    assert params.seed is None and seeded(params, *places[0]).temperature == 0.7


def test_the_name_of_a_draw_says_seed_and_position():
    generator = SimpleNamespace(
        args=SimpleNamespace(train=SimpleNamespace(seed=42)), prompts_dataloader=SimpleNamespace(drawn=24)
    )
    assert draw_name(generator) == "42/24"


def test_responses_come_in_one_order_with_their_groups_together():
    groups = [[SimpleNamespace(prompts=[f"p{i}"], labels=["l"], n=n) for n in range(3)] for i in range(6)]
    orders = set()
    for seed in range(4):
        random.Random(seed).shuffle(groups)
        ordered = in_one_order(list(itertools.chain(*groups)))
        orders.add(tuple((sample.prompts[0], sample.n) for sample in ordered))
        assert all(len({s.prompts[0] for s in ordered[i : i + 3]}) == 1 for i in range(0, 18, 3))
    assert len(orders) == 1
