"""What differs between a checkpoint and the run that resumes from it: named, and refused where it makes no sense."""

import json
from pathlib import Path

import pytest
from openrlhf.utils.config import hierarchize

from riskpo_openrlhf.integration import checkpoints, fingerprints, launch
from riskpo_openrlhf.integration.checkpoints import ACTOR, WRITING
from riskpo_openrlhf.integration.faults import RunFault
from riskpo_openrlhf.integration.parser import openrlhf_parser
from riskpo_openrlhf.tables import to_json


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    found = {"model": model, "data": tmp_path / "train.jsonl", "reward": tmp_path / "reward.py"}
    found["data"].write_text('{"input": "1", "label": "2"}\n')
    found["reward"].write_text("def reward_func(queries, prompts, labels): ...\n")
    return found


def flags(files, *more):
    command = (
        "--algo.advantage.estimator", "riskpo", "--actor.model_name_or_path", files["model"], "--reward.remote_url",
        files["reward"], "--data.prompt_dataset", files["data"], "--actor.num_gpus_per_node", 2, *more,
    )  # fmt: skip
    args = hierarchize(launch.parse_args(openrlhf_parser(), list(map(str, command))))
    args.reward.remote_url = args.reward.remote_url.split(",")  # as OpenRLHF's `get_strategy` leaves it
    return args


def saved(args) -> dict:
    return json.loads(to_json(fingerprints.of(args)))  # as the manifest gives it back


def test_the_same_run_resumes_without_a_word_also_from_another_folder(files, tmp_path):
    before = saved(flags(files, "--actor.max_norm", "inf"))
    del before["flags"]["actor.adam.eps"]  # as if an earlier release had no such flag
    for name, path in files.items():
        files[name] = path.rename(path.with_name(f"moved{path.suffix}"[:9] + name + path.suffix))
    moved = flags(files, "--actor.max_norm", "inf", "--ckpt.path", tmp_path / "elsewhere", "--eval.steps", 5,
                  "--ckpt.load_enable")  # fmt: skip
    assert fingerprints.compare(before, moved, Path("there")) == []


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_checkpoint_without_fingerprints_is_taken_and_the_missing_comparison_is_told(nothing, files):
    (line,) = fingerprints.compare(nothing, flags(files), Path("there"))
    assert "there carries no fingerprints" in line


def test_a_start_reads_its_files_once(files):
    args = flags(files)
    before = fingerprints.of(args)
    files["data"].unlink()
    assert fingerprints.of(args) is before


REFUSED_CHANGES = [
    ("--data.max_samples", "7"), ("--data.prompt_split", "test"), ("--ds.zero_stage", "3"),
    ("--ds.param_dtype", "fp16"), ("--ds.lora.rank", "4"), ("--actor.optim", "muon"), ("--data.prompt_probs", "1.0"),
    ("--algo.riskpo.bundle_size", "4"), ("--algo.riskpo.alpha", "0.3"), ("--algo.riskpo.beta", "0.9"),
]  # fmt: skip


@pytest.mark.parametrize("flag, value", REFUSED_CHANGES)
def test_a_flag_that_makes_the_state_meaningless_is_refused_with_both_values_and_why(files, flag, value):
    before = saved(flags(files))
    with pytest.raises(RunFault, match=f"{flag} {value} .checkpoint .*and {fingerprints.REFUSED[flag[2:]]}"):
        fingerprints.compare(before, flags(files, flag, value), Path("there"))


@pytest.mark.parametrize("word", ["--algo.riskpo.resume_changed true", "--algo.advantage.estimator group_norm"])
def test_settings_of_quantiles_may_differ_where_the_tracker_restarts_or_is_not_used(files, word):
    before = saved(flags(files))
    before["flags"]["algo.riskpo.bundle_size"] = 4
    lines = fingerprints.compare(before, flags(files, *word.split()), Path("there"))
    assert any("--algo.riskpo.bundle_size" in line for line in lines)


