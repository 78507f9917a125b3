"""Classes of answers on which graders go wrong: drawn pairs whose verdict follows from the mathematics, and a table.

Each generator writes a value in two notations, or two values, and knows the verdict from exact arithmetic in Python.
`math_cases.jsonl` holds answers from public reports about graders, and variations of them.
"""

import json
import math as mathematics
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import mpmath
import pytest

from riskpo_openrlhf.verifiers import geometry, math
from riskpo_openrlhf.verifiers.math import verify
from riskpo_openrlhf.verifiers.math.compare import EQUAL, compare
from riskpo_openrlhf.verifiers.response import response_of

CASES = [
    json.loads(line) for line in (Path(__file__).parents[1] / "data/math_cases.jsonl").read_text("utf-8").splitlines()
]


def test_the_table_of_public_cases_has_no_wrong_acceptance_and_few_refusals(capsys):
    verifiers = {"math": math.verify, "geometry": geometry.verify}
    with ThreadPoolExecutor(2) as threads:
        verdicts = threads.map(lambda case: verifiers[case["verifier"]](case["response"], case["gold"]), CASES)
    table = Counter()
    for case, verdict in zip(CASES, verdicts, strict=True):
        outcome = "right" if verdict.correct == case["expected"] else "accepted" if verdict.correct else "refused"
        table[case["kind"], outcome] += 1
    with capsys.disabled():
        for kind in sorted({kind for kind, _ in table}):
            counts = [table[kind, outcome] for outcome in ("right", "accepted", "refused")]
            if counts[1] + counts[2]:
                print(f"\n{kind}: {counts[0]} right, {counts[1]} wrong ones accepted, {counts[2]} right ones refused")
    total = Counter(outcome for (_, outcome), count in table.items() for _ in range(count))
    assert total["accepted"] == 0
    assert total["right"] >= 0.97 * len(CASES)


# Generators: (gold, answer, verdict).


