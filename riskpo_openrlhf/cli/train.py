"""Train by RiskPO: `python3 -m riskpo_openrlhf.cli.train` takes every flag of `openrlhf.cli.train_ppo_ray` and ours.

    python3 -m riskpo_openrlhf.cli.train --algo.advantage.estimator riskpo ...

Exit codes: 0 trained (the last line is `[riskpo] done`); 1 the run failed; 2 a flag is wrong; 3 OpenRLHF is not the
version that this was written for.
"""

from __future__ import annotations

import argparse
import runpy
import sys

from riskpo_openrlhf.integration import arguments, contract


def main() -> None:
    prepare()
    run()
    print("[riskpo] done", flush=True)


def prepare() -> None:
    """Ready this process to train by the flags of `sys.argv`: once, before OpenRLHF is imported."""
    try:
        contract.check_version()
        runtime, dry_run = _requested_runtime()
        if runtime == "cpu" or (dry_run and not _has_gpu()):
            from riskpo_openrlhf.runtime import cpu

            cpu.prepare_driver()
        contract.check()
        from riskpo_openrlhf.integration.trainers import install

        install()
    except contract.ContractError as error:
        sys.exit(_fail(error, 3))
    if runtime == "cpu":
        _adapt_final_flags(cpu.adapt)
    if dry_run:
        _stop_before_ray()


def run() -> None:
    """Train by the flags of `sys.argv`, as OpenRLHF's own command does."""
    runtime, dry_run = _requested_runtime()

    def after_parsing(flat: argparse.Namespace, config) -> None:
        import ray

        if runtime == "cpu" and not dry_run and not ray.is_initialized():
            from riskpo_openrlhf.runtime import cpu

            cpu.start_ray(flat)

    with arguments.extend_parsing(after_parsing):
        runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__", alter_sys=True)


def _requested_runtime() -> tuple[str, bool]:
    """`--riskpo.runtime` and `--riskpo.dry_run` are needed before OpenRLHF, and so its parser, can be imported."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--riskpo.runtime", dest="runtime", default="gpu")
    early.add_argument("--riskpo.dry_run", dest="dry_run", action="store_true")
    known = early.parse_known_args()[0]
    return known.runtime, known.dry_run


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _stop_before_ray() -> None:
    """End the process with `dry_run.report` where OpenRLHF has its final flags, before it starts Ray."""
    import ray

    from riskpo_openrlhf.integration import dry_run

    def stop(args):
        sys.exit(dry_run.report(args))

    ray.is_initialized = lambda: True  # `train` starts Ray otherwise, one line before it asks for the strategy
    _adapt_final_flags(stop)


def _adapt_final_flags(adapt) -> None:
    """Call `adapt(args)` once OpenRLHF has finished its own changes to the flags: `get_strategy` is its next step."""
    import openrlhf.utils

    get_strategy = openrlhf.utils.get_strategy

    def adapted(args):
        adapt(args)
        return get_strategy(args)

    openrlhf.utils.get_strategy = adapted


def _fail(error: Exception, code: int) -> int:
    print(f"riskpo: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
