# GPG (arXiv:2504.02546): the plain policy gradient of rewards less the group's mean, no ratio, no clip. Its rescaling
# by the share of groups with signal is left out: Adam takes most of a common factor away.
method_flags=(
    --algo.advantage.estimator dr_grpo --actor.policy_loss_type gpg
    --actor.loss_agg_mode token-mean
)