def floors(draw: random.Random):
    r"""Floors and ceilings of a whole number: \lfloor (an+b)/c \rfloor + d."""
    a, b, c, d = draw.randint(1, 5), draw.randint(-4, 4), draw.randint(2, 6), draw.randint(-3, 3)
    gold = rf"\left\lfloor\frac{{{a}n{b:+d}}}{{{c}}}\right\rfloor{d:+d}"
    if draw.random() < 0.5:
        shift = draw.randint(-2, 2)
        answer = draw.choice(
            (
                rf"\lceil ({a}n{b - c + 1:+d})/{c} \rceil{d:+d}",
                rf"{d + shift}+\lfloor \frac{{{a}n{b - shift * c:+d}}}{{{c}}} \rfloor",
                rf"{d}-\lceil \frac{{{-b}-{a}n}}{{{c}}} \rceil",
            )
        )
        return gold, answer, True
    e, f, g = draw.choice(((a, b + c, c), (a, b, c + 1), (a + 1, b, c), (a, b + draw.randint(1, c - 1), c)))
    same = all((a * n + b) // c == (e * n + f) // g for n in range(-200, 400))
    return gold, rf"\lfloor \frac{{{e}n{f:+d}}}{{{g}}} \rfloor{d:+d}", same


def halves(draw: random.Random):
    r"""\lceil n/k\rceil and the like, for small and large k, against formulas that agree for some n only."""
    k, d = draw.choice((draw.randint(2, 7), draw.randint(20, 3000))), draw.randint(1, 9)
    wrong = draw.choice(
        (
            rf"\lfloor n/{k}\rfloor+{d + 1}",
            rf"\lceil \frac{{n}}{{{k + 1}}}\rceil+{d}",
            rf"\frac{{n}}{{{k}}}+{d}",
            rf"\lceil\sqrt{{n}}\rceil+{d}",
            rf"\frac{{n+{k - 1}}}{{{k}}}+{d}",
        )
    )
    right = rf"\left\lfloor\frac{{n+{k - 1}}}{{{k}}}\right\rfloor+{d}"
    return draw.choice(
        (
            (rf"\lceil n/{k}\rceil+{d}", right, True),
            (rf"\lceil n/{k}\rceil+{d}", wrong, False),
            (rf"n \bmod {k}", rf"n \bmod {k + d}", False),
            (rf"\gcd(n,{k})", rf"\gcd(n,{2 * k})", False),
        )
    )


def divisors(draw: random.Random):
    """Greatest common divisors, remainders, factorials and binomials of whole numbers."""
    k = draw.randint(2, 6)
    return draw.choice(
        (
            (r"\gcd(m,n)", rf"\gcd(n, m{draw.choice('+-')}{k}n)", True),
            (r"\gcd(m,n)", rf"\gcd(m,n+{k})", False),
            (rf"n \bmod {k}", rf"n-{k}\left\lfloor\frac{{n}}{{{k}}}\right\rfloor", True),
            (rf"n \bmod {k}", rf"n \bmod {k + 1}", False),
            (rf"\gcd(n,{k})", rf"\gcd(n,{2 * k})", False),
            (rf"\frac{{(n+{k})!}}{{n!}}", rf"\prod_{{j=1}}^{{{k}}} (n+j)", True),
            (rf"\frac{{(n+{k})!}}{{n!}}", rf"\prod_{{j=0}}^{{{k}}} (n+j)", False),
            (rf"\binom{{n+{k}}}{{{k}}}", rf"\frac{{(n+{k})!}}{{{k}!\,n!}}", True),
            (rf"\binom{{n+{k}}}{{{k}}}", rf"\binom{{n+{k}}}{{{k + 1}}}", False),
            (r"\operatorname{lcm}(m,n)", r"\frac{mn}{\gcd(n,m)}", True),
        )
    )


def parities(draw: random.Random):
    """Signs that change with n, and sums with n as their bound."""
    a, b = draw.randint(1, 5), draw.randint(2, 5)
    return draw.choice(
        (
            (r"(-1)^n", r"\cos n\pi", True),
            (r"(-1)^{n+1}", r"-\cos(n\pi)", True),
            (r"(-1)^{n}", r"(-1)^{n+1}", False),
            (rf"\frac{{{a}(1-(-1)^n)}}{{n\pi}}", rf"\frac{{{a}(1-\cos n\pi)}}{{\pi n}}", True),
            (rf"{a}n\bmod 2", rf"\frac{{1-(-1)^{{{a}n}}}}{{2}}", True),
            (rf"{b}^{{n+1}}-1", rf"{b - 1}\sum_{{k=0}}^{{n}} {b}^k", True),
            (rf"{b}^{{n+1}}-1", rf"{b - 1}\sum_{{k=1}}^{{n}} {b}^k", False),
            (rf"\frac{{{a}n(n+1)}}{{2}}", rf"\sum_{{i=1}}^n {a}i", True),
            (rf"\frac{{{a}n(n+1)}}{{2}}", rf"\sum_{{i=1}}^{{n-1}} {a}i", False),
            (r"2^n", r"\sum_{k=0}^n \binom{n}{k}", True),
            (rf"\left(1+(-1)^n\right){a}", f"{2 * a}", False),
        )
    )


def tiny(draw: random.Random):
    """Values whose difference is far below a double's precision, and equal ones written in another way."""
    a, b = draw.sample(range(50, 4000), 2)
    k, c = draw.randint(10, 900), draw.randint(1, 9)
    root, power = rf"\sqrt{{10^{{{2 * k}}}+{c}}}", rf"10^{{{k}}}"
    n = 10 ** draw.randint(3, 60)
    return draw.choice(
        (
            (rf"e^{{-{a}}}", rf"e^{{-{b}}}", False),
            (rf"e^{{-{a}}}", rf"\frac{{1}}{{e^{{{a}}}}}", True),
            ("1", rf"1-e^{{-{a}}}", False),
            ("0", rf"e^{{-{a}}}", False),
            (rf"1-10^{{-{k}}}\sqrt2", rf"1-10^{{-{k}}}\sqrt3", False),
            (rf"1-10^{{-{k}}}\sqrt8", rf"1-2\cdot10^{{-{k}}}\sqrt2", True),
            (root, power, False),
            (f"{root}-{power}", rf"\frac{{{c}}}{{{root}+{power}}}", True),
            (rf"\sqrt{{{n + 1}}}-\sqrt{{{n}}}", rf"\frac{{1}}{{\sqrt{{{n}}}+\sqrt{{{n + 1}}}}}", True),
            (rf"\sqrt{{{n + 1}}}-\sqrt{{{n}}}", rf"\frac{{1}}{{2\sqrt{{{n}}}}}", False),
            (rf"\frac{{\sqrt{{2}}}}{{{a // 4}!}}", rf"\frac{{\sqrt2}}{{{a // 4 + 1}!}}", False),
            (rf"\pi+10^{{-{k}}}", r"\pi", False),
            (rf"\ln(1+e^{{-{a}}})", "0", False),
            (rf"\tanh {k}", "1", False),
            (rf"y=x+e^{{-{k}}}", "y=x", False),
            (rf"y=2x+2e^{{-{k}}}", rf"x-\frac{{y}}{{2}}+e^{{-{k}}}=0", True),
            (rf"xe^{{-{a}}}", rf"xe^{{-{b}}}", False),
            (rf"xe^{{-{k}}}", rf"\frac{{x}}{{e^{{{k}}}}}", True),
        )
    )


def radicals(draw: random.Random):
    r"""\sqrt{a}+\sqrt{b} and \sqrt{a+b+2\sqrt{ab}}, right or wrong by the exact square."""
    a, b = draw.randint(2, 40), draw.randint(2, 40)
    off = draw.choice((0, 0, 1, -1))
    answer = rf"\sqrt{{{a + b}+2\sqrt{{{a * b + off}}}}}"
    return rf"\sqrt{{{a}}}+\sqrt{{{b}}}", answer, off == 0


FUNCTIONS = (r"\sin", r"\cos", r"\tan", r"\ln", r"\arctan")


def products_of_functions(draw: random.Random):
    """Factors in any order; a function without brackets ends at a sign, at braces and at the next function."""
    factors = []
    for _ in range(draw.randint(1, 2)):
        name, argument = draw.choice(FUNCTIONS), draw.choice(("x", "2x", r"\theta"))
        factors.append((rf"{name}({argument})", rf"{name}{{{argument}}}", rf"{name} {argument}"))
    factors += [("y", "y", "y")] * draw.randint(0, 1) + [(str(n := draw.randint(2, 9)),) * 3]
    gold = r"\cdot ".join(f"({factor[0]})" for factor in factors)
    draw.shuffle(factors)
    answer = r"\cdot ".join(factor[draw.choice((0, 1, 2))] for factor in factors)
    divisor = draw.choice((None, "g", "11"))
    if divisor:
        gold, answer = rf"\frac{{{gold}}}{{{divisor}}}", f"{answer}/{divisor}"
    if draw.random() < 0.3:
        return gold, answer.replace(str(n), str(n + 1)), False
    return gold, answer, True


def swallowed(draw: random.Random):
    """A factor after a sign is no part of the argument."""
    a, b = draw.sample(range(2, 12), 2)
    quotient = mpmath.almosteq(mpmath.log(mpmath.mpf(a) / b), mpmath.log(a) / b)
    return draw.choice(
        (
            (rf"\ln {a * b}", rf"\ln {a}\cdot {b}", False),
            (rf"\ln\frac{{{a}}}{{{b}}}", rf"\ln{{{a}}}/{b}", quotient),
            (rf"{b}\ln {a}", rf"\ln {a}\cdot {b}", True),
            (rf"\sin {a * b}x", rf"\sin {a}x\cdot {b}", False),
            (rf"{b}\log_{{{a}}} 5", rf"\log_{{{a}}}{{5}}\cdot {b}", True),
            (rf"\frac{{\sin {a}\theta}}{{{b}g}}", rf"\sin{{{a}\theta}}/({b}g)", True),
            (rf"r\cos {a}\theta", rf"\cos{{{a}\theta}}\, r", True),
        )
    )


def indexed_letters(draw: random.Random):
    """Any letter with any index is one quantity."""
    names = draw.sample(["E", "e", r"\gamma", r"\Gamma", "I", "i", "S", "N", "O", "Q", "C", r"\pi", r"\beta", "d"], 2)
    index = draw.sample(["n", "1", "2", r"\odot", r"\text{max}", "ij", "0", r"\oplus", r"\infty", "k+1"], 2)
    a, b = draw.sample(range(2, 9), 2)
    x, y = rf"{names[0]}_{{{index[0]}}}", rf"{names[0]}_{{{index[1]}}}"
    return draw.choice(
        (
            (rf"{a}{x}+{b}{y}", rf"{b} {y} + {a} {x}", True),
            (rf"{a}{x}+{b}{y}", rf"{a} {y} + {b} {x}", False),
            (rf"\frac{{{x}}}{{{a}}}+\frac{{{y}}}{{{b}}}", rf"\frac{{{b}{x}+{a}{y}}}{{{a * b}}}", True),
            (x, y, False),
            (rf"{x}^{{{a}}}", rf"{x}^{{{b}}}", False),
            (rf"\frac{{\partial {x}}}{{\partial t}}", rf"\frac{{\partial {y}}}{{\partial t}}", False),
        )
    )


def positive_quantities(draw: random.Random):
    """A root of physical quantities may be taken apart; a root of a square of a coordinate is its absolute value."""
    k, (a, b) = draw.randint(2, 9), draw.sample([r"\rho_0", "r_0", "G", "h", "m", r"\lambda", "L", "g"], 2)
    return draw.choice(
        (
            (rf"\sqrt{{{k * k}\pi {a} {b}^2}}", rf"{k} {b} \sqrt{{\pi {a}}}", True),
            (rf"\sqrt{{\frac{{{k}{a}}}{{{b}}}}}", rf"\frac{{\sqrt{{{k}{a} {b}}}}}{{{b}}}", True),
            (rf"\sqrt{{{k * k}\pi {a} {b}^2}}", rf"{k + 1} {b} \sqrt{{\pi {a}}}", False),
            (rf"\sqrt{{{k * k}x^2}}", rf"{k}x", False),
            (rf"{k}x", rf"{k}|x|", False),
            (rf"{k}\left|a\right|", rf"{k}a", False),
        )
    )


def inequalities(draw: random.Random):
    """An inequality times a positive number is the same; times a negative one, its sign turns."""
    a, b, c = (draw.choice([n for n in range(-6, 7) if n]) for _ in range(3))
    k = draw.choice([n for n in range(-4, 5) if n])
    sign, turned = draw.choice(((r"<", r">"), (r"\le", r"\ge"), (r">", r"<"), (r"\geq", r"\leq")))
    right = draw.random() < 0.6
    other = sign if (k > 0) == right else turned
    return rf"{a}x{b:+d}y {sign} {c}", rf"{k * a}x{k * b:+d}y {other} {k * c}", right


def systems(draw: random.Random):
    """Named values, tuples, chains and what is left out of the reals."""
    a, b, c = draw.sample(range(-9, 10), 3)
    low, high = sorted((a, b))
    return draw.choice(
        (
            (f"(x,y)=({a},{b})", f"x={a}, y={b}", True),
            (f"(x,y)=({a},{b})", f"y={b}, x={a}", True),
            (f"(x,y)=({a},{b})", f"x={b}, y={a}", False),
            (f"x={a}, y={b}, z={c}", f"({a},{b},{c})", True),
            (f"x={a}, y={b}, z={c}", f"({b},{a},{c})", False),
            (f"x=y={a}, z={c}", f"z={c}, x={a}, y={a}", True),
            (f"x=y={a}, z={c}", f"z={a}, x={c}, y={a}", False),
            (rf"x\ne {a}", rf"(-\infty,{a})\cup({a},\infty)", True),
            (rf"(-\infty,{low})\cup({low},{high})\cup({high},\infty)", rf"x\neq {high}, x \neq {low}", True),
            (rf"\mathbb{{R}}\setminus\{{{a},{b}\}}", rf"x \ne {a}, {b}", True),
            (rf"x\ne {a}", rf"(-\infty,{b})\cup({b},\infty)", False),
            (rf"\max(x,{a})", rf"\max\{{{a},x\}}", True),
            (rf"\max(x,{a})", rf"\min(x,{a})", False),
        )
    )


def sets(draw: random.Random):
    """Sets of real numbers as intervals, conditions, differences and intersections, right by membership."""
    a, b, c, d = sorted(draw.sample(range(-9, 10), 4))
    (left, low, above), (high, right) = (
        draw.choice((("(", "<", ">"), ("[", r"\le", r"\ge"))),
        draw.choice((("<", ")"), (r"\le", "]"))),
    )

    def between(x, y):
        return f"{left}{x},{y}{right}"

    half = f"x{above} {a}", f"x{high} {b}"
    both = draw.choice((", ", r" \text{ and } ", r" \land ", r"\ \text{且}\ ")).join(draw.sample(half, 2))
    union = rf"(-\infty,{a}]\cup[{b},\infty)"
    return draw.choice(
        (
            (between(a, b), rf"{a} {low} x {high} {b}", True),
            (between(a, b), both, True),
            (between(a, b), draw.choice(half), False),
            (between(a, b), rf"{half[0]} \text{{ or }} {half[1]}", False),
            (between(a, c), rf"{between(a, d)}\cap {left}{a - 1},{c}{right}", True),
            (between(a, c), rf"{between(a, d)}\cap {left}{a + 1},{c}{right}", False),
            (rf"[{a},{d}]", rf"[{a},{c}]\cup[{b},{d}]", True),
            (rf"[{a},{d}]", rf"[{a},{b}]\cup[{c},{d}]", False),
            (rf"[{a},{d}]", rf"[{a},{b})\cup({b},{d}]", False),
            (rf"[{a},{b})\cup({b},{d}]", rf"{a} \le x \le {d}, x \ne {b}", True),
            (rf"[{a},{b})\cup({b},{d}]", rf"[{a},{d}]\setminus\{{{b}\}}", True),
            (rf"[{a},{b})\cup({b},{d}]", rf"[{a},{d}]\setminus\{{{c}\}}", False),
            (union, rf"\mathbb{{R}}\setminus({a},{b})", True),
            (union, rf"\mathbb{{R}}\setminus[{a},{b}]", False),
            (union, rf"x\ge {b} \lor x\le {a}", True),
            (union, rf"x\le {a}", False),
            (rf"({b},\infty)", f"x>{a}, x>{b}", False),
            (rf"(-\infty,{b}\pi)\cup({b}\pi,\infty)", rf"x \ne {b}\pi", True),
            (r"(k,\infty)", "x>k", True),
            (r"(k,\infty)", f"x>k+{abs(a) + 1}", False),
            (rf"\{{{a},{b},{c}\}}", rf"\{{{c}\}}\cup\{{{b},{a}\}}", True),
        )
    )


def matrices(draw: random.Random):
    """Determinants by their definition, and vectors in the notations of rows, columns and tuples."""
    a, b, c, d = (draw.randint(-9, 9) for _ in range(4))
    rows, kind = rf"{a} & {b} \\ {c} & {d}", draw.choice("pb")
    matrix, off = rf"\begin{{{kind}matrix}} {rows} \end{{{kind}matrix}}", draw.choice((0, 0, 1, -1))
    column = rf"\begin{{pmatrix}} {a} \\ {b} \\ {c} \end{{pmatrix}}"
    return draw.choice(
        (
            (f"{a * d - b * c + off}", rf"\begin{{vmatrix}} {rows} \end{{vmatrix}}", off == 0),
            (f"{a * d - b * c + off}", rf"\det {matrix}", off == 0),
            (f"{a}d-{b}c", rf"\begin{{vmatrix}} {a} & {b} \\ c & d \end{{vmatrix}}", True),
            (matrix, f"[[{a},{b}],[{c},{d}]]", True),
            (matrix, f"[[{a},{b}],[{c},{d + 1}]]", False),
            (matrix, rf"\begin{{vmatrix}} {rows} \end{{vmatrix}}", False),
            (column, rf"\langle {a}, {b}, {c} \rangle", True),
            (column, f"({a}, {b}, {c})^T", True),
            (column, f"({a}, {b}, {c + 1})", False),
            (column, rf"\{{{a}, {b}, {c}\}}", False),
        )
    )


def plain_text(draw: random.Random):
    """Numbers and expressions as in plain text, Unicode and programs."""
    a, b, k = draw.randint(11, 99), draw.randint(2, 9), draw.randint(-12, 12)
    raised = "".join("⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".index(digit)] for digit in str(k))
    return draw.choice(
        (
            (rf"\sqrt{{{a}}}", f"√{a}", True),
            ("hyperbola", r"\text{a hyperbola}", True),
            (r"\sin x", "a sin x", False),
            (rf"\sqrt{{{a}}}", rf"\sqrt{str(a)[0]}", False),
            (rf"\sqrt{{{str(a)[0]}}}", rf"\sqrt{a}", False),
            (rf"{b}\times10^{{{k}}}", f"{b} × 10{raised}", True),
            (rf"{b}\times10^{{{k}}}", f"{b} x 10^{k}", True),
            (rf"{b}\times10^{{{k}}}", f"{b}e{k + 1}", False),
            (rf"\frac{{\pi}}{{{b}}}", draw.choice((f"π/{b}", f"pi/{b}")), True),
            (rf"\sqrt[{b}]{{{a}}}", f"{a}^(1/{b})", True),
            (rf"\left|x-{a}\right|", f"abs({a}-x)", True),
            (rf"\lfloor n/{b}\rfloor", f"floor(n/{b})", True),
            (rf"\lfloor n/{b}\rfloor", f"ceil(n/{b})", False),
            (f"x_{b}", "x" + "₀₁₂₃₄₅₆₇₈₉"[b], True),
            (f"x_{b}", f"{b}x", False),
            (rf"0.\overline{{{a}}}", rf"\frac{{{a}}}{{99}}", True),
            (rf"0.\overline{{{a}}}", rf"0.{a}{a}{a}\ldots", True),
            (rf"0.\overline{{{a}}}", f"0.{a}", False),
            (rf"\frac{{{b}}}{{{str(a)[0]}}}", rf"\frac{b}{a}", False),
            (rf"\frac{{{b}}}{{{str(a)[0]}}}", rf"\frac{b}{str(a)[0]}", True),
        )
    )


