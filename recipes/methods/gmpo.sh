# GMPO (arXiv:2507.20673): geometric mean of token ratios, clipped to (e^-0.4, e^0.4).
method_flags=(
    --algo.advantage.estimator group_norm --actor.policy_loss_type gmpo
    --actor.eps_clip_low_high 0.4 0.4
)
