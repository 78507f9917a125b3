# The authors' released code as their risk-seeking MATH script runs it: core/released.py, PPO's token clip (0.2, dual
# clip 3), a mean over tokens. For math_easy.sh.
method_flags=(--algo.advantage.estimator riskpo --algo.riskpo.preset released-seeking)
# Their settings: 1024 prompts x 5 responses, mini-batches of 512 prompts, responses of 1024 tokens, evaluation every 5
# steps, greedy, one sample a problem; no warm-up. They train 200 steps. OpenRLHF counts episodes: 14 of 14 rollouts are
# 196 steps. They evaluate with 3072 tokens; OpenRLHF evaluates with the length that it trains with. Their script trains
# Qwen2.5-1.5B-Instruct, not the Qwen2.5-Math-1.5B-Instruct of the paper's text.
if [[ ${task:-} == math_easy ]]; then
    method_model=Qwen/Qwen2.5-1.5B-Instruct
fi
method_settings=(
    --rollout.batch_size 1024 --rollout.n_samples_per_prompt 5 --train.batch_size 2560
    --rollout.max_new_tokens 1024
    --actor.adam.lr 1e-6 --actor.lr_scheduler constant --actor.lr_warmup_ratio 0
    --eval.steps 5 --eval.temperature 0 --eval.n_samples_per_prompt 1
    --train.num_episodes 14
)