UNITS = {("m", "s"): "m/s", ("km", "h"): "km/h", ("g", "cm^3"): "g/cm^3", ("J", "kg"): "J/kg", ("W", "m^2"): "W/m^2"}


def units(draw: random.Random):
    """Quotients of units in the notations of papers; another unit is another answer."""
    number = draw.choice((f"{draw.randint(2, 99)}", f"{draw.randint(2, 99)}.5", r"3\times10^{5}", r"\frac{7}{2}"))

    def written(pair):
        top, (bottom, _, power) = pair[0], pair[1].partition("^")
        raised = f"^{{{power}}}" if power else ""
        return draw.choice(
            (
                rf"\mathrm{{~{top}}} / \mathrm{{{bottom}}}{raised}",
                rf"\ \text{{{top} {bottom}}}^{{-{power or 1}}}",
                rf"\,\mathrm{{{top}\,{bottom}^{{-{power or 1}}}}}",
                rf"\text{{ {top}/{bottom}}}{raised}",
                rf"\ \mathrm{{{top}}}\cdot\mathrm{{{bottom}}}^{{-{power or 1}}}",
            )
        )

    first, second = draw.sample(list(UNITS), 2)
    return draw.choice(
        (
            (number, number + written(first), True),
            (number + written(first), number, True),
            (number + written(first), number + written(first), True),
            (number + written(first), number + written(second), False),
            (number, f"9{number}" + written(first), False),
        )
    )


def letters_that_are_no_units(draw: random.Random):
    """What stands behind a number is part of the answer unless it is marked as a unit."""
    a, b, letter = draw.randint(2, 9), draw.randint(2, 9), draw.choice("ABCNKVTm")
    return draw.choice(
        (
            (f"{a}", rf"{a}\Omega", False),
            (rf"{a}\Omega", f"{a}", False),
            (f"{a}", rf"{a}\,\Omega", True),
            (f"{a}", f"{a}{letter}", False),
            (f"{a}", rf"{a}\text{{ {letter}}}", True),
            (rf"{a}\text{{A}}+{b}\text{{B}}", rf"{a}A+{b}", False),
            (rf"{a}A+{b}B", rf"{a}\text{{A}}+{b}\text{{B}}", True),
            (rf"x^{a}\text{{{letter}}}", f"x^{a}", False),
            (rf"{a}\text{{ J}}", rf"{a}\text{{ N}}", False),
        )
    )


