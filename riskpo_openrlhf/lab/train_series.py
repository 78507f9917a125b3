"""Train several runs one after another on the same engines: `python3 -m riskpo_openrlhf.lab.train_series JOBS`.

Starting Ray, vLLM and DeepSpeed takes longer than a short run of a tiny model, so `lab.compare_methods` does it once.
JOBS holds one line of JSON for each run: `{"folder": ..., "flags": [...]}`, with flags of `cli.train`. A run writes
`folder/train.log` and, at its end, `folder/finished.json`. All runs must agree in what engines and ranks are built
from: number and placement, model architecture, lengths, reward function.

Exit code 0: all runs are done. A run that fails ends the process, with a traceback in its log.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from riskpo_openrlhf.files import write_json
from riskpo_openrlhf.integration import launch

# With these, each run would wait for its own placement, or create its trainer in another process.
NOT_SHARED = ("--train.colocate_actor_ref", "--train.async_enable")


class _Once:
    """Caches an OpenRLHF factory: the first call creates the object, later calls return it.

    Raises `ValueError` if a later call has other arguments. The positional arguments `own` may differ.
    """

    def __init__(self, make, what: str, own: tuple[int, ...] = ()):
        self.make, self.what, self.own, self.made = make, what, own, None

    def __call__(self, *args, **more):
        settings = [value for i, value in enumerate(args) if i not in self.own] + sorted(more.items())
        if self.made is None:
            self.made, self.settings = self.make(*args, **more), settings
        elif settings != self.settings:
            raise ValueError(f"runs of one series share their {self.what}, but {settings} is not {self.settings}")
        return self.made


class _Trainer:
    """Replaces the trainer's remote class: one actor, whose process makes a trainer for each run."""

    def __init__(self, trainer: type):
        import ray

        class Host:
            def start(self, *args, **kwargs) -> None:
                self.trainer = trainer(*args, **kwargs)

            def get_max_steps(self) -> int:
                return self.trainer.get_max_steps()

            def fit(self) -> None:
                self.trainer.broadcast_to_vllm()  # the engines still have the last run's weights
                self.trainer.fit()

        self.host_class, self.host = ray.remote(Host), None

    def remote(self, *args, **kwargs):
        import ray

        self.host = self.host or self.host_class.remote()
        ray.get(self.host.start.remote(*args, **kwargs))
        return self.host


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("jobs", type=Path, help="file with one line of JSON for each run: folder, flags")
    file = parser.parse_args(argv).jobs
    try:
        jobs = [json.loads(line) for line in file.read_text().splitlines()]
        refused = {flag for job in jobs for flag in job["flags"] if flag in NOT_SHARED}
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"{file} is no list of runs: {type(error).__name__}: {error}")
    if refused:
        parser.error(f"{', '.join(sorted(refused))}: such runs can't share their engines; start them by cli.train")
    parent = os.getppid()
    for number, job in enumerate(jobs):
        if os.getppid() != parent:  # the process that waits for these runs has ended
            return 1
        folder, started = Path(job["folder"]), time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        with _output_to(folder / "train.log"):
            sys.argv[1:] = job["flags"]
            if number == 0:
                launch.install()
                _share()
            launch.run()
        write_json(folder / "finished.json", {"seconds": time.monotonic() - started, "flags": job["flags"]})
    return 0


def _share() -> None:
    """Replace four names in the modules from which OpenRLHF's `train()` imports them for each run."""
    import openrlhf.trainer.ppo_trainer as ppo_trainer
    import openrlhf.trainer.ray as trainer_ray
    import openrlhf.trainer.ray.launcher as launcher

    from riskpo_openrlhf.integration.trainers import RiskPOTrainer

    # Each run has its own weights, so model path and seed (`own`) may differ. The policy is the only group of ranks.
    trainer_ray.create_vllm_engines = _Once(trainer_ray.create_vllm_engines, "engines", own=(2, 3))
    groups = import_module("ray.util.placement_group")  # ray.util hides it behind the function of the same name
    groups.placement_group = _Once(groups.placement_group, "placement")  # asked for by --train.colocate_all
    launcher.RayActorGroup = _Once(launcher.RayActorGroup, "ranks")
    ppo_trainer.PPOTrainer = _Trainer(RiskPOTrainer)


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send everything that this process prints to a file, with the lines that Ray forwards."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(path, "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    except BaseException:
        import traceback

        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


if __name__ == "__main__":
    sys.exit(main())
