"""Check the models of a job as far as their files are on this machine: weights, config, tokenizer, and its prompts."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from riskpo_openrlhf.data.golds import first_line
from riskpo_openrlhf.integration import memory
from riskpo_openrlhf.integration.check_data import is_local
from riskpo_openrlhf.integration.faults import Problem
from riskpo_openrlhf.integration.final_flags import names

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

MODELS = ("actor", "reward", "critic")
# In the order in which transformers looks for them.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "merges.txt")
POINTER = b"version https://git-lfs"


class Tokens(NamedTuple):
    """What a tokenizer makes of some prompts: how many were read, how many give no token, how many are too long; and
    their highest token."""

    prompts: int
    empty: int
    too_long: int
    highest: int


def loaded(values: dict) -> dict[str, str]:
    """Return each model that the run loads, with the first flag that names it: no reward model beside a function."""
    scored = values["reward.remote_url"] or values["train.agent_func_path"]
    return {name: flag for name, flag in named(values).items() if not (scored and flag.startswith("--reward"))}


def named(values: dict) -> dict[str, str]:
    """Return each model of the flags, with the first flag that names it: OpenRLHF's critic may be the policy."""
    found = {}
    for model in MODELS:
        for name in names(values[f"{model}.model_name_or_path"]):
            found.setdefault(name, f"--{model}.model_name_or_path")
    return found


def folder_of(name: str) -> Path | None:
    """Return the folder that a model will be loaded from: its own, or the hub's cache; None if it may be downloaded.

    Raises `ValueError` for what is neither a folder nor a name that the hub could have, and `FileNotFoundError` if the
    hub may not be asked (HF_HUB_OFFLINE) and the cache has no such model.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import validate_repo_id

    if is_local(name):
        return Path(name)
    validate_repo_id(name)
    if not constants.HF_HUB_OFFLINE:
        return None
    config = try_to_load_from_cache(name, "config.json")  # the cache need not hold every file of the model
    if not isinstance(config, str):
        raise FileNotFoundError(name)
    return Path(config).parent


def model_problems(values: dict, config: PretrainedConfig | None) -> Iterator[Problem]:
    """Find models that can't be loaded, and a policy (`config`) that is too short for its sequences."""
    for name, flag in loaded(values).items():
        try:
            folder = folder_of(name)
        except ValueError:
            yield Problem(flag, f" {name}: no such folder, and no name of a model on the hub (owner/name)")
            continue
        except FileNotFoundError:
            cure = "unset it to download, set HF_HOME to a cache that has the model, or give a folder"
            yield Problem(flag, f" {name} is not in the hub's cache, and HF_HUB_OFFLINE is set: {cure}")
            continue
        if folder and not (folder / "config.json").is_file():
            yield Problem(flag, f" {name}: no config.json there")
        elif folder and (fault := damage(folder)):
            yield Problem(flag, f" {name}: {fault}")
    model = values["actor.model_name_or_path"]
    if not model:
        yield Problem("--actor.model_name_or_path", " is missing: a model's folder or its name on the hub")
    elif config is not None:
        positions = _positions(config)
        if positions and values["data.max_len"] > positions:
            yield Problem(
                "--data.max_len",
                f" {values['data.max_len']} is more than the {positions} positions of {model}: the engines would "
                f"refuse it at their start. Take at most {positions}",
            )


def _positions(config: PretrainedConfig) -> int | None:
    text = _text_config(config)
    scaled = getattr(text, "rope_scaling", None) or getattr(text, "rope_parameters", None) or {}
    # Some engines multiply the positions by the factor: leave the verdict to them.
    stretched = isinstance(scaled, dict) and scaled.get("rope_type", scaled.get("type", "default")) != "default"
    return None if stretched else getattr(text, "max_position_embeddings", None)


def damage(folder: Path) -> str:
    """Say which file of a model is missing or broken, and the cure; "" if all that is read looks whole."""
    files = [folder / "config.json", *(folder / name for name in TOKENIZER if (folder / name).exists())]
    weights = next(
        (folder / name for name in WEIGHTS if (folder / name).exists() or (folder / name).is_symlink()), None
    )
    if weights is None and not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        return f"no weights there: {WEIGHTS[0]}, or shards with {WEIGHTS[1]}. Copy the whole model"
    files += [weights] if weights else []
    faults = (fault for path in files if (fault := _file_fault(path)))
    if (fault := next(faults, "")) or weights is None or weights.suffix != ".json":
        return fault
    shards = json.loads(weights.read_text(encoding="utf-8")).get("weight_map", {})
    faults = (fault for name in sorted(set(shards.values())) if (fault := _file_fault(folder / name)))
    return next(faults, "") if shards else f"{weights.name} names no shards. Copy it again"


def _file_fault(path: Path) -> str:
    if not path.is_file():
        return f"{path.name} is missing. Copy the whole model"
    with path.open("rb") as file:
        start = file.read(len(POINTER))
    if start == POINTER:
        return f"{path.name} is a pointer of Git LFS, not the file. Run `git lfs pull` there"
    try:
        if not start:
            raise ValueError("empty")
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "pt"):  # it compares the header with the file's size
                pass
        elif path.suffix == ".bin" and start.startswith(b"PK") and not zipfile.is_zipfile(path):
            raise ValueError("its end is missing")
        elif path.name == "config.json" or path.name.endswith(".index.json"):
            json.loads(path.read_text(encoding="utf-8"))
    except Exception as error:  # whatever safetensors or json raises is the finding
        return f"{path.name} is cut off or broken ({first_line(error)}). Copy it again"
    return ""


