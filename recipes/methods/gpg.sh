# GPG (arXiv:2504.02546): the plain policy gradient of rewards minus the group's mean, divided by the share of groups
# with signal; no ratio, no clip. OpenRLHF lacks its resampling to a smallest share of such groups.
method_flags=(
    --algo.advantage.estimator dr_grpo --actor.policy_loss_type gpg
    --actor.loss_agg_mode token-mean
)
