# GPG (arXiv:2504.02546): the plain policy gradient of rewards less the group's mean over the share of groups with
# signal, no ratio, no clip. Its resampling to a smallest share of such groups is not in OpenRLHF.
method_flags=(
    --algo.advantage.estimator dr_grpo --actor.policy_loss_type gpg
    --actor.loss_agg_mode token-mean
)
