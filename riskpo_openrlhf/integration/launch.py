"""How a training job starts, and every name of OpenRLHF that we replace.

`install` readies the submitting process; then OpenRLHF's own module runs and looks up our names:

    riskpo_openrlhf.install()
    runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__", alter_sys=True)

Ray starts the other processes. A name that is replaced in one process is not replaced in another, so each of our
actors calls `replace_names` for its own process before OpenRLHF's constructor looks the names up.
"""

from __future__ import annotations

import argparse
import gc
import runpy
import sys
from importlib import import_module
from typing import NamedTuple

from riskpo_openrlhf.console import MARK, lines_not_bars, say
from riskpo_openrlhf.integration import arguments, cluster, contract, ending, extensions, folders, memory
from riskpo_openrlhf.integration.contract import OPENRLHF_MODULE
from riskpo_openrlhf.integration.faults import as_json
from riskpo_openrlhf.integration.final_flags import flat, write_settings
from riskpo_openrlhf.integration.parser import early_flags, errors_as_json, is_openrlhfs
from riskpo_openrlhf.integration.placement import gpus_needed

OURS = "riskpo_openrlhf.integration"

SUBMITTER = "submitting process"
JOB = "submitting process, no dry run"
LAUNCHER = "asynchronous launcher"
DRIVER = "driver"
GENERATOR = "asynchronous generator"
WORKER = "policy worker"
ENGINE = "vLLM engine"
EVALUATION = "`evaluate`"


class Replacement(NamedTuple):
    """One replaced name: `module.name` becomes `ours`, in `process`, for `reason`.

    `remote`: None for a plain object; else the options of `ray.remote`, for a Ray actor class.
    """

    module: str
    name: str
    ours: str
    process: str
    reason: str
    remote: dict | None = None


REPLACED = tuple(Replacement(*row) for row in (
    ("argparse", "ArgumentParser.parse_args", "launch.parse_args", SUBMITTER,
     "OpenRLHF's parser gets RiskPO's flags, presets and checks"),
    ("openrlhf.utils", "get_strategy", "launch.get_strategy", SUBMITTER,
     "OpenRLHF calls it with its final flags: check them, start Ray, write `settings.json`, or end a dry run"),
    ("openrlhf.utils.deepspeed", "DeepspeedStrategy", "strategy.RiskPOStrategy", SUBMITTER,
     "checkpoints that are whole or do not count, in every worker; one choice of where to resume"),
    ("ray", "is_initialized", "launch.ray_is_initialized", SUBMITTER,
     "OpenRLHF would start Ray before its flags are final and checked"),
    ("sys", "excepthook", "ending.last_words", JOB,
     "an error that nothing caught ends the run with its cause and its cure on the last lines"),
    ("openrlhf.trainer.ppo_trainer", "PPOTrainer", "trainers.RiskPOTrainer", SUBMITTER,
     "metrics, Pass@k, the tracker in every checkpoint, the evaluation at the start", {}),
    ("openrlhf.trainer.ppo_trainer_async", "PPOTrainerAsync", "trainers.RiskPOTrainerAsync", SUBMITTER,
     "replaces the next two names in its own process", {}),
    ("openrlhf.trainer.ppo_trainer_async", "TrainingActor", "trainers.RiskPOTrainingActor", LAUNCHER,
     "as `RiskPOTrainer`", {}),
    ("openrlhf.trainer.ppo_trainer_async", "GenerateSamplesActor", "trainers.RiskPOGenerateSamplesActor", LAUNCHER,
     "Pass@k, missing verdicts", {}),
    ("openrlhf.trainer.ppo_trainer", "RemoteExperienceMaker", "experience_maker.RiskPOExperienceMaker", DRIVER,
     "RiskPO's advantages; `risk/*` and `signal/*` for every estimator"),
    ("openrlhf.trainer.ppo_trainer", "SamplesGenerator", "samples.RiskPOSamplesGenerator", DRIVER,
     "missing verdicts, evaluation samples for Pass@k"),
    ("openrlhf.trainer.ppo_trainer_async", "SamplesGenerator", "samples.RiskPOSamplesGenerator", GENERATOR,
     "as in the driver"),
    ("openrlhf.trainer.ray.ppo_actor", "PolicyModelActor", "policy_loss.RiskPOPolicyActor", SUBMITTER,
     "replaces the next two names in its own process", {"num_gpus": 1}),
    ("openrlhf.trainer.ray.ppo_actor", "ActorPPOTrainer", "policy_loss.RiskPOActorPPOTrainer", WORKER,
     "logs `clip/*` and `entropy`"),
    ("openrlhf.trainer.ray.ppo_actor", "PolicyLoss", "policy_loss.RiskPOPolicyLoss", WORKER,
     "the losses `riskpo`, `gmpo` and `gpg`; any other is OpenRLHF's"),
    ("openrlhf.trainer.ray.ppo_actor", "socket", "ports.sockets", WORKER,
     "the port of the weight sync stays ours until it is bound"),
    ("openrlhf.trainer.ray.launcher", "ReferenceModelActor", "model_actors.RiskPOReferenceActor", SUBMITTER,
     "its port stays its own until it is bound", {"num_gpus": 1}),
    ("openrlhf.trainer.ray.launcher", "RewardModelActor", "model_actors.RiskPORewardActor", SUBMITTER,
     "as for the reference model", {"num_gpus": 1}),
    ("openrlhf.trainer.ray.ppo_critic", "CriticModelActor", "model_actors.RiskPOCriticActor", SUBMITTER,
     "as for the reference model", {"num_gpus": 1}),
    ("openrlhf.trainer.ray.vllm_engine", "RolloutRayActor", "rollout_actor.RiskPORolloutActor", SUBMITTER,
     "checks and limits calls for rewards, keeps the error of a process that died, drops stale image embeddings, "
     "keeps Python's collector off vLLM; Ray starts it again with `--riskpo.max_restarts`",
     {}),
    ("importlib.util", "module_from_spec", "user_files.module_from_spec", ENGINE,
     "a reward or agent file may use dataclasses and import modules beside it"),
    ("openrlhf.trainer.ray.vllm_engine", "RolloutRayActor", "evaluation_engines.RiskPOEvaluationActor", EVALUATION,
     "returns each graded sample as soon as it is done", {}),
))  # fmt: skip