def escaped_and_chinese(draw: random.Random):
    """Doubled backslashes, Chinese endings, and the word before a choice."""
    a, b, choice = draw.randint(2, 99), draw.randint(2, 99), draw.choice("ABCDE")
    other = draw.choice([letter for letter in "ABCDE" if letter != choice])
    return draw.choice(
        (
            (rf"\frac{{{a}}}{{{b}}}", rf"\\frac{{{a}}}{{{b}}}", True),
            (rf"\sqrt{{{a}}}", rf"\\sqrt{{{a}}}", True),
            (f"{a}", f"{a}" + draw.choice(("元", "个", "度", "。", "个。", r"\text{ 厘米}", r"\text{平方米}")), True),
            (f"{a}", f"{a}或{a + b}", False),
            (f"{a}0000", f"{a}万", True),
            (f"{a}厘米", rf"{a}\text{{厘米}}", True),
            (f"{a}厘米", rf"{a}\text{{米}}", False),
            (choice, rf"\text{{Option {choice}}}", True),
            (choice, draw.choice((f"Option ({choice})", f"option {choice}.", f"Choice {choice}")), True),
            (choice, f"Option {other}", False),
            (choice, f"Option {choice} or {other}", False),
        )
    )


def parts_of_a_hundred(draw: random.Random):
    """A percentage is its number, and its hundredth; a fraction below 1 without the sign is only the latter."""
    a, b = draw.randint(1, 24), draw.choice((25, 40, 50))
    part, percent = Fraction(a, b), f"{100 * a / b:g}"
    decimal, fraction = f"{a / b:g}", rf"\frac{{{part.numerator}}}{{{part.denominator}}}"
    return draw.choice(
        (
            (fraction, rf"{percent}\%", True),
            (rf"{percent}\%", draw.choice((fraction, decimal, percent)), True),
            (percent, rf"{percent}\%", True),
            (fraction, rf"{decimal}\%", False),
            (rf"{decimal}\%", fraction, False),
            (rf"{percent}\%", rf"{decimal}\%", False),
        )
    )


def fractions_and_bases(draw: random.Random):
    """Quotients in other notations, and bases in brackets."""
    a, b, base = draw.randint(2, 99), draw.randint(2, 99), draw.randint(2, 9)
    digits = "".join(str(draw.randrange(1, base)) for _ in range(4))
    return draw.choice(
        (
            (rf"\frac{{x+{a}}}{{{b}}}", rf"{{x+{a} \over {b}}}", True),
            (rf"\frac{{x+{a}}}{{{b}}}", rf"x + {{{a} \over {b}}}", False),
            (rf"\frac{{\pi}}{{{a}}}+\frac{{1}}{{{b}}}", rf"\pi \div {a} + 1 \div {b}", True),
            (rf"\frac{{\pi}}{{{a}}}+\frac{{1}}{{{b}}}", rf"\pi \div {a} + {b} \div 1", False),
            (f"{digits}_{base}", f"({digits})_{{{base}}}", True),
            (f"{digits}_{base}", f"({digits})_{{{base + 1}}}", False),
        )
    )


def corners(draw: random.Random):
    """Formulas that are another one up to a number far from 0, or below a negative one."""
    a, x = draw.choice((draw.randint(3, 40), draw.randint(100, 900))), draw.choice("xyts")
    pair = draw.choice(
        (
            (f"|{x}+{a}|", f"{x}+{a}"),
            (f"|{x}-{a}|", f"{a}-{x}"),
            (rf"\min({x},{a})", x),
            (rf"\max({x},-{a})", x),
            (rf"\sqrt{{{x}^2+{2 * a}{x}+{a * a}}}", f"{x}+{a}"),
            (rf"\frac{{|{x}+{a}|}}{{{x}+{a}}}", "1"),
            (f"|{x}|+|{x}+{a}|", f"|{x}|+{x}+{a}"),
        )
    )
    return draw.choice(
        ((*pair, False), (*pair[::-1], False), (f"|{x}-{a}|", f"|{a}-{x}|", True), (pair[0], pair[0], True))
    )


def letters_like_units(draw: random.Random):
    """Factors that are also units: m, g, h, hr, km; ordinals; and units after all."""
    a, b = draw.randint(2, 9), draw.randint(2, 9)
    one, two = draw.sample("mghJNWV", 2)
    return draw.choice(
        (
            (f"{a} {one} {two}", f"{a}", False),
            (f"{a} {one} {two}", f"{a}{two}{one}", True),
            (rf"\frac{{{a}}}{{{b}}} {one} {two}^2", rf"\frac{{{a}}}{{{b}}}", False),
            (rf"\frac{{1}}{{{a}}}hr", rf"\frac{{1}}{{{a}}}", False),
            (f"x^{{{a}}}yd", f"x^{a}", False),
            (f"s^2+t^2-{a}st", f"s^2+t^2-{a}", False),
            (f"{a} m/s^2", f"{a}", True),
            (f"{a}{b}4th", f"{a}{b}4", True),
            (f"{a}\\text{{ {one} }}{b}\\text{{ s}}", f"{a}\\text{{ {one}}}-{b}\\text{{ s}}", False),
            (f"{a}{one.upper()}+{b}B", f"{a}{one.upper()}-{b}B", False),
        )
    )


def cases_of_letters(draw: random.Random):
    """R and r are two letters where both occur, in formulas, names and orders."""
    a, b = draw.sample(range(2, 99), 2)
    x = draw.choice("rmxac")
    X, order = x.upper(), draw.sample("ABCD", 4)
    other = order[1:] + order[:1]
    return draw.choice(
        (
            (f"{X}-{x}", f"{x}-{X}", False),
            (f"{X}-{x}", f"-{x}+{X}", True),
            (f"{X}={a}, {x}={b}", f"{x}={a}, {X}={b}", False),
            (f"{X}={a}, {x}={b}", f"{x}={b}, {X}={a}", True),
            (f"{X}={a}", f"{x}={a}", True),
            ("".join(order), "".join(other), False),
            ("".join(order), rf"\text{{{''.join(order)}}}", True),
            (f"({x})({x}-{a})", f"({x})({x}-{b})", False),
        )
    )


def sums_of_indexed_letters(draw: random.Random):
    """Data in a sum: each x_i is another number; the letter of the sum may have another name."""
    i, j = draw.sample("ijk", 2)
    x, y = draw.sample("xyac", 2)
    a = draw.randint(2, 9)

    def total(term, letter=i):
        return rf"\sum_{{{letter}=1}}^{{n}} {term}"

    return draw.choice(
        (
            (total(f"{x}_{i}"), total(f"{x}_{j}", j), True),
            (total(f"{a}{x}_{i}"), f"{a}" + total(f"{x}_{i}"), True),
            (rf"\frac{{1}}{{n}}{total(f'{x}_{i}')}", f"{x}_{i}", False),
            (rf"({total(f'{x}_{i}')})^2", f"n{total(f'{x}_{i}^2')}", False),
            (total(f"{x}_{i} {y}_{i}"), total(f"{y}_{i} {x}_{i}"), True),
            (total(f"{x}_{i} {y}_{i}"), f"{x}_{i}{total(f'{y}_{i}')}", False),
        )
    )


def functions_and_differentials(draw: random.Random):
    """Functions of names other than f, and forms with several differentials, are no products."""
    f, a, b = draw.choice(("N", "P", "u", r"\Phi", r"\delta")), *draw.sample(range(2, 30), 2)
    return draw.choice(
        (
            (f"{f}(x+{a})-{f}(x-{a})", f"{f}(x+{b})-{f}(x-{b})", False),
            (f"{f}(x+{a})+{f}(x-{b})", f"{f}(x-{b})+{f}(x+{a})", True),
            (f"{f}(d_1)+{f}(d_2)", f"{f}(d_1+d_2)", False),
            (f"P(1+r)^{a}+P(1+r)", f"P(1+r)((1+r)^{{{a - 1}}}+1)", True),
            (rf"x\,dy-{a}y\,dx", rf"x\,dy\cdot(1-{a})", False),
            (rf"{a}x\,dy+y\,dx", rf"y\,dx+{a}x\,dy", True),
            (f"P(A)={a}", f"P(B)={a}", False),
            (f"f(t)={a}t", f"f(x)={a}x", True),
        )
    )


