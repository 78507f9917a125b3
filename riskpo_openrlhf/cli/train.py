"""Train by RiskPO: `python3 -m riskpo_openrlhf.cli.train` takes every flag of `openrlhf.cli.train_ppo_ray` and ours.

    python3 -m riskpo_openrlhf.cli.train --algo.advantage.estimator riskpo ...

Exit codes: 0 trained (the last line says `done`); 1 the run failed; 2 a flag is wrong; 3 OpenRLHF lacks something that
this version relies on.
"""

from riskpo_openrlhf.integration.launch import main

if __name__ == "__main__":
    main()
