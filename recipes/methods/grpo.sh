# GRPO (arXiv:2402.03300): rewards minus the group's mean, divided by its std; every response has the same weight. The
# RiskPO paper compares with it at clip 0.2 and without KL.
method_flags=(
    --algo.advantage.estimator group_norm --actor.policy_loss_type ppo
    --actor.loss_agg_mode seq-mean-token-mean --actor.eps_clip 0.2
)