def read_tokenizer(values: dict) -> tuple[PreTrainedTokenizerBase | None, list[Problem]]:
    """Load the policy's tokenizer as OpenRLHF does, if its files are here, and find what it lacks."""
    from openrlhf.utils.utils import get_tokenizer

    flag, model = "--actor.model_name_or_path", values["actor.model_name_or_path"]
    try:
        folder = folder_of(model) if model else None
    except (FileNotFoundError, ValueError):  # `model_problems` tells
        return None, []
    if not folder or not (folder / "config.json").is_file() or damage(folder):
        return None, []
    try:
        tokenizer = get_tokenizer(str(folder), None, use_fast=not values["data.disable_fast_tokenizer"])
    except Exception as error:  # whatever transformers raises is the finding
        what = f"its tokenizer can't be loaded: {first_line(error)}. Save the tokenizer beside the weights"
        return None, [Problem(flag, f" {model}: {what}")]
    inner = _of_text(tokenizer)
    if set(inner.get_vocab()) <= set(inner.all_special_tokens):
        return None, [Problem(flag, f" {model}: its tokenizer has no words. Save the tokenizer beside the weights")]
    problems = []
    if inner.pad_token_id is None:
        cure = "Set eos_token in its tokenizer_config.json, as the model was trained"
        problems.append(Problem(flag, f" {model}: its tokenizer has neither an eos_token nor a pad_token. {cure}"))
    if values["data.apply_chat_template"] and not _has_chat_template(tokenizer):
        cure = "Take a model with one, or give --data.input_template instead of --data.apply_chat_template"
        problems.append(Problem("--data.apply_chat_template", f" {model}: its tokenizer has no chat template. {cure}"))
    return (None if problems else tokenizer), problems


def _of_text(tokenizer):
    """Return the tokenizer of a processor of images; a tokenizer as it is."""
    return tokenizer.tokenizer if hasattr(tokenizer, "image_processor") else tokenizer


def _has_chat_template(tokenizer) -> bool:
    if tokenizer.chat_template:
        return True
    try:  # one that is no text, as Mistral's
        return bool(tokenizer.apply_chat_template([{"role": "user", "content": "1+1="}], tokenize=False))
    except Exception:
        return False


def read_tokens(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], room: int) -> Tokens:
    """Tokenize prompts as OpenRLHF does. `room`: how many tokens a prompt may have. Images count one token each."""
    inner = _of_text(tokenizer)
    ids = inner(list(prompts), add_special_tokens=False)["input_ids"]
    highest = max((max(row) for row in ids if row), default=-1)
    return Tokens(len(ids), sum(not row for row in ids), sum(len(row) > room for row in ids), highest)


def vocabulary_problems(values: dict, tokenizer: PreTrainedTokenizerBase, highest: int) -> Iterator[Problem]:
    """Find a model without embeddings for the tokens that it will get: padding, the end, those of prompts."""
    inner = _of_text(tokenizer)
    used = {"pad_token": inner.pad_token_id, "eos_token": inner.eos_token_id, "a prompt": highest}
    for name, flag in loaded(values).items():
        rows = _embeddings(name)
        beyond = [(what, token) for what, token in used.items() if rows and token is not None and token >= rows]
        if beyond:
            what, token = beyond[0]
            yield Problem(
                flag,
                f" {name} has embeddings for {rows} tokens, and the policy's tokenizer has {len(inner)}: token "
                f"{token} ({what}) would end the run. Take the tokenizer that belongs to the model, or resize its "
                "embeddings (`model.resize_token_embeddings`) and save it again",
            )


def token_notes(values: dict, tokenizer: PreTrainedTokenizerBase, tokens: Tokens, rows: int) -> Iterator[str]:
    """Say what may surprise about the policy's tokens. `rows`: of the data; `tokens`: of some of them."""
    inner, name = _of_text(tokenizer), values["actor.model_name_or_path"]
    embeddings, special = _embeddings(name), set(inner.all_special_ids)  # of which prompts are free
    words = max(token for token in inner.get_vocab().values() if token not in special)
    if embeddings and words >= embeddings > max(tokens.highest, inner.pad_token_id):
        yield (
            f"the tokenizer of {name} has {len(inner)} tokens, and the model embeddings for {embeddings}: a prompt "
            "with one of the last tokens would end the run"
        )
    if tokens.too_long:
        sampled = f" (a sample of {rows})" if tokens.prompts < rows else ""
        yield (
            f"{tokens.too_long} of {tokens.prompts} rows{sampled} have a prompt that leaves no room for a response in "
            f"--data.max_len {values['data.max_len']}: OpenRLHF cuts it from the left. Raise --data.max_len, lower "
            "--rollout.max_new_tokens, or leave the rows out"
        )
    if inner.eos_token_id is None:
        yield f"the tokenizer of {name} has no eos_token: unless generation_config.json has one, responses never end"


def _embeddings(name: str) -> int | None:
    config = memory.read_config(name)
    return config and getattr(_text_config(config), "vocab_size", None)


def _text_config(config: PretrainedConfig) -> PretrainedConfig | None:
    try:
        return config.get_text_config()
    except ValueError:  # a model with several parts for text
        return None
