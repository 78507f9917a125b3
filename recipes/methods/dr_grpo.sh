# Dr.GRPO (arXiv:2503.20783): no division by the std, none by a response's own length. Its constant divisor of the
# token sum is not in OpenRLHF; the mean over all tokens of the batch comes nearest.
method_flags=(
    --algo.advantage.estimator dr_grpo --actor.policy_loss_type ppo
    --actor.loss_agg_mode token-mean --actor.eps_clip 0.2
)