def replace_names(process: str) -> None:
    """Put our objects under OpenRLHF's names in this process. Call it before OpenRLHF looks the names up.

    OpenRLHF's progress bars become lines, too.
    """
    lines_not_bars()
    for row in REPLACED:
        if row.process == process:
            _replace(row)


def _replace(row: Replacement) -> None:
    owner = import_module(row.module)
    *path, name = row.name.split(".")
    for part in path:
        owner = getattr(owner, part)
    module, _, attribute = row.ours.partition(".")
    ours = getattr(import_module(f"{OURS}.{module}"), attribute)
    if row.remote is not None:
        import ray

        ours = ray.remote(**row.remote)(ours) if row.remote else ray.remote(ours)
    setattr(owner, name, ours)


def _let_ray_restart_engines(restarts: int) -> None:
    """Replace the class of the engines once more, so that Ray starts each again, at most so many times."""
    (row,) = (row for row in REPLACED if row.ours == "rollout_actor.RiskPORolloutActor")
    _replace(row._replace(remote={"max_restarts": restarts}))


def install() -> None:
    """Let OpenRLHF's own launcher train by RiskPO: the one call that a launch script of your own needs.

    Call it in the submitting process, before anything of OpenRLHF is imported. It reads `sys.argv`, prepares the CPU
    runtime if `--riskpo.runtime cpu` is there, checks the contract, and replaces OpenRLHF's names. Any parser that has
    `--algo.advantage.estimator` then knows RiskPO's flags, and Ray is started where the runtime needs its own.

    Raises `ContractError` if OpenRLHF lacks something that we rely on, and `RuntimeError` if the call comes too late.
    """
    if OPENRLHF_MODULE in sys.modules:
        raise RuntimeError(f"call riskpo_openrlhf.install() before importing {OPENRLHF_MODULE}")
    contract.check_version()
    flags = early_flags(sys.argv[1:])
    dry_run = flags["riskpo.dry_run"]
    if flags["riskpo.runtime"] == "cpu" or (dry_run and not memory.sees_card()):
        from riskpo_openrlhf.runtime import cpu

        cpu.prepare_driver()
    if not dry_run:
        extensions.prepare()
    for note in contract.check():
        say(f"note: {note}")
    replace_names(SUBMITTER)
    if not dry_run:
        replace_names(JOB)


