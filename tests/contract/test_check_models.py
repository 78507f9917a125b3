"""What the files of a model tell before a GPU is taken: weights, tokenizer, and the tokens of prompts."""

import json
import shutil
from types import SimpleNamespace

import datasets
import pytest

from riskpo_openrlhf.integration import arguments, check_start
from riskpo_openrlhf.integration.check_data import SAMPLE
from riskpo_openrlhf.integration.check_models import damage, model_problems, read_tokenizer
from riskpo_openrlhf.integration.parser import openrlhf_parser

DEFAULTS = vars(openrlhf_parser().parse_args([]))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


@pytest.fixture
def model(tmp_path, write_model):
    write_model(tmp_path / "model")
    return tmp_path / "model"


def values(model, **flags) -> dict:
    given = {"actor.model_name_or_path": str(model), "data.max_len": 8, "rollout.max_new_tokens": 4}
    return DEFAULTS | given | {name.replace("__", "."): value for name, value in flags.items()}


def shards(model, names=("a.safetensors", "b.safetensors")) -> None:
    """Replace the weights by one shard, and an index that names more."""
    (model / "model.safetensors").rename(model / "a.safetensors")
    index = {"weight_map": {f"weight{i}": name for i, name in enumerate(names)}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def cut(path, by: int = 1) -> None:
    path.write_bytes(path.read_bytes()[:-by])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda model: (model / "model.safetensors").unlink(), "no weights there"),
        (lambda model: (model / "model.safetensors").write_bytes(POINTER), "model.safetensors is a pointer of Git"),
        (lambda model: cut(model / "model.safetensors"), "model.safetensors is cut off or broken"),
        (lambda model: (model / "model.safetensors").write_bytes(b""), "model.safetensors is cut off or broken (e"),
        (lambda model: shards(model), "b.safetensors is missing"),
        (lambda model: shards(model, ()), "model.safetensors.index.json names no shards"),
        (lambda model: (shards(model, ("a.safetensors",)), cut(model / "a.safetensors")), "a.safetensors is cut off"),
        (lambda model: (model / "tokenizer.json").write_bytes(POINTER), "tokenizer.json is a pointer of Git LFS"),
        (lambda model: cut(model / "config.json"), "config.json is cut off or broken"),
        (lambda model: (model / "config.json").unlink(), "no config.json there"),
        (lambda model: ((model / "model.safetensors").rename(model / "pytorch_model.bin"),
                        (model / "pytorch_model.bin").write_bytes(b"PK\3\4 and half of it")), "pytorch_model.bin is"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("flag", ["actor", "reward"])
def test_a_model_with_a_file_missing_or_broken_is_told_with_the_file(flag, harm, said, model, tmp_path, write_model):
    harm(model)
    flags = {"actor__model_name_or_path": write_model(tmp_path / "whole")}
    (problem,) = model_problems(values(model, **flags | {f"{flag}__model_name_or_path": str(model)}), None)
    assert problem.flag == f"--{flag}.model_name_or_path" and f"{model}: {said}" in problem.message


def test_whole_models_are_taken_whatever_lies_beside_them(model):
    assert damage(model) == ""
    (model / "pytorch_model.bin").write_bytes(POINTER)  # transformers and vLLM take the safetensors
    assert damage(model) == ""
    shards(model, ("a.safetensors",))
    assert damage(model) == ""
    (model / "pytorch_model.bin").unlink()
    (model / "a.safetensors").rename(model / "consolidated.safetensors")
    (model / "model.safetensors.index.json").unlink()
    assert damage(model) == ""  # of a name that only transformers may know


def test_a_name_of_the_hub_must_be_in_the_cache_if_the_hub_may_not_be_asked(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (problem,) = model_problems(values("nobody/none"), None)
    assert "nobody/none is not in the hub's cache, and HF_HUB_OFFLINE is set: unset it" in problem.message
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert list(model_problems(values("nobody/none"), None)) == []
    (problem,) = model_problems(values("models/of/mine"), None)
    assert "models/of/mine: no such folder" in problem.message


def without(model, *names) -> None:
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in settings.items() if k not in names}))
    (model / "config.json").write_text('{"model_type": "llama"}')  # Qwen's tokenizer has an end of its own


