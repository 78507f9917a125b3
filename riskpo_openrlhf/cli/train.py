"""Train by RiskPO: `python3 -m riskpo_openrlhf.cli.train` takes every flag of `openrlhf.cli.train_ppo_ray` and ours.

    python3 -m riskpo_openrlhf.cli.train --algo.advantage.estimator riskpo ...

Exit codes: 0 trained (the last line says `done`); 1 the run failed (the last lines say why, and what to do); 2 a flag
is wrong; 3 OpenRLHF lacks something that this version relies on; 129, 130, 143 ended by SIGHUP, SIGINT, SIGTERM.
"""

import os


def main() -> None:
    """Supervise a run. The supervisor's child, which RISKPO_RECORD marks, is the run itself."""
    if "RISKPO_RECORD" in os.environ:
        from riskpo_openrlhf.integration import launch as role
    else:
        from riskpo_openrlhf.integration import supervise as role
    role.main()


if __name__ == "__main__":
    main()