def conditions_and_systems(draw: random.Random):
    """And is not or; the values of one solution belong together; a condition belongs to its value."""
    a, b = draw.sample(range(2, 30), 2)
    joined = draw.choice((r" \text{ or } ", "; "))
    return draw.choice(
        (
            (rf"x>{a}\text{{ and }}y>{b}", rf"x>{a}\text{{ or }}y>{b}", False),
            (f"x={a}, y={b}{joined}x={b}, y={a}", f"x={a}, y={a}{joined}x={b}, y={b}", False),
            (f"x={a}, y={b}{joined}x={b}, y={a}", f"x={b}, y={a}{joined}x={a}, y={b}", True),
            (f"{a}, x<0; {b}, x>0", f"{b}, x<0; {a}, x>0", False),
            (f"y={a}", f"x+y={a}", False),
            (f"x={a}", f"-x={a}", False),
            (f"{a}", rf"x\not={a}", False),
            (rf"x\ne {a}", rf"x\not={a}", True),
            (f"x>{a}", rf"x>{a}, x\in\mathbb{{Z}}", False),
            (f"(-{a},{a})", f"x=-{a}, x={a}", False),
            (rf"(\pm {a}, \pm {b})", f"({a},{b}),(-{a},-{b})", False),
            (rf"(\pm {a}, \pm {b})", f"({a},{b}),(-{a},-{b}),(-{a},{b}),({a},-{b})", True),
            (rf"\mathbb{{R}}\cup({a},{a + 1})", f"({a},{a + 1})", False),
        )
    )


def words_that_change_a_value(draw: random.Random):
    """Scales and parts are no units."""
    a = draw.randint(2, 9)
    scale, value = draw.choice((("hundred", 100), ("thousand", 1000), ("million", 10**6)))
    part = draw.choice(("thirds", "halves", "tenths", "squared", "plus one", "factorial", "choose 2", "less than x"))
    han, factor = draw.choice((("百", 100), ("千", 1000), ("百万", 10**6), ("万", 10**4)))
    return draw.choice(
        (
            (f"{a * value}", rf"{a}\text{{ {draw.choice((scale, scale.title(), scale + 's'))}}}", True),
            (f"{a}", rf"{a}\text{{ {draw.choice((scale, scale.title(), scale + 's'))}}}", False),
            (f"{a * value * 100}", rf"{a}\text{{ hundred {scale}}}", True),
            (f"{a}", rf"{a}\text{{ {part}}}", False),
            (f"{a * factor}", f"{a}{han}", True),
            (f"{a}", f"{a}{han}", False),
            (f"{a}", f"{a}" + draw.choice(("个半小时", "折", "的平方")), False),
            (f"{a}°C", f"{a}°F", False),
            (f"{a}°C", rf"{a}^\circ\text{{C}}", True),
            (f"{a}23456789", f"{a}.2345679\\times 10^8", False),
        )
    )


def several_choices(draw: random.Random):
    """A choice of several letters in order, however they are joined. Products, tuples and orderings are none."""
    letters = sorted(draw.sample("ABCDEFGH", draw.randint(2, 4)))
    more = sorted([*letters, draw.choice([letter for letter in "ABCDEFGH" if letter not in letters])])
    joined = (", ".join, " and ".join, "".join, lambda some: "".join(f"({x})" for x in some), " & ".join)
    gold = rf"\text{{{draw.choice(joined[:2])(letters)}}}"
    return draw.choice(
        (
            (gold, rf"\text{{{draw.choice(joined)(letters)}}}", True),
            (gold, draw.choice(joined)(more), False),
            (gold, draw.choice(joined)(letters[:-1]), False),
            (r"\text{C, A, D, B}", r"\text{A, B, C, D}", False),
            (r"\text{A, B, C, D}", r"\text{C, A, D, B}", False),
            ("AC", "A, C", False),
            ("".join(more), ", ".join(more), True),
            ("(A, B)", "(B, A)", False),
            ("E, B", "EB", False),
            ("A B", "A, B", False),
            (r"A\,B", "A, B", False),
            ("F(A)", "A, F", False),
        )
    )


def words_after_numbers(draw: random.Random):
    """Words say what is counted, and may be left out; but they may also say which way."""
    n, noun = draw.randint(2, 99), draw.choice(("steps", "units", "feet", "points"))
    way, other = draw.choice(
        (("left", "right"), ("up", "down"), ("more", "less"), ("before", "after"), ("gained", "lost"))
    )
    gold = draw.choice((rf"{n}\text{{ {noun} {way}}}", f"{n} {noun} {way}", rf"{n}\text{{ }}\text{{{noun} {way}}}"))
    return draw.choice(
        (
            (gold, rf"{n}\text{{ {noun} {way}}}", True),
            (gold, f"{n} {noun} {way}", True),
            (gold, f"{n}", True),
            (gold, rf"{n}\text{{ {noun} {other}}}", False),
            (gold, f"{n} {noun} {other}", False),
            (gold, f"{n + 1} {noun} {way}", False),
        )
    )


def chinese_words(draw: random.Random):
    """Words are no products of their characters; of units, each is another one."""
    word = draw.sample("充分必要不条件甲乙丙上下", draw.randint(2, 6))
    n, units = draw.randint(2, 99), {"米": "m", "厘米": "cm", "平方米": "m^2", "千克": "kg", "小时": "h", "元": "元"}
    (one, usual), (other, _) = draw.sample(sorted(units.items()), 2)
    return draw.choice(
        (
            ("".join(word), "".join(word), True),
            ("".join(word), rf"\text{{{''.join(word)}}}", True),
            ("".join(word), "".join(word[::-1]), word == word[::-1]),
            (f"{n}{one}", rf"{n}\text{{ {usual}}}", True),
            (f"{n}{one}", f"{n}", True),
            (f"{n}{one}", f"{n}{other}", False),
            (f"{n}个人", f"{n}人", True),
            (f"{n}人", f"{n}天", False),
        )
    )


def times(draw: random.Random):
    """Times of the day and of a clock, and quantities in two units."""
    h, m, half = draw.randint(1, 12), draw.randint(10, 59), draw.choice("ap")
    other = "pa"["ap".index(half)]
    gold, amount = f"{h}:{m} {half}.m.", rf"{h}\text{{ hours }}{m}\text{{ minutes}}"
    return draw.choice(
        (
            (gold, draw.choice((f"{h}:{m} {half.upper()}M", rf"{h}:{m}\text{{ {half}.m.}}", f"{h}:{m}{half}m")), True),
            (gold, draw.choice((f"{h}:{m} {other}.m.", f"{h}:{m} {other.upper()}M", f"{h}:{m - 1} {half}.m.")), False),
            (amount, draw.choice((f"{h} h {m} min", f"{h} hours and {m} minutes")), True),
            (amount, draw.choice((f"{h} h {m + 1} min", f"{m} h {h} min", f"{h} min {m} h")), False),
        )
    )


def named_points(draw: random.Random):
    """A point may have its name, not another one's."""
    x, y = draw.randint(-9, 9), draw.randint(10, 19)
    return draw.choice(
        (
            (f"({x}, {y})", f"A({x}, {y})", True),
            (f"P({x}, {y})", f"({x}, {y})", True),
            (f"({x}, {y})", f"A({y}, {x})", False),
            (f"P({x}, {y})", f"Q({x}, {y})", False),
            (rf"\{{{-y}, {x}, {y}\}}", rf"x \in \{{{x}, \pm {y}\}}", True),
            (rf"\{{{x}, {y}\}}", rf"x \in \{{{x}, \pm {y}\}}", False),
            ("①③④", "①, ③, ④", True),
            ("①③④", "134", False),
        )
    )


def products_with_an_order(draw: random.Random):
    """Products of matrices and of vectors are not those in another order; products of numbers are."""
    P, A, B = draw.sample("ABCDPQ", 3)
    a, b = draw.sample("abuv", 2)
    return draw.choice(
        (
            (f"{P}^{{-1}}{A}{P}", rf"{P}^{{-1}} \cdot {A} {P}", True),
            (f"{P}^{{-1}}{A}{P}", f"{P}{A}{P}^{{-1}}", False),
            (f"({A}{B})^{{-1}}", f"{B}^{{-1}}{A}^{{-1}}", True),
            (f"({A}{B})^{{-1}}", f"{A}^{{-1}}{B}^{{-1}}", False),
            (f"{A}^T{B}", f"{A}^{{T}} {B}", True),
            (f"{A}^T{B}", f"{B}{A}^T", False),
            (rf"\frac{{{A}}}{{{B}}}", f"{B}^{{-1}}{A}", True),
            (rf"\vec{{{a}}}\times\vec{{{b}}}", rf"\vec {a} \times \vec {b}", True),
            (rf"\vec{{{a}}}\times\vec{{{b}}}", rf"\vec{{{b}}}\times\vec{{{a}}}", False),
            (rf"\vec{{{a}}}\times\vec{{{b}}}", rf"\vec{{{a}}}\cdot\vec{{{b}}}", False),
            (rf"\mathbf{{{a}}}\cdot\mathbf{{{b}}}", rf"\mathbf{{{a}}}\times\mathbf{{{b}}}", False),
            (rf"\vec{{{a}}}\cdot\vec{{{b}}}", rf"\vec{{{b}}}\cdot\vec{{{a}}}", True),
        )
    )


