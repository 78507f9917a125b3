"""The verdicts on a file of graded cases, by class, and whether they are good enough.

    python3 tests/benchmarks/grading_table.py CASES.jsonl [--verifier code | --rules]

A case is a line `{"id", "kind", "verifier", "gold", "response", "expected"}`. The exit code is 1 if a wrong answer is
taken for right, or if fewer than 97 % of the verdicts are right. `--rules` leaves out one rewriting rule of the math
verifier at a time, and prints how many verdicts change; the exit code is 1 if a rule changes none.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

from riskpo_openrlhf.tables import aligned
from riskpo_openrlhf.verifiers.math import compare, evaluate, notation, parse
from riskpo_openrlhf.verifiers.math.extract import extract_answers
from riskpo_openrlhf.verifiers.reward_func import VERIFY

ENOUGH = 0.97
PATIENCE = 2.0  # seconds of CPU time for a comparison


def without_each_rule(cases: list[dict]) -> int:
    """Print the rewriting rules of the math verifier by the verdicts that change without them."""
    answers = [(case["gold"], *extract_answers(case["response"])) for case in cases if case["verifier"] == "math"]
    rules, counts = list(notation._REWRITES), []

    def equal(gold: str, answer: str | None) -> bool:
        evaluate.limit_time(PATIENCE)
        try:
            return answer is not None and compare.compare(gold, answer) == compare.EQUAL
        except (MemoryError, evaluate.TooSlow):
            return False

    def verdicts() -> list[bool]:
        for function in (notation.tidy, parse.readings):
            function.cache_clear()
        return [equal(gold, answer) or equal(gold, joined) for gold, answer, joined in answers]

    every = verdicts()
    for number, (pattern, _) in enumerate(rules):
        notation._REWRITES[:] = rules[:number] + rules[number + 1 :]
        counts.append((sum(a != b for a, b in zip(every, verdicts(), strict=True)), pattern.pattern))
    for count, pattern in sorted(counts):
        print(f"{count:4}  {' '.join(pattern.split())[:110]}")
    return min(counts)[0] == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("--verifier", choices=VERIFY, help="only the cases of this one")
    parser.add_argument("--rules", action="store_true", help="what each rewriting rule of the math verifier is for")
    args = parser.parse_args()
    cases = [json.loads(line) for line in args.cases.read_text(encoding="utf-8").split("\n") if line]
    if args.rules:
        return without_each_rule(cases)
    by_kind: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for case in cases:
        if args.verifier in (None, case["verifier"]):
            verdict = VERIFY[case["verifier"]](case["response"], case["gold"])
            by_kind[f"{case['verifier']}: {case['kind']}"].append((case["expected"], verdict.correct))
            if verdict.correct != case["expected"]:
                print(f"{case['id']}: {verdict.status}, {str(verdict.extracted)[:200]!r}")
    rows = [["class", "cases", "right verdicts", "wrong accepted", "right refused"]]
    every = [pair for pairs in by_kind.values() for pair in pairs]
    for kind, pairs in [*sorted(by_kind.items()), ("all", every)]:
        counts = (sum(a == b for a, b in pairs), sum(a < b for a, b in pairs), sum(a > b for a, b in pairs))
        rows.append([kind, str(len(pairs)), *map(str, counts)])
    print(aligned(rows))
    share, accepted = sum(a == b for a, b in every) / len(every), sum(a < b for a, b in every)
    good = share >= ENOUGH and not accepted
    print(f"{share:.3f} right (at least {ENOUGH}), {accepted} wrong accepted (none): {'good' if good else 'NOT GOOD'}")
    return not good


if __name__ == "__main__":
    sys.exit(main())
