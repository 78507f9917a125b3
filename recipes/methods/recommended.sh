# RiskPO with what docs/method.md found to work better: stratified bundles, counterfactual credit divided by
# group-std-mean, and the clip on each token's ratio.
method_flags=(
    --algo.advantage.estimator riskpo --algo.riskpo.preset recommended
    --actor.policy_loss_type ppo --actor.loss_agg_mode seq-mean-token-mean --actor.eps_clip 0.2
)
