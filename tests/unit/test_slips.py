"""Problems with wrong answers among them: as many as drawn, by families that a model can tell apart."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from riskpo_openrlhf.lab.arithmetic import CHARACTER_KINDS, problems
from riskpo_openrlhf.lab.slips import EASY_RATES, HARD_RATES, WRONG_BY, family, right_rates, with_slips


def test_a_family_is_the_number_of_terms_and_the_last_digit():
    assert family({"input": "12-34="}) == (2, "4")
    assert family({"input": "1+2-9="}) == (3, "9")


def test_nearly_half_of_the_families_are_hard_and_none_lies_between():
    rates = right_rates([(terms, str(digit)) for terms in (2, 3) for digit in range(10)] * 3, seed=4)
    low = [rate for rate in rates.values() if HARD_RATES[0] <= rate <= HARD_RATES[1]]
    high = [rate for rate in rates.values() if EASY_RATES[0] <= rate <= EASY_RATES[1]]
    assert len(rates) == 20 and len(low) == 9 and len(high) == 11
    assert rates != right_rates(rates, seed=5)


def test_as_many_labels_are_right_as_the_family_has_it_and_the_others_are_off_by_what_is_named():
    rows = problems(CHARACTER_KINDS, 20_000, seed=0)
    slipped, rates = with_slips(rows, seed=2), right_rates(map(family, rows), seed=2)
    right, off = defaultdict(list), Counter()
    for row, changed in zip(rows, slipped, strict=True):
        assert {**changed, "answer": row["answer"]} == row
        difference = int(changed["answer"]) - int(row["answer"])
        right[family(row)].append(difference == 0)
        off[difference] += 1
    assert set(off) == {0, *WRONG_BY}
    for group, hits in right.items():
        sigma = (rates[group] * (1 - rates[group]) / len(hits)) ** 0.5
        assert np.mean(hits) == pytest.approx(rates[group], abs=5 * sigma + 1e-9)
    assert slipped == with_slips(rows, seed=2)
    assert with_slips([], seed=2) == []
