# DAPO (arXiv:2503.14476): clip 0.2 below and 0.28 above, mean over tokens, replacement of groups without signal, and a
# penalty over the last fifth of the response length (4096 of 20480 in DAPO; here 614 of 3072).
method_flags=(
    --algo.advantage.estimator group_norm --actor.policy_loss_type ppo
    --actor.loss_agg_mode token-mean --actor.eps_clip_low_high 0.2 0.28
    --algo.dynamic_filtering_enable --algo.dynamic_filtering_range 0 1
    --reward.overlong_buffer_len 614 --reward.overlong_penalty_factor 1
)
