"""What flags, files and folders tell before a GPU is taken: one function for the dry run and the real start."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from riskpo_openrlhf.integration import check_start, memory
from riskpo_openrlhf.integration.parser import openrlhf_parser
from riskpo_openrlhf.integration.placement import gpus_needed
from riskpo_openrlhf.integration.try_reward import find_fault
from riskpo_openrlhf.verifiers import built_in


@pytest.fixture
def values(tmp_path, write_model, monkeypatch):
    """`values(**flags)`: OpenRLHF's defaults, a job that has nothing wrong, and changes; `{tmp_path}` is filled in."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    write_model(tmp_path / "model", max_position_embeddings=64)
    (tmp_path / "train.jsonl").write_text('{"input": "1+1=", "label": "2", "datasource": "sums"}\n' * 24)
    (tmp_path / "reward.py").write_text(GOOD)
    defaults = vars(openrlhf_parser().parse_args([]))

    def make(**flags):
        good = {
            "actor.model_name_or_path": str(tmp_path / "model"), "data.prompt_dataset": str(tmp_path / "train.jsonl"),
            "data.input_key": "input", "data.label_key": "label", "reward.remote_url": [str(built_in.PATH)],
            "algo.kl.init_coef": 0.0, "algo.advantage.estimator": "group_norm", "vllm.num_engines": 1,
            "actor.num_gpus_per_node": 1, "ref.num_gpus_per_node": 1, "reward.num_gpus_per_node": 1,
            "rollout.batch_size": 12, "rollout.n_samples_per_prompt": 4,
            "rollout.micro_batch_size": 8, "train.batch_size": 24, "train.micro_batch_size": 4, "ds.zero_stage": 3,
            "rollout.max_new_tokens": 6, "data.max_len": 48, "ckpt.path": str(tmp_path / "ckpt"),
            "ckpt.output_dir": str(tmp_path / "out"), "riskpo.runtime": "cpu", "rollout.temperature": 1.0,
        }  # fmt: skip
        flags = json.loads(json.dumps(flags).replace("{tmp_path}", str(tmp_path)))
        return {**defaults, **good, **{name.replace("__", "."): value for name, value in flags.items()}}

    return make


ADAPTIVE = {"algo__kl__target": 0.1, "algo__kl__init_coef": 0.1}
GOOD = "def reward_func(queries, prompts, labels):\n    return {'rewards': 1.0 if labels[0] == '2' else 0.0}\n"


def found(values) -> list[str]:
    return [str(problem) for problem in check_start.check(values).problems]


def test_a_good_command_has_no_problem_and_no_note(values):
    checked = check_start.check(values(), call_reward=True)
    assert (checked.problems, checked.notes) == ([], [])


@pytest.mark.parametrize(
    "flags",
    [
        {"reward__remote_url": ["{tmp_path}/reward.py"]},
        {"reward__remote_url": ["http://127.0.0.1:1/get_reward", "https://other/get_reward"]},
        {"reward__remote_url": None, "reward__model_name_or_path": "{tmp_path}/model"},
        {"eval__temperature": 0, "eval__dataset": "{tmp_path}/train.jsonl", "eval__n_samples_per_prompt": 1},
        {"algo__kl__target": 6.0, "algo__kl__init_coef": 0.1},
        {"actor__model_name_or_path": "nobody/a-model-of-the-hub"},
        {"ckpt__output_dir": "{tmp_path}/model/out", "ckpt__path": "{tmp_path}"},  # beside the model, or below it
        {"actor__max_norm": -1.0, "rollout__vllm_generate_batch_size": None, "ds__packing_samples": True},
        {"logger__tensorboard_dir": ""},
        {"data__image_key": "label", "data__max_images_per_prompt": 1},
    ],
)
def test_every_source_of_a_reward_and_what_may_be_left_out_is_taken(flags, values):
    assert found(values(**flags)) == []


