"""A run that broke, or that trained nothing, is not done: real engines. The cases without engines are unit tests."""

import pytest

# As a newcomer may write it: asynchronous, a list of one dictionary, another framework's name, logs of any shape.
CONSTANT = """
async def reward_func(queries, prompts, labels):
    logs = {"text": "fine", "nested": {"a": 1, "b": [1, 2]}, labels[0]: 1.0, "nothing": None}
    return [{"score": 1, "extra_logs": logs}]
"""


@pytest.mark.system
def test_weights_that_are_not_finite_end_the_run_before_a_checkpoint_or_the_model_is_saved(train):
    job = train(
        "--actor.adam.lr", 1e38, "--actor.lr_warmup_ratio", 0, "--actor.lr_scheduler", "constant",
        "--actor.num_gpus_per_node", 2, "--ckpt.save_steps", 1,
    )  # fmt: skip
    assert job.code == 1
    assert "of step 1" in job.output and "Resume from the last checkpoint" in job.output
    assert not list(job.folder.glob("checkpoints/_actor/*")) and not (job.folder / "model").exists()


@pytest.mark.system
def test_a_run_whose_groups_are_all_filtered_away_is_not_done(train, tmp_path):
    reward = tmp_path / "reward.py"
    reward.write_text(CONSTANT)
    job = train("--algo.dynamic_filtering_enable", reward=reward)
    assert job.code == 1 and not job.steps()
    assert "nothing was trained: every group was filtered away; every score is 1" in job.output
    assert "extra_logs['text'] of reward_func of reward.py is str 'fine'" in job.output
    assert not (job.folder / "model").exists()
