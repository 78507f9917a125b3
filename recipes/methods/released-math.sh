# The authors' released code as their MATH scripts run it: core/released.py, PPO's token clip (0.2, dual
# clip 3), a mean over tokens. For math_easy.sh.
method_flags=(--algo.advantage.estimator riskpo --algo.riskpo.preset released-math)
# Their settings: 1024 prompts x 5 responses, mini-batches of 512 prompts, responses of 1024 tokens, evaluation every 5
# steps with 3072 tokens, greedy, one sample a problem; no warm-up. They train 200 steps; 15 episodes have at least 210.
# Their script trains Qwen2.5-1.5B-Instruct, not the Qwen2.5-Math-1.5B-Instruct of the paper's text.
if [[ ${task:-} == math_easy ]]; then
    method_model=Qwen/Qwen2.5-1.5B-Instruct
fi
method_settings=(
    --rollout.batch_size 1024 --rollout.n_samples_per_prompt 5 --train.batch_size 2560
    --rollout.max_new_tokens 1024 --riskpo.eval_max_new_tokens 3072
    --actor.adam.lr 1e-6 --actor.lr_scheduler constant --actor.lr_warmup_ratio 0
    --eval.steps 5 --eval.temperature 0 --eval.n_samples_per_prompt 1
    --train.num_episodes 15 --riskpo.max_steps 200
)