def test_a_model_whose_positions_the_engines_may_stretch_is_left_to_them(values, tmp_path):
    config = {"model_type": "qwen2", "max_position_embeddings": 64}
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    (tmp_path / "model/config.json").write_text(json.dumps({**config, "rope_scaling": scaling}))
    assert found(values(data__max_len=256)) == []


def test_a_job_that_the_card_here_can_not_hold_is_refused_and_without_one_80_gb_are_assumed(values, monkeypatch):
    large = values(riskpo__runtime="gpu")  # sizes that the config leaves out are those of 7.7 billion parameters
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert any("and an 80 GB card has" in note for note in check_start.check(large).notes)
    assert not any("a card needs" in message for message in found(large))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    card = SimpleNamespace(total_memory=100 * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: card)
    assert any(message.startswith("--actor.num_gpus_per_node 1: a card needs about 1") for message in found(large))
    assert check_start.check(large).memory.training > 100 and check_start.check(values()).memory is None


def test_a_reward_function_is_called_in_a_dry_run_only_and_may_fail_on_an_empty_response(values, tmp_path):
    (tmp_path / "mine.py").write_text("def reward_func(queries, prompts, labels): raise KeyError(labels[0])\n")
    mine = values(reward__remote_url=[str(tmp_path / "mine.py")])
    assert check_start.check(mine)[:2] == ([], [])
    problems, (note,), _ = check_start.check(mine, call_reward=True)
    assert problems == []
    assert note.startswith("--reward.remote_url") and "with an empty response: KeyError: '2'" in note


def test_a_folder_that_is_a_link_to_nowhere_is_refused(values, tmp_path):
    (tmp_path / "checkpoints").symlink_to(tmp_path / "scratch" / "me")
    at = values(ckpt__path=str(tmp_path / "checkpoints"))
    (problem,) = found(at)
    assert problem.startswith("--ckpt.path") and "scratch/me, which is not there" in problem
    (tmp_path / "scratch" / "me").mkdir(parents=True)
    assert found(at) == []


def test_a_folder_that_this_user_may_not_write_is_refused(values, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # tests may run as root, who may write anywhere
    assert [message.split()[0] for message in found(values())] == ["--ckpt.path", "--ckpt.output_dir"]


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        ({"ckpt__output_dir": "{tmp_path}/model/"}, "--ckpt.output_dir"),
        ({"ckpt__output_dir": "{tmp_path}/link"}, "--ckpt.output_dir"),
        ({"ckpt__output_dir": "{tmp_path}/x/../model"}, "--ckpt.output_dir"),
        ({"ckpt__output_dir": "{tmp_path}/judge", "reward__model_name_or_path": "{tmp_path}/judge"},
         "--ckpt.output_dir"),
        ({"ckpt__output_dir": "{tmp_path}/judge", "critic__model_name_or_path": "{tmp_path}/judge_critic",
          "critic__save_value_network": True}, "--ckpt.output_dir"),
        ({"ckpt__path": "{tmp_path}/run", "ckpt__save_hf": True,
          "actor__model_name_or_path": "{tmp_path}/run/global_step10_hf"}, "--ckpt.path"),
    ],
)  # fmt: skip
def test_a_run_never_writes_over_a_model_that_it_reads(flags, flag, values, tmp_path, write_model):
    for name in ("judge", "judge_critic", "run/global_step10_hf"):
        write_model(tmp_path / name, max_position_embeddings=64)
    (tmp_path / "link").symlink_to(tmp_path / "model")
    (message,) = found(values(**flags))
    assert message.startswith(flag) and "would write over the model of" in message


