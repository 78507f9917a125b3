# GSPO (arXiv:2507.18071): sequence-level ratio with its own narrow clip, 3e-4 below and 4e-4 above.
method_flags=(
    --algo.advantage.estimator group_norm --actor.policy_loss_type gspo
    --actor.loss_agg_mode seq-mean-token-mean --actor.eps_clip_low_high 3e-4 4e-4
)