def antiderivatives(draw: random.Random):
    """Two of one function differ by a constant, if both say so."""
    a, b, c = draw.randint(2, 9), draw.randint(2, 9), draw.randint(1, 9)
    gold = rf"{a}x^{b} - \cos {c}x + C"
    return draw.choice(
        (
            (gold, rf"{a}x^{b} + {c} + 2\sin^2 \frac{{{c}x}}{{2}} + C", True),
            (gold, rf"{a}x^{b} + {c} - \cos {c}x + C", True),
            (gold, rf"{a}x^{b} + {c} - \cos {c}x", False),
            (gold, rf"{a}x^{b} + x - \cos {c}x + C", False),
            (gold, rf"{a}x^{b} + \cos {c}x + C", False),
            (f"{a}x + c", f"{a}x + {b} + c", False),
            ("Ax + By + C", f"Ax + By + {b} + C", False),
        )
    )


def classes_and_ranges(draw: random.Random):
    """Remainders, whole numbers between dots, intervals with turned brackets, sets in sets, moduli."""
    m, low = draw.randint(3, 9), draw.randint(-5, 5)
    high, r = low + draw.randint(6, 20), draw.randrange(m)
    shown = [", ".join(map(str, range(low, low + n))) for n in (2, 3)]
    return draw.choice(
        (
            (rf"x \equiv {r} \pmod{{{m}}}", rf"x \equiv {r + m * draw.randint(-3, 3)} \pmod {m}", True),
            (rf"x \equiv {r} \pmod{{{m}}}", rf"x \equiv {r + 1} \pmod{{{m}}}", False),
            (rf"x \equiv {r} \pmod{{{m}}}", rf"x \equiv {r} \pmod{{{m + 1}}}", False),
            (rf"\{{{shown[0]}, \ldots, {high}\}}", rf"\{{{shown[1]}, \dots, {high}\}}", True),
            (rf"\{{{shown[0]}, \ldots, {high}\}}", rf"\{{{', '.join(map(str, range(low, high + 1)))}\}}", True),
            (rf"\{{{shown[0]}, \ldots, {high}\}}", rf"\{{{shown[1]}, \dots, {high + 1}\}}", False),
            (r"\{1, 2, 4, \ldots, 64\}", r"\{1, 2, 4, 6, 8, \ldots, 64\}", False),
            (rf"{shown[0]}, \ldots, n", rf"{shown[1]}, \dots, n", True),
            (rf"{shown[0]}, \ldots, n", rf"{shown[0]}, {high}, \dots, n", False),
            (rf"{shown[0]}, \ldots, n", rf"{shown[1]}, \dots, n-1", False),
            (f"({low}, {high})", f"]{low}, {high}[", True),
            (f"[{low}, {high})", f"[{low}, {high}[", True),
            (f"[{low}, {high}]", f"]{low}, {high}]", False),
            (rf"\{{{low}, \{{{high}\}}\}}", rf"\{{{low}, {high}\}}", False),
            (f"|z|^{m}", f"z^{m}", False),
            (f"|z|^{m} + {m}", rf"{m} + |z| \cdot |z|^{m - 1}", True),
            ("|x|^2", "x^2", True),
        )
    )


def families(draw: random.Random):
    """General solutions may count from another number, or backwards; other periods and starts are other families."""
    top, bottom, shift = draw.randint(1, 5), draw.choice((3, 4, 6)), draw.randint(1, 3)
    period = draw.choice((1, 2))
    gold = rf"x = \frac{{{top}\pi}}{{{bottom}}} + {period}k\pi, k \in \mathbb{{Z}}"
    moved = rf"x = \frac{{{top - shift * period * bottom}\pi}}{{{bottom}}} + {period}n\pi, n \in \mathbb{{Z}}"
    return draw.choice(
        (
            (gold, moved, True),
            (gold, moved.replace("+", "-"), True),
            (gold, moved.replace(f"{period}n", f"{3 - period}n"), False),
            (gold, rf"x = \frac{{{top + 1}\pi}}{{{bottom}}} + {period}n\pi, n \in \mathbb{{Z}}", False),
            (gold, moved.replace("Z", "N"), False),
            (rf"{30 * top}^\circ", rf"{30 * top}\text{{ degrees}}", True),
            (rf"{30 * top}^\circ", f"{30 * top}", True),
            (rf"{30 * top}^\circ", rf"{30 * top}\text{{ rad}}", False),
            (rf"{top}^\circ\text{{ north of east}}", rf"{top}^\circ\text{{ east of north}}", False),
            (rf"[0^\circ, {top}^\circ)", rf"[0, {top})", True),
        )
    )


def no_solution(draw: random.Random):
    """The empty set in signs and in words, and a limit that does not exist; neither is a number or another set."""
    empty = (
        r"\emptyset",
        r"\varnothing",
        r"\{\}",
        r"\text{no solution}",
        r"\text{There are no solutions.}",
        "∅",
        r"\text{no real solutions}",
    )
    absent = ("DNE", r"\text{does not exist}", r"\text{The limit does not exist.}", r"\text{limit does not exist}")
    wrong = ("0", r"\{0\}", r"\{\emptyset\}", r"\text{one solution}", r"\text{no solution, 3}", r"\infty")
    gold = draw.choice((empty, absent))
    return draw.choice(
        (
            (draw.choice(gold), draw.choice(gold), True),
            (draw.choice(gold), draw.choice(wrong), False),
            (draw.choice(wrong), draw.choice(gold), False),
            (draw.choice(empty), draw.choice(absent), False),
        )
    )


def whole_number_parameters(draw: random.Random):
    """A letter that an answer declares a whole number may have any name; the declaration has many forms."""
    a, b = draw.randint(2, 9), draw.randint(2, 9)
    ours, theirs = draw.sample("kmn", 2)
    over = draw.choice((">", r"\gt ", r"\geq ", r"\ge ", r"\geqslant ", r"\ne "))
    whole = (
        r", {} \in \mathbb{{Z}}", r",\ {}\in\mathbb Z", r" ({}\in Z)", r"\quad {} \in \mathbf{{Z}}",
        r", {} ∈ ℤ", r";\; {}\in\Z", r"\text{{ where }} {} \text{{ is an integer}}",
        r", \text{{where }} {} \text{{ is any integer}}.",
        r"\text{{ for any integer }} {}", r", \text{{ with }} {}\in\mathbb{{Z}}", r", \forall {}\in\mathbb{{Z}}",
        r" where {} is an integer",
    )  # fmt: skip
    natural = (
        r", {}\in\mathbb{{N}}",
        r", {} \in \mathbb{{Z}}^+",
        r"\text{{ for positive integers }} {}",
        r"({}\in N^*)",
    )
    of_ours, of_theirs = draw.choice(whole).format(ours), draw.choice(whole).format(theirs)
    gold, answer = rf"\frac{{\pi}}{{{a}}}+{b}{ours}\pi", rf"{b}{theirs}\pi+\frac{{\pi}}{{{a}}}"
    return draw.choice(
        (
            (gold + of_ours, answer + of_theirs, True),
            (gold, answer.replace(theirs, ours) + of_ours, True),
            (rf"\{{{b}{ours}\pi : {ours}\in\mathbb{{Z}}\}}", rf"{b}{theirs}\pi" + of_theirs, True),
            (rf"{b}{ours}\pi" + of_ours, rf"x\in\{{{b}{theirs}\pi \mid {theirs}\in\mathbb{{Z}}\}}", True),
            (rf"A=\{{{b}{ours} : {ours}\in\mathbb{{Z}}\}}", rf"\{{{b}{theirs} \mid {theirs}\in Z\}}", True),
            (
                rf"\{{{b}{ours} : {ours}\in\mathbb{{Z}}\}}\cup\{{1\}}",
                rf"\{{1\}}\cup\{{{b}{theirs} : {theirs}\in\mathbb{{Z}}\}}",
                True,
            ),
            (rf"e^{{{b}\pi {ours}i/{a}}}" + of_ours, rf"e^{{{b}{theirs}\pi i/{a}}}" + of_theirs, True),
            (gold + draw.choice(natural).format(ours), answer + draw.choice(natural).format(theirs), True),
            (gold + of_ours, answer + draw.choice(natural).format(theirs), False),
            (gold + draw.choice(natural).format(ours), answer.replace(theirs, ours) + of_ours, False),
            (gold + of_ours, rf"{b + 1}{theirs}\pi+\frac{{\pi}}{{{a}}}" + of_theirs, False),
            (gold + of_ours, rf"{b}{ours}\pi+\frac{{\pi}}{{{a}}}+{theirs}" + of_theirs, False),
            (rf"{ours}={a}" + of_ours, rf"{theirs}={a}" + of_theirs, False),
            (rf"{ours}{over}{a}" + of_ours, rf"{theirs}{over}{a}" + of_theirs, False),
            (rf"{ours}^2" + of_ours, rf"{theirs}{ours.upper()}" + of_theirs, False),
            (r"\mathbb{Z}", rf"{ours} \in \mathbb{{Z}}^+", False),
        )
    )


