"""The verdicts on a file of graded cases, by class, and whether they are good enough.

    python3 tests/benchmarks/grading_table.py CASES.jsonl [--verifier code]

A case is a line `{"id", "kind", "verifier", "gold", "response", "expected"}`. The exit code is 1 if a wrong answer is
taken for right, or if fewer than 97 % of the verdicts are right.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

from riskpo_openrlhf.tables import aligned
from riskpo_openrlhf.verifiers.reward_func import VERIFY

ENOUGH = 0.97


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("--verifier", choices=VERIFY, help="only the cases of this one")
    args = parser.parse_args()
    cases = [json.loads(line) for line in args.cases.read_text(encoding="utf-8").split("\n") if line]
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
