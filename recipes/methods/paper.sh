# RiskPO to the letter of arXiv:2510.00911 (its Appendix B.1): alpha 0.2, beta 0.8, omega 0.5, B 5, clip 0.2.
method_flags=(
    --algo.advantage.estimator riskpo --actor.policy_loss_type riskpo --algo.riskpo.preset paper
    --actor.eps_clip 0.2
)
