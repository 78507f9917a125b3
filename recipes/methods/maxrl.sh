# MaxRL (arXiv:2602.02710): rewards minus the group's mean, divided by that mean; GRPO's loss. It is RiskPO without
# risk: bundles of one question, quantiles that all rewards lie between, and advantages divided by the group's mean.
method_flags=(
    --algo.advantage.estimator riskpo --algo.riskpo.alpha 1e-6 --algo.riskpo.beta 0.999999 --algo.riskpo.omega 0
    --algo.riskpo.bundle_size 1 --algo.riskpo.quantile_source batch --algo.riskpo.credit counterfactual
    --algo.riskpo.normalization group-mean
    --actor.policy_loss_type ppo --actor.loss_agg_mode seq-mean-token-mean --actor.eps_clip 0.2
)