@pytest.mark.parametrize(
    ("part", "file"),
    [("data", "train.jsonl"), ("data", "second.jsonl"), ("data", "folder/deep/train.jsonl"),
     ("model", "model/config.json"), ("model", "model/tokenizer.json"), ("model", "model/tokenizer_config.json")],
)  # fmt: skip
def test_other_content_of_data_or_model_is_refused(files, part, file, tmp_path):
    (tmp_path / "folder/deep").mkdir(parents=True)
    files["data"] = f"{files['data']},{tmp_path / 'second.jsonl'},{tmp_path / 'folder'}"
    file = tmp_path / file
    file.write_text("before")
    before = saved(flags(files))
    file.write_text("after")
    with pytest.raises(RunFault, match=f"{fingerprints.CONTENTS[part]} has other content"):
        fingerprints.compare(before, flags(files), Path("there"))


def test_a_reward_function_is_known_by_its_content_not_by_its_place(files, tmp_path):
    before = saved(flags(files))
    files["reward"] = files["reward"].rename(tmp_path / "moved.py")
    assert fingerprints.compare(before, flags(files), Path("there")) == []
    files["reward"] = "http://host:1/a,http://host:1/b"
    before = saved(flags(files))
    files["reward"] = "http://host:1/a,http://host:1/c"
    assert "the reward function has other content" in fingerprints.compare(before, flags(files), Path("there"))[0]


@pytest.mark.parametrize("flag, value", [("--actor.adam.lr", "1e-05"), ("--rollout.batch_size", "64")])
def test_what_may_differ_is_named_and_allowed(files, flag, value):
    before = saved(flags(files))
    files["reward"].write_text("def reward_func(queries, prompts, labels): return 1\n")
    lines = fingerprints.compare(before, flags(files, flag, value), Path("there"))
    assert len(lines) == 2 and "the reward function has other content" in lines[0]
    assert f"{flag} {value} (checkpoint " in lines[1]


def test_another_minor_version_of_openrlhf_is_refused_and_another_patch_named(files):
    args = flags(files)
    before = saved(args)
    major, minor, patch = before["versions"]["openrlhf"].split(".")[:3]
    before["versions"]["openrlhf"] = f"{major}.{minor}.99"
    (line,) = fingerprints.compare(before, args, Path("there"))
    assert f"openrlhf {major}.{minor}.{patch} (checkpoint {major}.{minor}.99)" in line
    before["versions"]["openrlhf"] = f"{major}.99.0"
    with pytest.raises(RunFault, match="openrlhf"):
        fingerprints.compare(before, args, Path("there"))


def test_flags_and_files_alone_tell_a_resume_that_makes_no_sense(files, tmp_path):
    args = flags(files, "--ckpt.path", tmp_path / "checkpoints", "--ckpt.load_enable")
    folder = tmp_path / "checkpoints" / ACTOR / f"{WRITING}global_step1"
    folder.mkdir(parents=True)
    checkpoints.seal(folder, 2, fingerprints.of(args))
    checkpoints.finish(tmp_path / "checkpoints", False, 1, 1.0)
    fingerprints.check_resume(args)
    four = flags(files, "--ckpt.path", args.ckpt.path, "--ckpt.load_enable", "--actor.num_nodes", 2)
    with pytest.raises(RunFault, match="2 ranks wrote it, and this run has 4.*this is 2"):
        fingerprints.check_resume(four)
    four.ds.zero_stage = 3  # whose checkpoints are converted; but another stage is another optimizer
    with pytest.raises(RunFault, match="--ds.zero_stage 3 .checkpoint 2."):
        fingerprints.check_resume(four)
    files["data"].write_text("")
    resumed = ("--ckpt.path", args.ckpt.path, "--ckpt.load_enable")
    with pytest.raises(RunFault, match="--data.prompt_dataset has other content"):
        fingerprints.check_resume(flags(files, *resumed))
    fingerprints.check_resume(flags(files, "--ckpt.path", args.ckpt.path))  # a new run
    fingerprints.check_resume(flags(files, *resumed, "--ds.use_universal_ckpt"))
