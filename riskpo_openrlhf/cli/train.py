"""Train by RiskPO: `python3 -m riskpo_openrlhf.cli.train` takes every flag of `openrlhf.cli.train_ppo_ray` and ours.

    python3 -m riskpo_openrlhf.cli.train --algo.advantage.estimator riskpo --actor.policy_loss_type riskpo ...

Exit codes: 0 trained (the last line is `[riskpo] done`); 1 the run failed; 2 a flag is wrong; 3 OpenRLHF is not the
version that this was written for.
"""

from __future__ import annotations

import argparse
import runpy
import sys

from riskpo_openrlhf.integration import arguments, contract


def main() -> None:
    try:
        contract.check_version()
        runtime = _requested_runtime()
        if runtime == "cpu":
            from riskpo_openrlhf.runtime import cpu

            cpu.prepare_driver()
        contract.check()
        from riskpo_openrlhf.integration.trainers import install

        install()
    except contract.ContractError as error:
        sys.exit(_fail(error, 3))

    def after_parsing(flat: argparse.Namespace, config) -> None:
        if runtime == "cpu":
            cpu.start_ray(flat)

    if runtime == "cpu":
        _adapt_final_flags(cpu.adapt)
    with arguments.extend_parsing(after_parsing):
        runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__", alter_sys=True)
    print("[riskpo] done", flush=True)


def _requested_runtime() -> str:
    """`--riskpo.runtime` is needed before OpenRLHF, and so its parser, can be imported."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--riskpo.runtime", dest="runtime", default="gpu")
    return early.parse_known_args()[0].runtime


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