@pytest.mark.parametrize(
    ("flags", "flag", "said"),
    [
        ({"reward__remote_url": None}, "--reward.remote_url", "nothing would give a reward"),
        ({"reward__remote_url": ["/no/such.py"]}, "--reward.remote_url /no/such.py", "no such file"),
        ({"reward__remote_url": ["mine"]}, "--reward.remote_url mine", "riskpo, a .py file, or an http address"),
        ({"train__agent_func_path": "/no/agent.py"}, "--train.agent_func_path /no/agent.py", "no such file"),
        ({"data__label_key": None}, "--data.label_key", "compare with the label"),
        ({"data__prompt_dataset": ""}, "--data.prompt_dataset", "is missing"),
        ({"actor__model_name_or_path": "/no/model"}, "--actor.model_name_or_path", "no config.json"),
        ({"data__max_len": 100_000}, "--data.max_len 100000", "the 64 positions"),
        ({"algo__kl__target": 0.1}, "--algo.kl.target 0.1", "is 0 (as in every preset) and stays 0"),
        ({**ADAPTIVE, "algo__kl__horizon": 0}, "--algo.kl.horizon 0", "above 0"),
        ({**ADAPTIVE, "algo__kl__target": 0.0}, "--algo.kl.target 0", "divides the KL"),
        ({"eval__dataset": "{tmp_path}/train.jsonl", "eval__temperature": 0, "eval__n_samples_per_prompt": 4},
         "--eval.n_samples_per_prompt 4", "all equal"),
        ({"data__prompt_dataset": "/no/such.jsonl"}, "--data.prompt_dataset", "/no/such.jsonl"),
        ({"rollout__top_p": 0}, "--rollout.top_p 0", "(0, 1]"),
        ({"actor__model_name_or_path": ""}, "--actor.model_name_or_path", "is missing"),
        ({"critic__model_name_or_path": "/no/model"}, "--critic.model_name_or_path", "no config.json"),
        ({"reward__remote_url": None, "reward__model_name_or_path": "{tmp_path}/model,/no/model"},
         "--reward.model_name_or_path /no", "no con"),
        ({"rollout__temperature": 0}, "--rollout.temperature 0", "above 0"),
        ({"vllm__num_engines": None}, "--vllm.num_engines", "1 or more"),
        ({"data__max_samples": 0}, "--data.max_samples 0", "1 or more"),
        ({"ckpt__path": "/etc/hostname/here"}, "--ckpt.path", "/etc/hostname is a file"),
        ({"ckpt__path": ""}, "--ckpt.path", "is empty: name a folder"),
        ({"ckpt__path": "{tmp_path}/model"}, "--ckpt.path", "write over the model of --actor.model_name_or_path"),
        ({"data__prompt_dataset": "s3://bucket/train.jsonl"}, "--data.prompt_dataset s3://bucket/train.jsonl:",
         "is not a local file. Download it first"),
        ({"data__image_key": "pictures", "data__max_images_per_prompt": 1},
         "--data.prompt_dataset --data.image_key pictures: no file has", "leave it"),
        ({"reward__remote_url": None, "reward__model_name_or_path": "{tmp_path}/model,a/b"},
         "--reward.model_name_or_path", "OpenRLHF loads one"),
        ({"ds__ring_attn_size": 2, "actor__num_gpus_per_node": 2}, "--ds.ring_attn_size", "flash-attn"),
        ({"ckpt__output_dir": "/etc/hostname/here"}, "--ckpt.output_dir", "/etc/hostname is a file"),
        ({"logger__tensorboard_dir": "/etc/hostname/a"}, "--logger.tensorboard_dir", "/etc/hostname is a file"),
    ],
)  # fmt: skip
def test_what_flags_and_files_tell_is_refused_with_the_flag(flags, flag, said, values):
    messages = found(values(**flags))
    assert any(message.startswith(flag) and said in message for message in messages), messages


def test_an_empty_prompt_is_refused_unless_a_template_fills_it(values, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"input": "1+1=", "label": "2"}\n' * 23 + '{"input": "", "label": "2"}\n')
    (message,) = found(values())
    assert "row 23: 'input' is empty. Remove the row" in message
    assert found(values(data__input_template="1+1={}")) == []
    assert any("input_template has no effect" in note for note in check_start.check(
        values(data__input_template="1+1={}", data__apply_chat_template=True)).notes)  # fmt: skip