def run() -> None:
    """Train by the flags of `sys.argv`, as OpenRLHF's own command does. Call `install` once before.

    Exit code 2 if OpenRLHF's own checks refuse the flags.
    """
    try:
        runpy.run_module(OPENRLHF_MODULE, run_name="__main__", alter_sys=True)
    except (AssertionError, AttributeError, TypeError) as error:
        from riskpo_openrlhf.integration.check_flags import refused_by_openrlhf

        problem = refused_by_openrlhf(error, error.__traceback__)
        if problem is None:
            raise
        if _job.get("riskpo.dry_run") == "json":
            print(as_json([problem]), flush=True)
        else:
            say(f"error: {problem}")
        sys.exit(2)


def main() -> None:
    """Train by the flags of `sys.argv`. Exit code 3 if OpenRLHF lacks something that we rely on."""
    gc.disable()  # until `get_strategy`: looking for garbage is a fifth of the time that the imports take
    try:
        install()
    except contract.ContractError as error:
        print(f"{MARK}{error}", file=sys.stderr)
        sys.exit(3)
    run()
    ending.done()


_job: dict = {}  # the flags by dotted name, as they were parsed, until Ray is started for them
_parse_args = argparse.ArgumentParser.parse_args


def parse_args(self, args=None, namespace=None):
    """Parse as `argparse` does; OpenRLHF's parser gets RiskPO's flags, and they are checked together."""
    if not is_openrlhfs(self):
        return _parse_args(self, args, namespace)
    arguments.add_arguments(self)
    errors_as_json(self)
    flat = _parse_args(self, args, namespace)
    try:
        arguments.resolve(flat)
    except ValueError as error:
        if vars(flat)["riskpo.dry_run"] == "json":
            self.error(str(error))  # as JSON
        self.exit(2, f"{self.prog}: error: {error}\n")
    cluster.absolute_paths(vars(flat))
    _job.clear()
    _job.update(vars(flat))
    return flat


def get_strategy(args):
    """Make OpenRLHF's strategy. OpenRLHF's `train` calls this first, with its final flags."""
    from openrlhf.utils.utils import get_strategy

    gc.enable()
    if not hasattr(args, "riskpo"):
        raise RuntimeError("these flags were parsed before riskpo_openrlhf.install() was called: call it first")
    if args.riskpo.runtime == "cpu":
        from riskpo_openrlhf.runtime import cpu

        cpu.adapt(args)
    if args.riskpo.dry_run:
        from riskpo_openrlhf.integration import dry_run

        for problem in folders.in_use(flat(args)):
            say(f"dry run: note: {problem}")
        sys.exit(dry_run.report(args))
    from riskpo_openrlhf.integration import check_start, fingerprints
    from riskpo_openrlhf.integration.engine_restarts import replaceable

    values = flat(args)
    found = check_start.check(values)
    problems = [*found.problems, *check_start.resume_problems(args)]
    _refuse_or_note(problems or [*folders.hold(values, ending.process())], found.notes)
    _job.clear()
    _start_ray(values)
    if replaceable(args):
        _let_ray_restart_engines(args.riskpo.max_restarts)
    write_settings(args)
    fingerprints.of(args)  # the workers get them with `args`
    ending.watch_run(args)
    return get_strategy(args)


def _refuse_or_note(problems: list, notes: list[str]) -> None:
    """Print what the checks of the start found. Exit code 2 with problems, before Ray is started."""
    for problem in problems:
        say(f"error: {problem}")
    if problems:
        say(f"error: {len(problems)} problems; nothing was started. --riskpo.dry_run shows the final settings")
        sys.exit(2)
    for note in notes:
        say(f"note: {note}")


def _start_ray(values: dict) -> None:
    """Start Ray for a job. Exit code 2 if the cluster does not answer or lacks what the job needs."""
    try:
        cluster.start_ray(values["riskpo.runtime"], gpus_needed(values))
        cluster.check(gpus_needed(values), cluster.paths_read(values), values["riskpo.wait_for_gpus"])
    except cluster.ClusterError as error:
        say(f"error: {error}")
        sys.exit(2)


def ray_is_initialized() -> bool:
    """Answer as Ray does, and yes from the parsing of the flags until `get_strategy` starts Ray.

    OpenRLHF would start Ray just before its flags are final.
    """
    if _job:
        return True
    from ray._private.worker import is_initialized

    return is_initialized()
