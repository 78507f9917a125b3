# RiskPO to the letter of arXiv:2510.00911: its advantage, Eq. 3's loss averaged over responses, clip 0.2, no KL.
# This is what the estimator does by itself; the preset is named so that a log shows it.
method_flags=(--algo.advantage.estimator riskpo --algo.riskpo.preset paper)