def test_the_seed_decides_how_many_rows_a_mixture_has(values, tmp_path):
    (tmp_path / "b.jsonl").write_text('{"input": "1+1=", "label": "2", "datasource": "sums"}\n' * 24)
    mixed = {"data__prompt_dataset": f"{tmp_path}/train.jsonl,{tmp_path}/b.jsonl", "data__prompt_probs": "0.5,0.5"}
    rows = {check_start.read_files(values(**mixed, train__seed=seed)).rows for seed in range(5)}
    assert len(rows) > 1
    for wrong in ("0.5,0.6", "nan,1", "a,b", "0,1", "1"):
        messages = found(values(**{**mixed, "data__prompt_probs": wrong}))
        assert any(f"--data.prompt_probs {wrong}: is not one number above 0" in message for message in messages)


def test_surprises_are_notes(values, tmp_path):
    (tmp_path / "eval.jsonl").write_text('{"input": "1+1=", "label": "2", "datasource": "x"}\n' * 30)
    notes = check_start.check(values(data__max_samples=24, eval__dataset=str(tmp_path / "eval.jsonl"))).notes
    assert "24 of its 30 rows are used" in notes[0]
    assert "older weights" in check_start.check(values(train__async_enable=True)).notes[0]
    (note,) = check_start.check(values(ckpt__best_metric_key="sums/pass@4")).notes
    assert "--ckpt.best_metric_key sums/pass@4 has no effect" in note
    own = check_start.check(values(reward__remote_url=[str(tmp_path / "reward.py")], data__label_key=None))
    assert own.problems == [] and "gets empty labels" in own.notes[0]
    (note,) = check_start.check(values(rollout__batch_size=10, train__batch_size=40)).notes
    assert "16 of its 16 responses fill no --train.batch_size 40" in note


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def reward_func(:\n", "can't be imported: SyntaxError"),
        ("import a_package_that_is_not_there\n" + GOOD, "a_package_that_is_not_there"),
        ("def reward(queries, prompts, labels): return 1\n", "has no function `reward_func"),
        ("reward_func = 3\n", "has no function `reward_func"),
        ("raise SystemExit(3)\n", "exit code 3"),
        ("import os\nos._exit(7)\n", "exit code 7"),
        (
            "def reward_func(queries, labels): return 1.0\n",
            "can't be called as `reward_func(queries, prompts, labels)`",
        ),
        ("def reward_func(queries, prompts, labels): return 'yes'\n", "gives no verdict on the first row"),
    ],
)
def test_a_bad_reward_file_is_told_before_the_start(text, said, tmp_path):
    file = tmp_path / "reward.py"
    file.write_text(text)
    tried = find_fault(str(file), "reward", {"prompt": "1+1=", "label": "2"})
    assert said in tried.fault and not tried.note


