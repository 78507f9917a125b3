"""A run's settings are found from each of its folders, and never those of another run."""

import json

import pytest

from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.settings import find_settings

CONFIG = RiskPOConfig(alpha=0.3)


def write(run, config=CONFIG, **flags):
    run.mkdir(parents=True, exist_ok=True)
    values = {"format": 1, "flags": flags, "preset": "paper", "versions": {"openrlhf": "0.11.2"}}
    values["config"] = config and config.to_dict()
    (run / "settings.json").write_text(json.dumps(values))
    return run


@pytest.mark.parametrize("place", [".", "tensorboard", "tensorboard/riskpo", "model"])
def test_the_settings_are_found_from_the_run_s_own_folders(tmp_path, place):
    run = write(tmp_path / "run", **{"actor.adam.lr": 1e-6})
    (run / place).mkdir(parents=True, exist_ok=True)
    found = find_settings(run / place)
    assert (found.config, found.preset, found.flags["actor.adam.lr"]) == (CONFIG, "paper", 1e-6)
    assert str(found) == "preset paper, alpha 0.3, beta 0.8, omega 0.5, bundles of 5"


def test_without_the_file_there_are_none(tmp_path):
    (tmp_path / "a/b/c").mkdir(parents=True)
    assert find_settings(tmp_path / "a/b/c") is None


def test_of_two_runs_that_share_a_tensorboard_folder_only_the_last_has_settings(tmp_path):
    run = write(tmp_path, **{"logger.tensorboard_dir": "/moved/since/tb", "logger.wandb.run_name": "second"})
    for name in ("first", "second"):
        (run / "tb" / name).mkdir(parents=True)
    assert find_settings(run / "tb/first") is None
    assert find_settings(run / "tb/second").config == CONFIG


def test_the_settings_of_an_evaluation_are_not_those_of_a_run(tmp_path):
    run = write(tmp_path / "run")
    (run / "evaluation").mkdir()
    (run / "evaluation/settings.json").write_text(json.dumps({"model": "m", "sampling": {}}))
    assert find_settings(run / "evaluation").path == run / "settings.json"


def test_a_baseline_has_flags_and_no_settings_of_riskpo(tmp_path):
    found = find_settings(write(tmp_path, None, **{"algo.advantage.estimator": "group_norm"}))
    assert found.config is None and str(found) == "estimator group_norm"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"format": 2, "flags": {}}', "has format 2; this version reads 1"),
        ('{"format": 1, "flags": {}, "config": {"gone": 1}}', "is of another version of this package"),
        ('{"format": 1, "flags": {}, "config": {"alpha": 2}}', "alpha 2 is not allowed"),
    ],
)
def test_a_file_that_can_not_be_read_is_named(tmp_path, text, message):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        str(find_settings(tmp_path))
