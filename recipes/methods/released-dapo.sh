# The authors' released code as their DAPO-Math script runs it: core/released.py, PPO's token clip with a mean over
# tokens, clip 0.2 and dual clip 3. For math_hard.sh.
method_flags=(--algo.advantage.estimator riskpo --algo.riskpo.preset released-dapo)
# Their settings: evaluation every 5 steps, greedy, one sample a problem; no warm-up; responses of 3072 tokens (those of
# launch.sh). They train 500 steps; 16 episodes have 528.
method_settings=(
    --actor.adam.lr 1e-6 --actor.lr_scheduler constant --actor.lr_warmup_ratio 0
    --eval.steps 5 --eval.temperature 0 --eval.n_samples_per_prompt 1
    --train.num_episodes 16 --riskpo.max_steps 500
)
