"""What a run's folder tells beside its metrics: command, log, sample answers."""

from __future__ import annotations

import re
import shlex
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from riskpo_openrlhf.analysis.evaluations import right_and_wrong, summaries
from riskpo_openrlhf.config import RiskPOConfig

SHOWN = 2000  # characters of an answer
TAIL = 15  # lines of the log
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_SECRET = re.compile(r"(wandb\.key|api_?key|token|secret|password)$")
_TEXT = "train/generated_samples/text_summary"
# As OpenRLHF's logger writes it, with a backslash and an n where a line should end.
_GENERATED = re.compile(r"Sample:\\n(?P<text>.*)\\n\\nReward: (?P<reward>\S+)$", re.DOTALL)


@dataclass
class Log:
    """Of train.log: how far the job came, what it said beside its steps, and its last lines."""

    step: str = ""
    done: bool = False
    messages: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)

    @property
    def settings(self) -> str:
        return next((message for message in reversed(self.messages) if message.startswith("RiskPO preset")), "")


@dataclass(frozen=True)
class Sample:
    """An answer: where it comes from, its text, its reward (None without a verdict)."""

    origin: str
    text: str
    reward: float | None


def read_command(run: Path) -> list[tuple[str, str]]:
    """(flag, value) of the recipe's command.sh, the last of a flag only, secrets covered; [] without that file."""
    if not (run / "command.sh").is_file():
        return []
    flags: dict[str, list[str]] = {}
    for word in shlex.split((run / "command.sh").read_text(encoding="utf-8", errors="replace")):
        if word.startswith("--") and len(word) > 2:
            flag, mark, value = word.partition("=")
            values = flags[flag] = [value] if mark else []
        elif flags:
            values.append(word)
    return [(flag, "(hidden)" if _SECRET.search(flag) else " ".join(values)) for flag, values in flags.items()]


def read_log(run: Path) -> Log:
    log, tail = Log(), deque(maxlen=TAIL)
    if (run / "train.log").is_file():
        with open(run / "train.log", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                line = _COLOUR.sub("", line).rstrip()
                tail.append(line)
                _, mark, message = line.partition("[riskpo] ")
                if message.startswith("step "):
                    log.step = message.split(" | ")[0]
                elif mark and message == "done":
                    log.done = True
                elif mark and not message.startswith("eval") and message not in log.messages:
                    log.messages.append(message)
    log.tail = list(tail)
    return log


def levels(settings: str) -> tuple[float, float] | None:
    """alpha and beta from the line `RiskPOConfig.describe` left in the log; None if there is none."""
    if not settings.startswith("RiskPO preset "):
        return None
    # Not from today's presets: the line says all that differs from the paper, and a run may be older than they are.
    paper = {"alpha": RiskPOConfig.alpha, "beta": RiskPOConfig.beta}
    told = paper | dict(re.findall(r"(alpha|beta)=(\S+) \((?:preset|paper) ", settings))
    return float(told["alpha"]), float(told["beta"])


def generated_samples(home: Path, number: int = 6) -> list[Sample]:
    """Answers of the rollouts, as OpenRLHF logged one a step, spread evenly over the run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(home), size_guidance={"tensors": 0})
    events.Reload()
    texts = (
        {e.step: e.tensor_proto.string_val for e in events.Tensors(_TEXT)} if _TEXT in events.Tags()["tensors"] else {}
    )
    steps = sorted(texts)
    places = {round(i * (len(steps) - 1) / max(number - 1, 1)) for i in range(min(number, len(steps)))}
    samples = []
    for step in (steps[place] for place in sorted(places)):
        text = texts[step][0].decode("utf-8", errors="replace")
        match = _GENERATED.match(text)
        reward = float(match["reward"]) if match else None
        samples.append(Sample(f"rollout, step {step}, prompt and answer", match["text"] if match else text, reward))
    return samples


def evaluation_samples(run: Path) -> list[Sample]:
    """A few right and wrong answers of every evaluation in the run's folder."""
    return [
        Sample(f"{home.relative_to(run)}: {row['datasource']} {row.get('id')}", str(row.get("response")), row["score"])
        for home in summaries(run)
        for row in right_and_wrong(home)
    ]
