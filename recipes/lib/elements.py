"""What each table and figure of the paper takes: trainings, evaluations, and the picture."""

from __future__ import annotations

from typing import NamedTuple


class Training(NamedTuple):
    """A run of a recipe; `variant` names what `flags` change."""

    recipe: str
    method: str
    flags: tuple[str, ...] = ()
    variant: str = ""

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.recipe, self.method, self.variant)))


# A row of a table: its models by the data sets that they are evaluated on. A str is an untrained model of the hub.
Row = dict[tuple[str, ...], Training | str]


class Figure(NamedTuple):
    """A picture of `cli.plot`, of runs by label; `sources`: the data sources that it shows."""

    plot: str
    runs: dict[str, Training]
    sources: tuple[str, ...] = ()


class Distribution(NamedTuple):
    """Figures 3 and 9: log-probability by reward, of one evaluation with 16 answers a question."""

    model: str
    sets: tuple[str, ...]


HARD = ("aime25", "aime24", "amc", "math500", "minerva", "olympiadbench")
EASY = ("math_test", "gsm8k_test")
R1 = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
UNTRAINED = ("Qwen/Qwen2.5-Math-1.5B", "Qwen/Qwen2.5-Math-1.5B-Instruct", R1)
LEVELS = (
    ("0.2", "0.8"),
    ("0.1", "0.8"),
    ("0.3", "0.8"),
    ("0.4", "0.8"),
    ("0.2", "0.6"),
    ("0.2", "0.7"),
    ("0.2", "0.9"),
)
CURVES = "curves"  # a variant of math_hard that evaluates all six sets, 32 answers a problem, from step 0 on


def hard(method: str) -> Training:
    return Training("math_hard", method, variant=CURVES if method in ("grpo", "paper") else "")


def easy(*flags: str) -> Row:
    """Math by the method `paper` with some knobs changed; the paper's own values share one run."""
    values = dict(zip(flags[::2], flags[1::2], strict=True))
    own = {"alpha": "0.2", "beta": "0.8", "bundle_size": "5", "omega": "0.5"}
    changed = {name: value for name, value in values.items() if own.get(name) != value}
    words = tuple(word for name, value in changed.items() for word in (f"--algo.riskpo.{name}", value))
    return {EASY: Training("math_easy", "paper", words, "-".join(f"{n}{v}" for n, v in changed.items()))}


METHODS = {"GRPO": "grpo", "DAPO": "dapo", "RiskPO": "paper"}
BOTH = {"GRPO": hard("grpo"), "RiskPO": hard("paper")}
SEEKING = Training("math_easy", "paper", ("--algo.riskpo.profile", "seeking"), "seeking")
TABLES: dict[str, dict[str, Row]] = {
    "table1": {
        **{model.split("/")[1]: {HARD: model} for model in UNTRAINED},
        **{
            label: {HARD: hard(method)}
            for label, method in {"Dr.GRPO": "dr_grpo", "GPG": "gpg", "GMPO": "gmpo", **METHODS}.items()
        },
    },
    "table2": {
        label: {
            EASY: Training("math_easy", method),
            ("livecodebench_v5",): Training("code", method),
            ("geometry3k_test",): Training("geometry", method),
        }
        for label, method in METHODS.items()
    },
    "table3": {f"{alpha} {beta}": easy("alpha", alpha, "beta", beta) for alpha, beta in LEVELS},
    "table4": {str(size): easy("bundle_size", str(size)) for size in range(1, 11)},
    "table5": {omega: easy("omega", omega) for omega in ("0.0", "0.1", "0.5", "0.6", "1.0")},
}  # fmt: skip
FIGURES: dict[str, Figure | Distribution] = {
    "figure1": Figure("learning", BOTH, ("aime24",)),
    "figure3": Distribution(R1, ("dapo_math_17k",)),
    "figure4": Figure("passk", BOTH, ("amc", "math500")),
    "figure5": Figure("dynamics", BOTH),
    "figure6": Figure(
        "profiles", {"risk-averse": Training("math_easy", "paper"), "risk-seeking": SEEKING}, ("math_test",)
    ),
    "figure7": Figure("avgk", BOTH, ("aime24", "aime25")),
    "figure8": Figure("passk", BOTH, ("minerva", "olympiadbench")),
    "figure9": Distribution(R1, ("amc", "math_test", "minerva", "olympiadbench")),
}

