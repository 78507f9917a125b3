"""Read what a run's folder holds beside its metrics: log and sample answers."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from riskpo_openrlhf import console
from riskpo_openrlhf.analysis.evaluations import read_summaries, right_and_wrong
from riskpo_openrlhf.analysis.runs import read_events

SHOWN = 2000  # characters of an answer
TAIL = 15  # lines of the log
_TEXT = "train/generated_samples/text_summary"
# OpenRLHF's logger writes a backslash and an n where a line should end.
_GENERATED = re.compile(r"Sample:\\n(?P<text>.*)\\n\\nReward: (?P<reward>\S+)$", re.DOTALL)


@dataclass
class Log:
    """What train.log tells: the last step and their number, whether the job finished, its messages, its last lines."""

    step: int = 0
    steps: int | None = None
    done: bool = False
    messages: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """An answer: where it comes from, its text, its reward (None without a verdict)."""

    origin: str
    text: str
    reward: float | None


def read_log(run: Path) -> Log:
    """Read train.log; an empty `Log` without that file."""
    log, tail = Log(), deque(maxlen=TAIL)
    if (run / "train.log").is_file():
        with open(run / "train.log", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                tail.append(console.plain(line))
                if not (message := console.read(line)):
                    continue
                step = message.data.get("step", 0)  # one behind the end is of a job that goes on
                log.done = message.data.get("done", False) or (log.done and step <= log.step)
                if step:
                    log.step, log.steps = step, message.data.get("steps")
                elif message.text not in log.messages:
                    log.messages.append(message.text)
    log.tail = list(tail)
    return log


def generated_samples(home: Path, number: int = 6) -> list[Sample]:
    """Pick answers of the rollouts, spread evenly over the run; OpenRLHF logs one a step."""
    events = read_events(home)
    logged = events.Tensors(_TEXT) if _TEXT in events.Tags()["tensors"] else []
    texts = {event.step: event.tensor_proto.string_val for event in logged}
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
    """Pick a few right and wrong answers of every evaluation in the run's folder."""
    return [
        Sample(f"{home.relative_to(run)}: {row['datasource']} {row.get('id')}", str(row.get("response")), row["score"])
        for home in read_summaries(run)
        for row in right_and_wrong(home)
    ]
