"""The model card: what a reader of the hub sees."""

import json

import pytest

from riskpo_openrlhf.analysis.model_card import write_model_card
from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.evaluation import run as evaluation


@pytest.fixture
def run(tmp_path):
    """`run(**changes)` makes a run's folder with settings, a model and an evaluation."""

    def make(config=True, **flags):
        home = tmp_path / "math_hard-paper-seed42"
        (home / "model").mkdir(parents=True)
        (home / "model/config.json").write_text("{}")
        flags = {
            "actor.model_name_or_path": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "train.seed": 42,
            "data.prompt_dataset": "/home/me/secret/dapo_math_17k.jsonl", "rollout.batch_size": 512,
            "algo.advantage.estimator": "riskpo" if config else "group_norm", **flags,
        }  # fmt: skip
        knobs = RiskPOConfig().to_dict() if config else None
        preset = "paper" if config else None
        settings = {"format": 1, "flags": flags, "config": knobs, "preset": preset, "versions": {"openrlhf": "0.11.2"}}
        (home / "settings.json").write_text(json.dumps(settings))
        return home

    return make


def test_the_card_names_model_data_method_settings_and_versions(run):
    text = write_model_card(run()).read_text()
    assert text.startswith("---\nlibrary_name: transformers\nbase_model: deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B\n")
    assert "- arxiv:2510.00911\n---" in text
    assert "on `dapo_math_17k` by RiskPO (arXiv:2510.00911), preset paper, alpha 0.2, beta 0.8, omega 0.5" in text
    assert "| `--rollout.batch_size` | 512 |" in text and "| openrlhf | 0.11.2 |" in text
    assert "secret" not in text, "folders of the machine"
    assert "None yet" in text


def test_a_baseline_is_not_called_riskpo_and_a_local_model_has_no_link(run):
    text = write_model_card(run(config=False, **{"actor.model_name_or_path": "/models/mine"})).read_text()
    assert "by estimator group_norm" in text and "arxiv:2510" not in text
    assert "base_model" not in text and "Trained from `mine`" in text


def test_evaluations_stand_with_how_they_were_sampled(run):
    home = run()
    metrics = {"problems": 30, "n": 64, "pass@1": 0.25, "pass@1_se": 0.05, "response_length": 900.0}
    sampling = {"aime24": {"temperature": 0.6, "max_new_tokens": 32768}}
    (home / "evaluation").mkdir()
    (home / "evaluation/summary.json").write_text(json.dumps({"sources": {"aime24": metrics}, "sampling": sampling}))
    text = write_model_card(home).read_text()
    assert "| aime24 | 30 | 64 | 0.6 | 32768 | 25.0 ± 9.8 % | 900 |" in text


def test_no_card_without_a_model_or_settings(run, tmp_path):
    home = run()
    (home / "settings.json").unlink()
    assert write_model_card(home) is None
    assert write_model_card(tmp_path / "nothing") is None


def test_a_new_card_is_not_another_model(run):
    home = run()
    before = evaluation._fingerprint(str(home / "model"))
    write_model_card(home)
    assert evaluation._fingerprint(str(home / "model")) == before
    (home / "model/config.json").write_text('{"other": 1}')
    assert evaluation._fingerprint(str(home / "model")) != before


@pytest.mark.parametrize(
    ("measured", "shown"),
    [({}, "–"), ({"pass@1": 0.5, "pass@1_se": None}, "50.0 %"), ({"pass@1": 0.0, "pass@1_se": 0.0}, "0.0 ± 0.0 %")],
    ids=["no response has a verdict", "one problem", "none right"],
)
def test_what_an_evaluation_does_not_know_is_a_dash_in_the_card(run, measured, shown):
    home = run()
    summary = {"sources": {"mine": {"problems": 1, "n": 4, "response_length": 900.0, **measured}}}
    (home / "evaluation").mkdir()
    (home / "evaluation/summary.json").write_text(json.dumps(summary))
    assert f"| mine | 1 | 4 |  |  | {shown} | 900 |" in write_model_card(home).read_text()