TRAINED_ON = {
    "math_hard": ("dapo_math_17k",), "math_easy": ("math_train", "gsm8k_train"), "code": ("archer_code",),
    "geometry": ("geometry3k_train",),
}  # fmt: skip

TESTED_ON = {
    "math_hard": ("aime24", "aime25", "amc", "math500"), "math_easy": EASY, "code": ("livecodebench_v5",),
    "geometry": ("geometry3k_test",),
}  # fmt: skip
# What `--smoke` takes of a table unless --rows says otherwise: each kind of row once.
SMOKE_ROWS = {
    "table1": (R1.split("/")[1], "Dr.GRPO", "GRPO", "GPG", "DAPO", "GMPO", "RiskPO"),
    "table2": ("DAPO", "RiskPO"), "table3": ("0.2 0.8", "0.1 0.8", "0.2 0.6"), "table4": ("1", "5", "10"),
    "table5": ("0.0", "0.5"),
}  # fmt: skip

# For the estimate of hours and disk. Rollouts of a run: docs/recipes.md, "Settings".
ROLLOUTS = {"math_hard": 330, "math_easy": 290, "code": 130, "geometry": 120}
STEPS = {"released-dapo": 500, "released-math": 200, "released-seeking": 200}  # methods with a length of their own
PROBLEMS = {
    "dapo_math_17k": 17398, "aime25": 30, "aime24": 30, "amc": 83, "math500": 500, "minerva": 272,
    "olympiadbench": 674, "math_test": 5000, "gsm8k_test": 1319, "livecodebench_v5": 279, "geometry3k_test": 601,
}  # fmt: skip
# Answers of one evaluation while training.
EVALUATED = {"math_hard": 643 * 16, "math_easy": 6319 * 2, "code": 279 * 4, "geometry": 601 * 4, CURVES: 1589 * 32}
RESPONSES, EVALUATE_EVERY = 5120, 20  # responses a rollout; rollouts between evaluations
SIXTEEN = "16 answers"  # how figures 3 and 9 are sampled
DISTRIBUTION = {"n": 16, "temperature": 0.8, "top_p": 1, "max_new_tokens": 3072}
# Assumed, not measured: an answer's mean share of its token limit, and tokens a second and GPU for 1.5 billion
# parameters.
LIMIT, SHARE, GENERATED, TRAINED = 3072, 2 / 3, 3000, 12000
SMALL, PARAMETERS = 1.78e9, {"geometry": 3.75e9}


def training_disk(training: Training) -> float:
    """Return the GB of a finished run: three checkpoints of 14 bytes a parameter, and a model of 2."""
    return (3 * 14 + 2) * PARAMETERS.get(training.recipe, SMALL) / 1e9


def training_hours(training: Training) -> float:
    """Estimate the GPU hours of a run from the assumed speeds."""
    rollouts = STEPS.get(training.method, ROLLOUTS[training.recipe])
    trained = rollouts * RESPONSES * SHARE * LIMIT
    answers = (rollouts // EVALUATE_EVERY + 1) * EVALUATED[CURVES if training.variant == CURVES else training.recipe]
    seconds = (trained + answers * SHARE * LIMIT) / GENERATED + trained / TRAINED
    return seconds * PARAMETERS.get(training.recipe, SMALL) / SMALL / 3600


def evaluation_hours(setting: str, sets: tuple[str, ...]) -> float:
    """Estimate the GPU hours of an evaluation. `setting`: of `cli.evaluate`, or SIXTEEN."""
    from riskpo_openrlhf.evaluation.problems import PAPER, SAMPLING

    tokens = 0.0
    for name in sets:
        how = PAPER if setting == "paper" else SAMPLING.get(name)
        n, limit = (DISTRIBUTION["n"], LIMIT) if setting == SIXTEEN else (how.n, how.max_new_tokens)
        tokens += PROBLEMS[name] * n * SHARE * limit
    return tokens / GENERATED / 3600
