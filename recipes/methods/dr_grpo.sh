# Dr.GRPO (arXiv:2503.20783): no division by the std or by a response's length. OpenRLHF lacks its constant divisor of
# the token sum; the mean over all tokens of the batch is nearest.
method_flags=(
    --algo.advantage.estimator dr_grpo --actor.policy_loss_type ppo
    --actor.loss_agg_mode token-mean --actor.eps_clip 0.2
)