def unit_vectors(draw: random.Random):
    """A sum along i, j and k is the vector of its factors; i alone is the complex unit."""
    x, y, z = (draw.choice((-3, -2, 2, 3, 5)) for _ in range(3))
    i, j, k = draw.choice(
        (
            tuple(rf"\mathbf{{{c}}}" for c in "ijk"),
            tuple(rf"\vec{{{c}}}" for c in "ijk"),
            (r"\hat{\imath}", r"\hat{\jmath}", r"\hat{k}"),
        )
    )
    flat, solid = rf"{x}{i}{y:+d}{j}", rf"{x}{i}{y:+d}{j}{z:+d}{k}"
    return draw.choice(
        (
            (flat, f"({x},{y})", True),
            (f"({x},{y})", flat, True),
            (solid, rf"\langle {x},{y},{z}\rangle", True),
            (solid, rf"\begin{{pmatrix}}{x}\\{y}\\{z}\end{{pmatrix}}", True),
            (rf"{x}{i}{z:+d}{k}", f"({x},0,{z})", True),
            (rf"\frac{{1}}{{2}}{i}-{j}", r"(\frac12,-1)", True),
            (rf"(x+{abs(x)}){i}+x^2{j}", f"(x+{abs(x)}, x^2)", True),
            (rf"{j}{x:+d}{i}", f"({x},1)", True),
            (flat, f"({x},{-y})", False),
            (flat, f"({y},{x})" if x != y else "(1,1)", False),
            (solid, f"({x},{y})", False),
            (rf"{abs(x)}+{abs(y)}i", rf"{abs(y)}\mathbf{{i}}+{abs(x)}\mathbf{{j}}", False),
        )
    )


def number_words(draw: random.Random):
    """A word for a number changes the value before it; as part of a noun it does not."""
    n, few = draw.randint(2, 9), draw.choice(("two", "five", "nine", "twelve", "fifteen", "twenty", "ninety"))
    changed = draw.choice(
        (f"out of {few}", f"in {few}", f"point {few}", f"times {few}", f"less {few}", f"in base {few}", f"mod {few}",
         f"take away {few}", "twentieths", "elevenths", "eighths", "fifths", "ninths", "twelfths", "tens", "score",
         "halves", "negative", "parts per million", "repeating", "hundredths", few)
    )  # fmt: skip
    counted = draw.choice((f"{few}-dollar bills", f"{few}-digit numbers", "apples", "times", "girls in the room",
                           "in total", "in all", "points of intersection", "times a week", "canteens"))  # fmt: skip
    return draw.choice(
        (
            (f"{n}", rf"{n}\text{{ {changed}}}", False),
            (f"{n}", f"{n} {changed}", False),
            (f"{n}", rf"{n}\text{{ {counted}}}", True),
        )
    )


def ranges_of_hundreds(draw: random.Random):
    """A comma between brackets joins no thousands: (5,120) is a point or a range."""
    low, high = draw.randint(1, 99), draw.choice((draw.randint(100, 999), 500))
    opening, closing = draw.choice(("()", "[]", "[)", "(]"))
    text = f"{opening}{low},{high}{closing}"
    return draw.choice(
        (
            (text, f"{opening}{low}, {high}{closing}", True),
            (text, f"{low}{high}", False),
            (f"{low}{high}", text, False),
            (f"{opening}0,{high}{closing}", f"{high}", False),
            (f"{high}", f"{opening}0,{high}{closing}", False),
            (f"{low}{high}", f"{low},{high}", True),
            (f"{low},000", f"({low},000)", True),
            (f"{opening}{low},000, {high},000{closing}", f"{opening}{low}000, {high}000{closing}", True),
            (f"{low}/{high}", f"{low}/{high} cups", True),
        )
    )


def sets_by_letters(draw: random.Random):
    """A and B are any sets: A ∩ B is B ∩ A, and neither empty nor A."""
    a, b, c = draw.sample((*"ABCST", r"\mathbb{Q}", "[0,5]"), 3)
    cap, minus = rf"{a}\cap {b}", rf"{a}\setminus {b}"
    other = draw.choice((rf"{a}\cap {c}", r"\emptyset", r"\{\}", rf"{a}\cup {b}", a, minus, c))
    return draw.choice(
        (
            (cap, rf"{b} \cap {a}", True),
            (cap, other, False),
            (minus, rf"{a} \setminus {b}", True),
            (minus, draw.choice((a, rf"{b}\setminus {a}", rf"{a}\setminus {c}", cap, rf"{a}\setminus\{{1\}}")), False),
        )
    )


OF_X = {
    "sinh": (mpmath.sinh, r"\frac{e^x-e^{-x}}{2}"), "cosh": (mpmath.cosh, r"\frac{e^x+e^{-x}}{2}"),
    "tanh": (mpmath.tanh, r"\frac{\sinh x}{\cosh x}"), "sech": (mpmath.sech, r"\frac{1}{\cosh x}"),
    "csch": (mpmath.csch, r"\frac{1}{\sinh(x)}"), "sec": (mpmath.sec, r"1/\cos x"),
    "sinh^{-1}": (mpmath.asinh, r"\ln(x+\sqrt{x^2+1})"), "tanh^{-1}": (mpmath.atanh, r"\frac12\ln\frac{1+x}{1-x}"),
    "sin^{-1}": (mpmath.asin, r"\frac{\pi}{2}-\arccos x"), "coth": (mpmath.coth, r"\frac{1}{\tanh x}"),
    "arcsinh": (mpmath.asinh, r"\operatorname{arsinh}(x)"), "arctanh": (mpmath.atanh, r"\text{artanh}\,x"),
}  # fmt: skip


def inverse_functions(draw: random.Random):
    """An inverse is no reciprocal; each of these functions has a form in others."""
    (name, (value, form)), (other, (another, other_form)) = (draw.choice(list(OF_X.items())) for _ in range(2))
    same = mpmath.almosteq(value(0.4), another(0.4))
    written = draw.choice((rf"\{other}(x)", rf"\operatorname{{{other}}}(x)" if "^" not in other else rf"\{other} x"))
    return rf"\{name}(x)", draw.choice((written, other_form)), same


def over_all_numbers(draw: random.Random):
    """ "for all real x" says nothing more; for whole numbers, it is another function."""
    a, b = draw.randint(2, 9), draw.randint(1, 9)
    tail = draw.choice(
        (
            r" \text{ for all real } x", r" \text{ for all } x \in \mathbb{R}", r", \forall x\in\mathbb{R}",
            r" \text{ for all } x", r", x\in\mathbb R",
            r" \text{ for all real numbers } x", r" \text{ for any real number } x",
        )
    )  # fmt: skip
    constant = draw.choice(
        (r", c\in\mathbb{R}", r" \text{ where } c \text{ is a constant}", r" \text{ for some constant } c",
         r", \text{ where } c \text{ is any real number}")
    )  # fmt: skip
    return draw.choice(
        (
            (f"f(x)={a}x+{b}", f"f(x)={b}+{a}x{tail}", True),
            (f"f(x)={a}x+{b}{tail}", f"f(x)={a}x+{b}", True),
            (f"f(x)={a}x+{b}", f"f(x)={a}x-{b}{tail}", False),
            (f"f(x)={a}cx", f"f(x)={a}cx{constant}", True),
            (f"f(x)={a}cx", f"f(x)={a}x{constant}", False),
            (f"{a}t{tail}".replace("x", "t"), rf"{a}t, t\in\mathbb{{Z}}", False),
            (r"\mathbb{R}", r"\text{all real numbers } x", True),
            (f"x+{a}", rf"x+{a}, x\ne {b}", True),
            (f"x+{a}", rf"x+{a} \text{{ for }} x\neq {b}", True),
            (f"x+{a}", rf"x-{a}, x\ne {b}", False),
        )
    )


