"""Graded answers a second and the slowest ones, against OpenRLHF's own grader and math-verify called plainly.

    python3 tests/benchmarks/bench_verifiers.py [--count N]

Four sets of answers: `easy` (integers, decimals and fractions as models write them), `roots` (each another one,
written in another way than its gold), `graded` (the boxed answers of tests/data/math_dev.jsonl) and `hostile` (easy
ones, every 25th an answer that keeps a computer algebra system busy). Every grader runs in a process of its own, after
a warm-up, and is stopped after LIMIT seconds. math-verify and OpenRLHF's grader are called in the main thread, where
their time limits work; ours from as many threads as it has workers. CPU seconds include the start of the processes and
say more than the clock on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LIMIT = 120
HOSTILE = ("9^{9^{9^{9}}}", "10^{10^{10}}", "7^{1000000007} \\mod 10", "99999999!", "(x+1)^{99999}")
GRADERS = ("math-verify", "openrlhf", "ours, 1 worker", "ours, 2 workers")


def answers(kind: str, count: int) -> list[tuple[str, str]]:
    """`count` pairs of response and gold."""
    if kind == "graded":
        lines = (Path(__file__).parents[1] / "data" / "math_dev.jsonl").read_text().splitlines()
        cases = [case for case in map(json.loads, lines) if "no_boxed" not in case["tags"]]
        return [(case["response"], case["gold"]) for case in (cases * (count // len(cases) + 1))[:count]]
    rng, pairs = random.Random(0), []
    for place in range(count):
        number = rng.randrange(-999, 10_000)
        written, gold = (
            (f"{number}", f"{number}"),
            (f"{number / 100}", f"{number / 100}"),
            (f"\\frac{{{number}}}{{7}}", f"\\frac{{{number}}}{{7}}"),
            (f"{number + rng.randrange(3)}", f"{number}"),
        )[place % 4]
        if kind == "roots":
            factor, square = rng.randrange(2, 99), rng.randrange(2, 999)
            written, gold = f"{factor}\\sqrt{{{square}}}", f"\\sqrt{{{factor * factor * square}}}"
        if kind == "hostile" and place % 25 == 24:
            written, gold = HOSTILE[place // 25 % len(HOSTILE)], "\\frac{1}{3}"
        pairs.append((f"Let us see. So the answer is $\\boxed{{{written}}}$.", gold))
    return pairs


def grader(name: str):
    """(function of response and gold, threads to call it from)."""
    if name == "math-verify":
        from math_verify import parse, verify

        return lambda response, gold: verify(parse(f"${gold}$"), parse(response)), 1
    if name == "openrlhf":
        from openrlhf.utils.math_utils import extract_boxed_answer, grade_answer

        def openrlhf(response, gold):
            answer = extract_boxed_answer(response)
            return answer is not None and grade_answer(answer, gold)

        return openrlhf, 1
    workers = int(name.split()[1])
    os.environ["RISKPO_VERIFIER_WORKERS"] = str(workers)
    from riskpo_openrlhf.verifiers.math import verify as ours

    return lambda response, gold: ours(response, gold).correct, workers


def measure(name: str, kind: str, count: int) -> None:
    """Print the seconds of each answer, as they come: what was done counts although the rest is cut off."""
    function, threads = grader(name)
    for response, gold in answers("easy", 40):
        function(response, gold)

    def timed(pair):
        start = time.perf_counter()
        function(*pair)
        return time.perf_counter() - start

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for seconds in pool.map(timed, answers(kind, count)) if threads > 1 else map(timed, answers(kind, count)):
            print(seconds, flush=True)
    print("total", time.perf_counter() - start)


def run(name: str, kind: str, count: int) -> tuple[float, list[float], float, bool]:
    """(answers a second, seconds of each, CPU seconds of all processes, whether it was cut off)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, __file__, "--one", name, kind, "--count", str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        output, cut = process.communicate(timeout=LIMIT)[0], False
    except subprocess.TimeoutExpired:
        process.kill()
        output, cut = process.communicate()[0], True
    *times, last = output.splitlines() or [""]
    if not last.startswith("total"):
        times, cut = [*times, last], True
    seconds = sorted(float(line) for line in times if line)
    total = LIMIT if cut else float(last.split()[1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return len(seconds) / total, seconds, sum(after[:2]) - sum(before[:2]), cut


CODE = {"kind": "stdin", "tests": [{"input": f"{i} {i + 7}\n", "output": f"{2 * i + 7}\n"} for i in range(5)]}
ADD = "a, b = map(int, input().split())\nprint(a + b)\n"
ANSWERS = [ADD] * 7 + [ADD.replace("+", "-"), ADD + "1 / 0\n", ADD + "print()\nprint(1)\n"]


def cpu_seconds() -> float:
    """Those of this process, of children that ended, and of the sandboxes."""
    from riskpo_openrlhf.verifiers.code import boxes
    from riskpo_openrlhf.verifiers.code.sandbox import open_sandbox

    for _ in range(2):  # the zygote counts an ended sandbox when it makes another
        while boxes._idle:
            boxes._idle.pop().close()
        with open_sandbox("pass"):
            pass
    times = os.times()
    with open(f"/proc/{boxes._zygote._process.pid}/stat") as file:
        theirs = sum(map(int, file.read().rpartition(")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")
    return theirs + times.user + times.system + times.children_user + times.children_system


def measure_code(count: int) -> None:
    """Print programs a second of our sandbox and of plain subprocesses, one after the other, then the rollout."""
    from riskpo_openrlhf.verifiers.code import verify

    def ours():
        assert verify(f"```python\n{ADD}```", json.dumps(CODE)).correct

    def plain():
        for test in CODE["tests"]:
            command = [sys.executable, "-c", ADD]
            run = subprocess.run(command, input=test["input"], capture_output=True, text=True)
            assert run.stdout == test["output"]

    for _ in range(3):  # in turn, because the machine may be shared
        for name, grade in (("ours", ours), ("subprocess", plain)):
            grade()
            cpu, start = cpu_seconds(), time.perf_counter()
            for _ in range(count if name == "ours" else count // 5):
                grade()
            done = count if name == "ours" else count // 5
            ours_too = cpu_seconds() - cpu
            seconds = time.perf_counter() - start
            print(f"{name:10}  {done / seconds:6.1f} programs/s  {done / ours_too:6.1f} programs/s of CPU", flush=True)
    tests = json.dumps(CODE | {"time_limit": 1})
    cpu, start = cpu_seconds(), time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        programs = [*ANSWERS * 9, *ANSWERS[:9], "while True: pass\n"] * 52
        responses = [f"```python\n{program}```" for program in programs[:5120]]
        right = sum(verdict.correct for verdict in pool.map(lambda r: verify(r, tests), responses))
    print(
        f"rollout     {right} of {len(responses)} right, {time.perf_counter() - start:.0f} s by the clock, "
        f"{cpu_seconds() - cpu:.0f} s of CPU"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=600, help="answers in each set")
    parser.add_argument("--one", nargs=2, metavar=("GRADER", "SET"), help=argparse.SUPPRESS)
    parser.add_argument("--code", action="store_true", help="programs instead of answers")
    args = parser.parse_args()
    if args.code:
        return measure_code(args.count)
    if args.one:
        return measure(*args.one, args.count)
    heads = ("set", "grader", "answers/s", "ratio", "p50 ms", "p99 ms", "max ms", "CPU s")
    print("{:8} {:16} {:>10} {:>7} {:>7} {:>8} {:>8} {:>6}".format(*heads))
    for kind in ("easy", "roots", "graded", "hostile"):
        plain = 0.0
        for name in GRADERS:
            rate, seconds, cpu, cut = run(name, kind, args.count)
            plain = plain or rate
            p50, p99, most = (1000 * seconds[int(share * (len(seconds) - 1))] for share in (0.5, 0.99, 1))
            note = f"  stopped after {LIMIT} s with {len(seconds)} of {args.count} graded" if cut else ""
            row = f"{kind:8} {name:16} {rate:10.0f} {rate / plain:7.2f} {p50:7.2f} {p99:8.1f} {most:8.1f} {cpu:6.1f}"
            print(row + note, flush=True)
    print("ratio: answers a second over those of math-verify called plainly on the same set")


if __name__ == "__main__":
    main()
