# RiskPO with what docs/method.md found to work better: stratified bundles, counterfactual credit, a tail of weight.
method_flags=(
    --algo.advantage.estimator riskpo --actor.policy_loss_type riskpo --algo.riskpo.preset recommended
    --actor.eps_clip 0.2
)