def shares_in_words(draw: random.Random):
    """Words after a percent sign may be left out, but an increase is no decrease."""
    n = draw.randint(2, 99)
    words = draw.choice(
        (r" \text{ of the class}", " of students", r"\text{ increase}", r" \text{ chance}", " more", "% off")
    )
    return draw.choice(
        (
            (rf"{n}\%", rf"{n}\%{words}", True),
            (rf"{n}\%{words}", rf"{n}\%", True),
            (rf"{n}\%", rf"{n + 1}\%{words}", False),
            (rf"{n}\%\text{{ increase}}", rf"{n}\%\text{{ decrease}}", False),
            (rf"{n}\%\text{{ more}}", rf"{n}\% less", False),
        )
    )


def currencies(draw: random.Random):
    """Money of one currency is none of another."""
    n = draw.randint(2, 999)
    forms = {"dollar": (rf"\${n}", rf"{n}\text{{ dollars}}", rf"\text{{\$}}{n}"), "pound": (f"£{n}", rf"\pounds {n}"),
             "euro": (f"€{n}", rf"{n}\text{{ euros}}"), "yuan": (f"¥{n}", f"{n}元")}  # fmt: skip
    one, other = draw.choice(sorted(forms)), draw.choice(sorted(forms))
    return draw.choice(
        (
            (draw.choice(forms[one]), draw.choice(forms[other]), one == other),
            (draw.choice(forms[one]), f"{n}", True),
            (f"{n}", draw.choice(forms[one]), True),
            (draw.choice(forms[one]), draw.choice(forms[one]).replace(str(n), str(n + 1)), False),
        )
    )


def rates(draw: random.Random):
    """An amount for each hour is no amount."""
    n, unit, time = draw.randint(2, 99), draw.choice(("miles", "liters", "meters")), draw.choice(("hour", "minute"))
    rate = rf"{n}\text{{ {unit} per {time}}}"
    return draw.choice(
        (
            (
                rate,
                draw.choice(
                    (f"{n} {unit} each {time}", rf"{n}\text{{ {unit}/{time}}}", rf"{n}\text{{ {unit} every {time}}}")
                ),
                True,
            ),
            (rf"{n}\text{{ {unit}}}", f"{n} {unit} each {time}", False),
            (rate, rf"{n}\text{{ {unit}}}", False),
            (rf"{n}\text{{ mph}}", f"{n} miles each hour", True),
            (rf"{n}\text{{ mph}}", rf"{n}\text{{ kph}}", False),
            (f"{n}", rf"\${n}/\text{{{time}}}", True),
        )
    )


GENERATORS = [
    floors, halves, divisors, parities, tiny, radicals, products_of_functions, swallowed, indexed_letters,
    positive_quantities, inequalities, systems, sets, matrices, plain_text, units, letters_that_are_no_units,
    escaped_and_chinese, several_choices, no_solution, whole_number_parameters,
    unit_vectors, words_after_numbers, chinese_words, times, named_points, products_with_an_order, antiderivatives,
    classes_and_ranges, families, parts_of_a_hundred, fractions_and_bases,
    corners, letters_like_units, cases_of_letters, sums_of_indexed_letters, functions_and_differentials,
    conditions_and_systems, words_that_change_a_value, number_words, ranges_of_hundreds, sets_by_letters,
    inverse_functions, over_all_numbers, shares_in_words, currencies, rates,
]  # fmt: skip


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.__name__)
def test_a_drawn_answer_gets_the_verdict_that_the_mathematics_gives(generator):
    draw = random.Random(generator.__name__)
    drawn = dict.fromkeys(generator(draw) for _ in range(60))
    assert {right for *_, right in drawn} == {True, False}
    assert [(*pair, right) for *pair, right in drawn if (compare(*pair) == EQUAL) != right] == []


def test_a_floor_is_taken_at_whole_numbers_of_every_kind():
    for k in range(2, 8):
        for d in range(1, k):
            gold, answer = rf"\lfloor n/{k}\rfloor", rf"\lfloor (n+{d})/{k}\rfloor"
            assert compare(gold, answer) != EQUAL
    assert compare(r"\lfloor x\rfloor", "x") != EQUAL
    assert compare(r"\lfloor\log_2 n\rfloor", r"\lceil\log_2(n+1)\rceil-1") == EQUAL


def test_binomials_are_those_of_the_definition():
    for n in range(12):
        for k in range(n + 1):
            assert compare(str(mathematics.comb(n, k)), rf"\binom{{{n}}}{{{k}}}") == EQUAL
            assert compare(str(mathematics.comb(n, k) + 1), rf"\binom{{{n}}}{{{k}}}") != EQUAL


def test_a_finite_sum_is_the_sum_of_its_terms():
    draw = random.Random(7)
    for _ in range(20):
        a, b, n = draw.randint(1, 5), draw.randint(-3, 3), draw.randint(1, 30)
        value = sum(Fraction(a * k + b, k) for k in range(1, n + 1))
        text = rf"\sum_{{k=1}}^{{{n}}} \frac{{{a}k{b:+d}}}{{k}}"
        assert compare(f"{value.numerator}/{value.denominator}", text) == EQUAL
        assert compare(f"{value.numerator + 1}/{value.denominator}", text) != EQUAL


# The text around an answer.

ENDS = [
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "<|end_of_text|>", "<end_of_turn>", "[|endofturn|]",
    "</s>", "<eos>", "<seed:eos>", "<|return|>", "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>", "<|user|>",
    "<|role_end|>",
    "<SPECIAL_12>", "<|endofturn|>", "<end_of_utterance>", "[EOS]", "<pad><pad>",
]  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("answer", ["Answer: 5", "#### 5", r"\boxed{5}"])
def test_the_token_that_ends_a_turn_is_no_part_of_the_answer(answer, end):
    assert verify(f"We add.\n{answer}{end}", "5").correct
    assert verify(response_of(f"Q: We add.\n{answer}{end}\n", "Q:"), "5").correct
    assert not verify(f"We add.\n{answer}{end}", "6").correct


def test_a_channel_of_thoughts_is_thinking_and_the_final_one_is_the_answer():
    thought = r"<|channel|>analysis<|message|>maybe \boxed{4}<|end|>"
    answer = r"<|start|>assistant<|channel|>final<|message|>It is \boxed{5}.<|return|>"
    for response in (thought + answer, response_of("Q" + thought + answer, "Q")):
        assert verify(response, "5").correct and not verify(response, "4").correct
    assert verify(thought, "4").status == "no_answer"


@pytest.mark.parametrize(
    ("response", "gold", "correct"),
    [
        (r"The roots are $\boxed{1}$ and $\boxed{2}$.", "1, 2", True),
        (r"\boxed{2}, \boxed{1}", "1, 2", True),
        (r"\(\boxed{1}\), \(\boxed{2}\) and \(\boxed{3}\)", r"\{1,2,3\}", True),
        (r"\boxed{1}, \boxed{2}", "2", True),
        (r"\boxed{1}, \boxed{2}, \boxed{3}", "1, 2", False),
        (r"\boxed{1}, \boxed{2}", "1, 2, 3", False),
        (r"First \boxed{1}. Then we find \boxed{2}.", "1, 2", False),
        (r"\boxed{1} and \boxed{2}", "1", False),
        ("\\boxed{1} and \\boxed{2}\nAnswer: 1", "1, 2", False),
        (r"\boxed{5} or \boxed{6}", "5", False),
    ],
)
def test_neighbouring_boxes_are_a_list_if_the_gold_is_exactly_it(response, gold, correct):
    assert verify(response, gold).correct is correct


@pytest.mark.parametrize(
    "response", [r"\boxed{5}. No, it is \boxed{", r"\boxed{5} and \boxed{\frac{1}{", "Answer: 5\nSo \\boxed{6"]
)
def test_a_response_that_is_cut_off_in_its_last_box_has_no_answer(response):
    assert verify(response, "5").status == "no_answer"
    assert verify(response + r"5}}}. So \boxed{5}", "5").correct


@pytest.mark.parametrize("response", [r"So \\boxed{5}.", r"\\[ x = \\boxed{5} \\]", r"x \\ \boxed{5}", r"\\\boxed{5}"])
def test_a_box_is_found_in_an_escaped_text(response):
    assert verify(response, "5").correct and not verify(response, "6").correct