def test_a_good_reward_file_passes_whatever_it_prints_and_starts_and_a_hanging_one_ends(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    file = tmp_path / "reward.py"
    file.write_text(
        "import os, threading\nprint('hello')\nassert os.environ['CUDA_VISIBLE_DEVICES'] == ''  # it takes no GPU\n"
        f"threading.Thread(target=threading.Event().wait).start()\nasync {GOOD}print('{{}}')\n"
    )
    row = {"prompt": "1+1=", "label": "2" * 1_000_000}
    assert find_fault(str(file), "reward", row, seconds=60) == ("", "")
    file.write_text("import time\ndef reward_func(queries, prompts, labels): time.sleep(600)\n")
    assert "did not answer within 5 s" in find_fault(str(file), "reward", row, seconds=5).note
    file.write_text("async def reward_func(queries, prompts, labels): return labels[3]\n")
    assert "fails on the first row of the data" in find_fault(str(file), "reward", row).note
    file.write_text("raise RuntimeError('No CUDA GPUs are available')\n")  # none is given here, and one in an engine
    assert find_fault(str(file), "reward") == ("", "")
    file.write_text("import time\ntime.sleep(600)\n")
    assert "did not load within 3 s" in find_fault(str(file), "reward", row, seconds=3).fault


def test_a_disk_that_is_smaller_than_one_checkpoint_is_refused_if_checkpoints_are_written(values, monkeypatch):
    needs = memory.Estimate(30.0, 20.0, {}, 0.0, checkpoint=25.0)
    usage = check_start.shutil.disk_usage
    monkeypatch.setattr(check_start.shutil, "disk_usage", lambda path: usage(path)._replace(free=24_000_000_000))
    (problem,) = check_start.disk_problems(values(ckpt__save_steps=5), needs)
    assert str(problem).startswith("--ckpt.path") and "24 GB free, and a checkpoint takes 25 GB" in str(problem)
    assert list(check_start.disk_problems(values(eval__steps=5), needs))  # the best one
    for fits in ({"ckpt__save_steps": -1, "eval__steps": -1}, {"ckpt__save_steps": 5, "ckpt__disable_ds": True}):
        assert not list(check_start.disk_problems(values(**fits), needs))
    assert not list(check_start.disk_problems(values(ckpt__save_steps=5), needs._replace(checkpoint=23.0)))
    assert not list(check_start.disk_problems(values(ckpt__save_steps=5), None))  # no model to estimate by


def test_an_agent_file_needs_an_executor_of_openrlhfs(values, tmp_path):
    file = tmp_path / "agent.py"
    file.write_text("class AgentExecutor: pass\n")
    (problem,) = found(values(train__agent_func_path=str(file)))
    assert problem.startswith("--train.agent_func_path") and "openrlhf.utils.agent.AgentExecutorBase" in problem
    file.write_text(
        "from openrlhf.utils.agent import AgentExecutorBase\n"
        "class AgentExecutor(AgentExecutorBase):\n    async def execute(self, *args, **kwargs): ...\n"
    )
    assert find_fault(str(file), "agent") == ("", "")


MODELS = {
    "actor.num_nodes": 1, "actor.num_gpus_per_node": 4, "ref.num_nodes": 1, "ref.num_gpus_per_node": 4,
    "critic.num_nodes": 1, "critic.num_gpus_per_node": 2, "reward.num_nodes": 1, "reward.num_gpus_per_node": 2,
    "vllm.num_engines": 4, "vllm.tensor_parallel_size": 1, "algo.kl.init_coef": 0.01,
    "algo.advantage.estimator": "gae", "reward.remote_url": None, "train.agent_func_path": None,
    "train.colocate_all": False, "train.async_enable": False,
    "train.colocate_actor_ref": False, "train.colocate_critic_reward": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "gpus"),
    [  # the placements of openrlhf.cli.train_ppo_ray.train, by hand
        ({}, 4 + 4 + 4 + 2 + 2),
        ({"train.colocate_actor_ref": True}, 4 + 4 + 2 + 2),
        ({"train.agent_func_path": "agent.py"}, 4 + 4 + 4 + 2),
        ({"vllm.tensor_parallel_size": 2}, 4 + 8 + 4 + 2 + 2),
        ({"train.colocate_critic_reward": True}, 4 + 4 + 4 + 2),
        ({"train.colocate_all": True}, 4),
        ({"train.colocate_all": True, "train.async_enable": True}, 4 + 4),
        ({"train.colocate_all": True, "train.colocate_critic_reward": True}, 4 + 2),
        ({"algo.kl.init_coef": 0, "algo.advantage.estimator": "riskpo", "reward.remote_url": ["riskpo"]}, 4 + 4),
    ],
)
def test_the_gpus_are_those_of_openrlhfs_placements(flags, gpus):
    assert gpus_needed({**MODELS, **flags}) == gpus


def test_every_kind_of_problem_is_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs/flags.md").read_text()
    table = page[page.index("## Told before the start") :]
    words = """--rollout.micro_batch_size --train.batch_size --data.max_samples --ds.zero_stage --ds.lora.rank
        --vllm.num_engines --reward.remote_url --train.agent_func_path --data.label_key --data.max_len --algo.kl.target
        --rollout.temperature --ckpt.path""".split()
    assert [word for word in words if f"`{word}`" not in table] == []