@pytest.mark.parametrize(
    ("harm", "flag", "said"),
    [
        (lambda model: [path.unlink() for path in model.glob("*token*")], "actor.model_name_or_path", "has no words"),
        (lambda model: (model / "tokenizer.json").write_text("{"), "actor.model_name_or_path", "can't be loaded"),
        (lambda model: without(model, "eos_token", "pad_token"), "actor.model_name_or_path", "neither an eos_token"),
        (lambda model: (model / "chat_template.jinja").unlink(missing_ok=True), "data.apply_chat_template",
         "has no chat template"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_can_not_serve_is_told(harm, flag, said, model):
    harm(model)
    tokenizer, (problem,) = read_tokenizer(values(model, data__apply_chat_template=flag.startswith("data")))
    assert tokenizer is None and problem.flag == f"--{flag}" and said in problem.message


def read(model, prompts, **flags):
    table = datasets.Dataset.from_dict({"input": prompts})
    return check_start.check_tokens(values(model, **flags), SimpleNamespace(prompts=table))


def test_prompts_that_are_cut_are_counted_and_a_large_file_is_sampled(model):
    assert read(model, ["1+1=", "1234"]) == ([], [])
    problems, (note,) = read(model, ["1+1=", "12345"])
    assert problems == [] and note.startswith("1 of 2 rows have a prompt that leaves no room")
    assert read(model, ["1234567"], rollout__max_new_tokens=None) == ([], [])
    _, (note,) = read(model, ["12345"] * (2 * SAMPLE + 1))
    assert note.startswith(f"667 of 667 rows (a sample of {2 * SAMPLE + 1}) have a prompt")


def test_tokens_beyond_the_embeddings_of_any_model_are_told_before_they_end_the_run(model, tmp_path, write_model):
    size = len(read_tokenizer(values(model))[0])
    write_model(model, vocab_size=size)
    assert read(model, ["1+1="]) == ([], [])
    judge = write_model(tmp_path / "judge", vocab_size=2)
    (problem,), _ = read(model, ["1+1="], reward__model_name_or_path=judge)
    assert problem.flag == "--reward.model_name_or_path" and "embeddings for 2 tokens" in problem.message
    write_model(model, vocab_size=size - 1)  # the last token is a special one of Qwen's, which no prompt has
    assert read(model, ["1+1="]) == ([], [])
    write_model(model, vocab_size=size - 2)
    problems, (note,) = read(model, ["1+1="])
    assert problems == [] and f"has {size} tokens, and the model embeddings for {size - 2}" in note


def test_a_chat_template_that_fails_and_prompts_without_tokens_are_told(model):
    (model / "chat_template.jinja").write_text("{{ raise_exception('no user turn') }}")
    (problem,), _ = read(model, ["1+1="], data__apply_chat_template=True)
    assert "chat template fails: no user turn" in problem.message
    (problem,), _ = read(model, ["1+1=", ""])
    assert "1 of 2 prompts have no token" in problem.message


def test_a_tokenizer_of_the_models_own_code_is_not_taken_apart(model, monkeypatch):
    class Own:  # as Mistral's, and those of models with code of their own
        tokenizer, chat_template, pad_token_id, eos_token_id, all_special_tokens = object(), None, 0, 1, []

        def get_vocab(self):
            return {"a": 0}

        def apply_chat_template(self, turns, tokenize):
            return turns[0]["content"]

    monkeypatch.setattr("openrlhf.utils.utils.get_tokenizer", lambda *args, **more: Own())
    found, problems = read_tokenizer(values(model, data__apply_chat_template=True))
    assert isinstance(found, Own) and problems == []
    monkeypatch.delattr(Own, "get_vocab")
    data = SimpleNamespace(prompts=datasets.Dataset.from_list([{"input": "1+1="}]))
    problems, (note,) = check_start.check_tokens(values(model), data)
    assert problems == [] and "can't be checked" in note


def test_a_reward_model_that_no_run_loads_is_not_checked(model):
    flags = {"reward__model_name_or_path": "/no/such/model", "reward__remote_url": ["riskpo"]}
    assert not [*model_problems(values(model, **flags), None)]
    assert [*model_problems(values(model, reward__model_name_or_path="/no/such/model"), None)]


def test_a_model_of_which_the_cache_holds_only_what_was_needed_is_taken_offline(monkeypatch, tmp_path, model):
    commit = "0" * 40
    home = tmp_path / "hub" / "models--owner--name"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "trees").mkdir()
    tree = [{"path": name, "type": "file", "size": 1, "oid": "0"} for name in ("config.json", "README.md")]
    (home / "trees" / f"{commit}.json").write_text(json.dumps(tree))  # as a download by pattern leaves it
    shutil.copytree(model, home / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert not [*model_problems(values("owner/name"), None)]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("Solve this.", "has no {}, so OpenRLHF would leave the template out: write {} once"),
        (r"Put it in \boxed{}: {}", "can't be filled in (IndexError"),
        ("{} as {json}", "can't be filled in (KeyError"),
        ("{} }", "can't be filled in (ValueError"),
        (r"Put it in \boxed{{}}", "gives every prompt the same text"),
        ("Q: {} A:", None),
        (r"{} Put it in \boxed{{}}.", None),
        ("", None),
    ],
)
def test_a_template_must_hold_the_prompt(template, said):
    flat = {"data.input_template": template, "data.apply_chat_template": False}
    if said is None:
        arguments._check_template(flat)
        return
    with pytest.raises(ValueError) as refused:
        arguments._check_template(flat)
    assert said in str(refused.value) and "--data.input_template" in str(refused.value)
    arguments._check_template(flat | {"data.apply_chat_template": True})  # OpenRLHF does not read it
