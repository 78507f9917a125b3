"""The recipes' shell, and the command line of each of them through OpenRLHF's real parser and all checks."""

import json
import os
import re
import runpy
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from riskpo_openrlhf.config import RiskPOConfig

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
TASKS = ("math_hard", "math_easy", "geometry", "code")
METHODS = sorted(path.stem for path in (RECIPES / "methods").glob("*.sh"))
MACHINES = sorted(path.stem for path in (RECIPES / "machines").glob("*.sh"))
ROW = {"prompt": [{"role": "user", "content": "Find x."}], "label": "7", "datasource": "made-up"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder in which every data set of the recipes is there."""
    folder = tmp_path_factory.mktemp("data")
    for task in TASKS:
        for name in sets(task):
            (folder / f"{name}.jsonl").write_text((json.dumps(ROW) + "\n") * 1024)
    return folder


def sets(task: str) -> list[str]:
    """The data sets that a recipe names."""
    words = printed(task, "--data", "/")
    files = [words[words.index(flag) + 1].split(",") for flag in ("--data.prompt_dataset", "--eval.dataset")]
    return [Path(file).stem for file in (*files[0], *files[1])]


def recipe(task: str, *options, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(RECIPES / f"{task}.sh"), *map(str, options)],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0", **environment},
    )  # fmt: skip


def printed(task: str, *options, **environment) -> list[str]:
    run = recipe(task, "--print", *options, **environment)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_every_pair_of_task_method_and_machines_dry_runs(data, dry_run):
    # Flags come from task, method and machines independently, so pairs are enough: a quarter of all combinations.
    combinations = [
        (TASKS[(i + j) % len(TASKS)], method, machines)
        for i, method in enumerate(METHODS)
        for j, machines in enumerate(MACHINES)
    ]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        pairs = {(each[first], each[second]) for each in combinations}
        assert pairs == set(product(*((TASKS, METHODS, MACHINES)[i] for i in (first, second))))
    failed = {}
    for task, method, machines in combinations:
        code, output = dry_run(printed(task, "--method", method, "--machines", machines, "--data", data))
        if code or "[riskpo] dry run: ok" not in output:
            failed[task, method, machines] = output[-1500:]
    assert not failed, failed


def test_a_dry_run_prints_the_final_settings_and_what_the_command_line_overrode(data):
    run = recipe("math_hard", "--data", data, "--method", "paper", "--dry-run", "--", "--actor.adam.lr", "3e-6")
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    lines = run.stdout.splitlines()
    for setting in (
        "--actor.adam.lr 3e-06", "--algo.riskpo.alpha 0.2", "--algo.riskpo.beta 0.8", "--algo.riskpo.omega 0.5",
        "--algo.riskpo.bundle_size 5", "--actor.eps_clip 0.2", "--rollout.temperature 0.8", "--rollout.top_p 1.0",
        "--rollout.max_new_tokens 3072", "--rollout.n_samples_per_prompt 10", "--rollout.batch_size 512",
        "--train.batch_size 1280", "--algo.kl.init_coef 0.0",
    ):  # fmt: skip
        assert setting in lines
    assert any("512 prompts x 10 responses = 5120" in line and "8 GPUs" in line for line in lines)
    assert any("about 41 GiB a card in training" in line and "25 GB a checkpoint" in line for line in lines)


def test_a_dry_run_names_every_problem_and_ends_with_2(data, dry_run, tmp_path):
    (tmp_path / "odd.jsonl").write_text(json.dumps({"question": "1+1", "label": "2"}) + "\n")
    words = printed(
        "math_hard", "--data", data, "--model", tmp_path, "--method", "dapo", "--",
        "--data.prompt_dataset", f"{tmp_path}/odd.jsonl,{tmp_path}/none.jsonl",
        "--reward.remote_url", tmp_path / "reward.py",
        "--vllm.num_engines", 4, "--data.max_len", 3072, "--train.batch_size", 1000,
        "--reward.overlong_buffer_len", 4000,
    )  # fmt: skip
    code, output = dry_run(words)
    assert code == 2
    for problem in (
        "no config.json there", "odd.jsonl: has no column 'prompt', but question, label. Set --data.input_key",
        "none.jsonl: no such file", "reward.py: no such file", "--train.colocate_all shares the actor's 8 GPUs",
        "leaves no room for a prompt", "5120 responses are not a multiple of --train.batch_size 1000",
        "--reward.overlong_buffer_len 4000 is longer than a response", "8 problems",
    ):  # fmt: skip
        assert problem in output, output[-3000:]


def settings_of(dry_run, task: str, data: Path, *options) -> dict[str, str]:
    """Read the final settings of a recipe, flag -> value, from its dry run."""
    code, output = dry_run(printed(task, "--data", data, *options))
    assert code == 0, output[-2000:]
    return dict(line.split(" ", 1) for line in output.splitlines() if line.startswith("--"))


@pytest.mark.parametrize("task", TASKS)
def test_a_recipe_of_the_papers_tables_trains_by_the_paper_unless_told_otherwise(task):
    assert printed(task) == printed(task, "--method", "paper")
    assert f"bash recipes/{task}.sh [--method paper]" in recipe(task, "--help").stdout
    assert "(default: paper)" in recipe(task, "--help").stdout


def test_the_papers_recipe_has_the_loss_of_eq_3_averaged_over_responses(data, dry_run):
    found = settings_of(dry_run, "math_hard", data)
    for flag, value in {
        "--algo.advantage.estimator": "riskpo", "--algo.riskpo.preset": "paper", "--actor.policy_loss_type": "riskpo",
        "--actor.loss_agg_mode": "seq-mean-token-mean", "--actor.eps_clip": "0.2", "--actor.dual_clip": "None",
        "--algo.kl.init_coef": "0.0", "--actor.entropy_coef": "0.0",
    }.items():  # fmt: skip
        assert found[flag] == value, flag


# task, model, prompts and responses a rollout, responses a mini-batch, tokens, rows of the prepared sets, steps
OF_THE_AUTHORS = {
    "released-dapo": ("math_hard", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 512, 10, 1280, 3072, 17398, 500),
    "released-math": ("math_easy", "Qwen/Qwen2.5-1.5B-Instruct", 1024, 5, 2560, 1024, 14973, 200),
    "released-seeking": ("math_easy", "Qwen/Qwen2.5-1.5B-Instruct", 1024, 5, 2560, 1024, 14973, 200),
}


@pytest.mark.parametrize("method", OF_THE_AUTHORS)
def test_a_released_recipe_has_the_settings_of_the_authors_script(method, data, dry_run):
    task, model, prompts, group, batch, tokens, rows, steps = OF_THE_AUTHORS[method]
    found = settings_of(dry_run, task, data, "--method", method)
    for flag, value in {
        "--actor.model_name_or_path": model, "--algo.riskpo.preset": method, "--rollout.batch_size": prompts,
        "--rollout.n_samples_per_prompt": group, "--train.batch_size": batch, "--rollout.max_new_tokens": tokens,
        "--actor.policy_loss_type": "ppo", "--actor.loss_agg_mode": "token-mean", "--actor.eps_clip": 0.2,
        "--actor.dual_clip": 3.0, "--algo.kl.init_coef": 0.0, "--actor.adam.lr": 1e-06,
        "--actor.lr_scheduler": "constant", "--actor.lr_warmup_ratio": 0.0, "--eval.steps": 5,
        "--eval.temperature": 0.0, "--eval.n_samples_per_prompt": 1, "--riskpo.max_steps": steps,
    }.items():  # fmt: skip
        assert found[flag] == str(value), flag
    assert found["--riskpo.eval_max_new_tokens"] == ("None" if method == "released-dapo" else "3072")
    assert int(found["--train.num_episodes"]) * (rows // prompts) >= steps
    assert printed(task, "--method", method, "--model", "mine")[4] == "mine"  # a model that is given wins


def test_without_takes_a_flag_and_its_values_out():
    words = printed("math_hard", "--method", "dapo", "--without", "--actor.eps_clip_low_high")
    assert "--actor.eps_clip_low_high" not in words and "0.28" not in words
    assert "--algo.dynamic_filtering_enable" in words
    assert "1280" in words and "1280" not in printed("math_hard", "--without", "--train.batch_size")
    run = recipe("math_hard", "--print", "--without", "--actor.dual_clip")
    assert run.returncode == 2 and "--without --actor.dual_clip: the recipe does not set it" in run.stderr


def test_flags_after_two_dashes_come_last():
    assert printed("code", "--", "--actor.adam.lr", "1e-5", "--data.max_len", "9000")[-4:] == [
        "--actor.adam.lr", "1e-5", "--data.max_len", "9000",
    ]  # fmt: skip


def test_a_submitted_job_has_absolute_paths_only(data):
    for word in printed("code", "--data", os.path.relpath(data)):
        assert not word.startswith("."), word


def test_printing_a_submission_shows_the_whole_line(data):
    words = printed("code", "--data", data, "--submit", "http://head:8265", "--seed", 7)
    assert words[:6] == ["ray", "job", "submit", "--address", "http://head:8265", "--submission-id"]
    assert words[6].startswith("code-paper-seed7-") and words[7] == "--runtime-env-json" and words[9] == "--"
    assert words[10:] == printed("code", "--data", data, "--seed", 7)


def test_a_submission_to_a_wrong_address_ends_with_a_word_and_leaves_nothing(data, tmp_path):
    options = ["--data", data, "--out", tmp_path / "run", "--submit", "http://127.0.0.1:1"]
    for more in ([], ["--dry-run"]):
        run = recipe("code", *options, *more)
        assert run.returncode == 2 and "no Ray dashboard answers at --submit http://127.0.0.1:1" in run.stderr
    assert not (tmp_path / "run").exists() and run.stdout.startswith("ray job submit --address http://127.0.0.1:1 ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "ppo"], "--method ppo is not known; one of: dapo dr_grpo"),
        (["--machines", "laptop"], "--machines laptop is not known; one of: "),
        (["--method"], "--method takes a value"),
        (["--fast"], "--fast is not known; see --help"),
        (["--seed", "x"], "--seed x is not a whole number"),
    ],
)
def test_a_wrong_option_stops_with_what_is_allowed(options, message):
    run = recipe("math_easy", *options)
    assert run.returncode == 2 and message in run.stderr


def test_missing_data_stops_with_the_command_that_makes_it(tmp_path):
    run = recipe("math_easy", "--data", tmp_path, "--out", tmp_path / "run")
    assert run.returncode == 2 and not (tmp_path / "run").exists()
    assert f"prepare_data {' '.join(sets('math_easy'))} --out {tmp_path}" in run.stderr


def test_a_dry_run_without_data_names_all_problems_and_the_command_that_makes_it(tmp_path):
    run = recipe("math_easy", "--data", tmp_path, "--dry-run", "--", "--vllm.num_engines", "4")
    assert run.returncode == 2 and "5 problems" in run.stdout
    assert f"prepare_data {' '.join(sets('math_easy'))} --out {tmp_path}" in run.stderr


def test_too_few_gpus_stop_with_what_to_choose(data, tmp_path):
    run = recipe("math_easy", "--data", data, "--out", tmp_path / "run", CUDA_VISIBLE_DEVICES="")
    assert run.returncode == 2 and not (tmp_path / "run").exists()
    assert "8 GPUs are needed and here are 0" in run.stderr and "--machines" in run.stderr


def test_a_new_run_needs_a_free_folder_and_a_resumed_one_a_run(data, tmp_path):
    (tmp_path / "begun/tensorboard").mkdir(parents=True)
    for name, options, message in (("begun", [], "holds a run already"), ("none", ["--resume"], "there is no run in")):
        run = recipe("math_easy", "--data", data, "--out", tmp_path / name, *options, CUDA_VISIBLE_DEVICES="")
        assert run.returncode == 2 and message in run.stderr and not (tmp_path / "none").exists()


def test_a_run_that_died_before_its_first_checkpoint_begins_again_with_resume(data, tmp_path):
    (tmp_path / "tensorboard").mkdir()
    options = ["--data", data, "--out", tmp_path, "--resume"]
    run = recipe("math_easy", *options, CUDA_VISIBLE_DEVICES="")
    assert f"no checkpoints in {tmp_path}: the run starts from the beginning" in run.stdout
    assert "8 GPUs are needed and here are 0" in run.stderr  # the next check
    run = recipe("math_easy", *options, "--submit", "http://127.0.0.1:1")
    assert "if there are none, the job starts from the beginning" in run.stdout
    assert "no Ray dashboard answers" in run.stderr
    assert "--ckpt.load_enable" in printed("math_easy", *options)


def test_a_submission_without_this_package_stops_before_it_is_made(data, tmp_path):
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\n[ "$1" != -c ] || exit 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    options = ("--data", data, "--out", tmp_path / "run", "--submit", "http://127.0.0.1:1")
    run = recipe("math_easy", *options, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert run.returncode == 2 and "--submit needs this package here too" in run.stderr
    assert not (tmp_path / "run").exists()


def test_options_of_a_recipe_may_have_underscores_and_what_follows_the_dashes_stays():
    words = printed("math_easy", "--dry_run", "--print", "--", "--actor.adam.lr", "1e-5")
    assert words == printed("math_easy", "--print", "--", "--actor.adam.lr", "1e-5")
    assert "--dry_walk is not known" in recipe("math_easy", "--dry_walk").stderr
    run = recipe("quickstart_cpu", "--model_seed", "x", "--dry_run")
    assert run.returncode == 2 and "--model-seed x" in run.stderr


def test_the_help_names_every_option_and_variable():
    shown = recipe("math_easy", "--help").stdout
    options = set(re.findall(r"^ {12}(--[a-z-]+)\)", (RECIPES / "lib/launch.sh").read_text(), re.M))
    assert len(options) >= 11 and not {name for name in options if f"  {name} " not in shown}
    variables = ("RISKPO_DATA", "RISKPO_REWARD", "RISKPO_CODE_SANDBOXES", "RISKPO_CODE_ENGINES")
    for name in (*variables, "NODES, GPUS_PER_NODE"):
        assert f"  {name} " in shown
    rows = [line for line in (ROOT / "docs/recipes.md").read_text().splitlines() if line.startswith("| `--")]
    assert not {name for name in options if not any(re.search(f"`{name}[ `]", row) for row in rows)}


def paper_plan(*words) -> str:
    """What `paper.sh` says it will run, before it ends for want of data."""
    run = recipe("paper", *words)
    assert run.returncode == 2 and "no data:" in run.stdout, run.stdout + run.stderr
    return run.stdout


def paper_commands(*words) -> list[list[str]]:
    """The trainings that `paper.sh` names."""
    return [line.split() for line in paper_plan(*words).splitlines() if line.startswith("    bash ")]


@pytest.mark.parametrize(
    ("element", "runs"),
    [("table1", 6), ("table2", 9), ("table3", 7), ("table4", 10), ("table5", 5), ("figure4", 2), ("figure6", 2)],
)
def test_an_element_of_the_paper_names_a_training_for_each_row_and_seed(element, runs, tmp_path):
    commands = paper_commands(element, "--seeds", "1", "2", "--data", tmp_path, "--", "--train.num_episodes", "1")
    assert len(commands) == 2 * runs == len({command[command.index("--out") + 1] for command in commands})
    for command in commands:
        assert command[-2:] == ["--train.num_episodes", "1"]
        task, method = Path(command[1]).stem, command[command.index("--method") + 1]
        assert task in TASKS and method in METHODS


@pytest.mark.parametrize(
    ("element", "knobs"), [("table3", ["alpha", "beta"]), ("table4", ["bundle_size"]), ("table5", ["omega"])]
)
def test_a_row_of_an_ablation_sets_the_papers_values_of_its_knobs(element, knobs, tmp_path, paper_tables):
    commands = paper_commands(element, "--data", tmp_path)
    defaults = RiskPOConfig()
    for label, command in zip(paper_tables[element].rows, commands, strict=True):
        flags = dict(zip(command, command[1:], strict=False))
        for knob, value in zip(knobs, label.split(), strict=True):
            assert float(flags.get(f"--algo.riskpo.{knob}", getattr(defaults, knob))) == float(value)


@pytest.fixture
def paper_tables():
    from riskpo_openrlhf.analysis.paper_tables import TABLES

    return TABLES


def test_every_table_of_the_paper_has_the_rows_that_its_numbers_have(paper_tables):
    elements = runpy.run_path(str(RECIPES / "lib/elements.py"))
    assert {name: set(rows) for name, rows in elements["TABLES"].items()} == {
        name: set(table.rows) for name, table in paper_tables.items()
    }
    for name, rows in elements["TABLES"].items():
        sources = {source for names in paper_tables[name].columns.values() for source in names}
        for row in rows.values():
            assert {source for names in row for source in names} == sources, name


def test_finished_trainings_are_skipped_cut_off_ones_resumed_and_another_method_has_folders_of_its_own(tmp_path):
    words = ("table5", "--out", tmp_path / "runs", "--data", tmp_path)
    folders = [Path(command[command.index("--out") + 1]) for command in paper_commands(*words)]
    for folder in folders[:2]:
        (folder / "checkpoints").mkdir(parents=True)
    (folders[0] / "finished").touch()
    commands = paper_commands(*words)
    assert len(commands) == len(folders) - 1
    assert ["--resume" in command for command in commands] == [True, *[False] * (len(commands) - 1)]
    others = {command[command.index("--out") + 1] for command in paper_commands(*words, "--method", "recommended")}
    assert len(others) == len(folders) and not others & set(map(str, folders))


def test_a_plan_counts_what_elements_share_once_and_names_evaluations_hours_and_disk(tmp_path):
    words = ("table1", "figure4", "figure3", "--data", tmp_path, "--out", tmp_path / "runs")
    plan = paper_plan(*words)
    assert "table1: 6 trainings, 18 evaluations\n" in plan and "figure4: 2 trainings, 2 named above\n" in plan
    assert plan.count("    bash ") == 6
    assert "figure3: 1 evaluation\n" in plan and "on dapo_math_17k: 16 answers a problem, " in plan
    assert re.search(r"evaluate 9 models on aime25, .*: setting public, \d+\.\d h each", plan)
    sizes = r"together about (\d+) hours of training and (\d+) of evaluation on 8 GPUs .* and 470 GB of disk"
    training, evaluation = map(int, re.search(sizes, plan).groups())
    on_one = re.search(sizes.replace("8 GPUs", "1 GPUs"), paper_plan(*words, "--machines", "1gpu"))
    assert abs(int(on_one[1]) - 8 * training) <= 8 and abs(int(on_one[2]) - 8 * evaluation) <= 8


def test_rows_choose_those_of_tables_and_figures_and_one_that_is_nowhere_is_refused(tmp_path):
    (command,) = paper_commands("table1", "figure4", "--rows", "RiskPO", "--data", tmp_path)
    assert command[command.index("--method") + 1] == "paper"
    for rows, message in {
        ("RiskPO",): "--rows RiskPO: those of table3 are '0.2 0.8', ", ("0.2 0.8", "GRP"): "--rows GRP: not a row",
    }.items():  # fmt: skip
        run = recipe("paper", "table3", "--rows", *rows)
        assert run.returncode == 2 and message in run.stderr


def test_another_easy_model_has_folders_of_its_own(tmp_path):
    (command,) = paper_commands("table3", "--rows", "0.2 0.8", "--data", tmp_path)
    model = "Qwen/Qwen2.5-1.5B-Instruct"
    (other,) = paper_commands("table3", "--rows", "0.2 0.8", "--data", tmp_path, "--easy_model", model)
    assert other[other.index("--model") + 1] == model
    assert command[command.index("--out") + 1] != other[other.index("--out") + 1]


def test_a_dry_run_of_an_element_checks_each_training_and_shows_what_is_wrong(data, tmp_path):
    for name in ("minerva", "olympiadbench"):
        (data / f"{name}.jsonl").write_text((data / "aime24.jsonl").read_text())
    words = ("figure4", "--rows", "RiskPO", "--data", data, "--out", tmp_path / "runs", "--dry-run")
    run = recipe("paper", *words, "--", "--data.max_len", "3072")
    assert run.returncode == 2 and not (tmp_path / "runs").exists()
    assert "leaves no room for a prompt" in run.stdout and "1 of 1 commands would be refused" in run.stdout


@pytest.mark.parametrize(
    ("machines", "engines"), [("1gpu", 1), ("8gpu", 8), ("8gpu-async", 4), ("nodes", 8), ("nodes-async", 8)]
)
def test_the_engines_of_a_node_share_its_cores_for_their_programs(machines, engines, tmp_path):
    shown = tmp_path / "python3"  # the last thing that a recipe does before it prints is to call python3
    shown.write_text('#!/bin/sh\necho "engines $RISKPO_CODE_ENGINES" >&2\n')
    shown.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    words = ("code", "--machines", machines, "--print")
    assert f"engines {engines}\n" in recipe(*words, PATH=path).stderr
    assert "engines 5\n" in recipe(*words, PATH=path, RISKPO_CODE_ENGINES="5").stderr


def test_a_submitted_job_gets_the_settings_of_the_verifiers():
    words = printed("code", "--submit", "http://head:8265", RISKPO_VERIFIER_SECONDS="9")
    variables = json.loads(words[words.index("--runtime-env-json") + 1])["env_vars"]
    assert variables == {"RISKPO_CODE_ENGINES": "8", "RISKPO_VERIFIER_SECONDS": "9"}


def test_every_script_stops_at_its_first_error():
    for script in (*RECIPES.glob("*.sh"),):
        assert "set -euo pipefail" in script.read_text(), script
    for script in RECIPES.rglob("*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_rows_that_fill_no_rollout_are_left_out(tmp_path):
    train, *tests = sets("geometry")
    for name in (train, *tests):
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(ROW) + "\n") * (1100 if name == train else 10))
    words = printed("geometry", "--data", tmp_path)
    assert words[words.index("--data.max_samples") + 1] == "1024"
    words = printed("geometry", "--data", tmp_path, "--", "--data.max_samples", "7")
    assert words.count("--data.max_samples") == 1
    assert "--data.max_samples" not in printed("geometry", "--data", tmp_path, "--", "--rollout.batch_size=100")
    assert "--data.max_samples" not in printed("geometry", "--data", tmp_path, "--", "--rollout.batch_size", "100")


def test_data_of_ones_own_needs_no_prepared_sets(data, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text((json.dumps(ROW) + "\n") * 512)
    options = ["--data", tmp_path, "--out", tmp_path / "run", "--"]
    run = recipe("math_easy", *options, "--data.prompt_dataset", own, "--eval.dataset", own, CUDA_VISIBLE_DEVICES="")
    assert "GPUs are needed" in run.stderr
    run = recipe("math_easy", *options, "--data.prompt_dataset", own)
    assert "math_test.jsonl" in run.stderr and "own.jsonl" not in run.stderr


@pytest.mark.parametrize(
    ("machines", "nodes"), [("nodes", "0"), ("nodes", "x"), ("nodes-async", "3"), ("nodes-async", "1")]
)
def test_a_number_of_nodes_that_can_not_be_shared_is_refused(machines, nodes):
    run = recipe("math_easy", "--machines", machines, "--print", NODES=nodes)
    assert run.returncode == 2 and f"NODES={nodes} GPUS_PER_NODE=8: whole numbers above 0" in run.stderr


def test_a_folder_whose_name_openrlhf_would_cut_is_refused():
    for folder in ("/tmp/a@b", "/tmp/a,b"):
        run = recipe("math_easy", "--data", folder, "--print")
        assert run.returncode == 2 and "take a folder without them" in run.stderr


@pytest.mark.parametrize(("steps", "every"), [(2, 2), (60, 20)])
def test_a_quickstart_of_few_steps_is_evaluated_at_its_end(steps, every):
    words = recipe("quickstart_cpu", "--steps", str(steps), "--print").stdout.split()
    assert {words[words.index(flag) + 1] for flag in ("--eval.steps", "--ckpt.save_steps")} == {str(every)}


def test_the_quickstart_takes_every_method_and_refuses_others():
    run = recipe("quickstart_cpu", "--method", "ppo")
    assert run.returncode == 2 and "--method ppo is not known; one of: dapo" in run.stderr
