"""The command around the engines: what it asks for, what it keeps, how it ends. Stand-ins make the samples."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from transformers import Qwen2Config

from riskpo_openrlhf.cli import evaluate
from riskpo_openrlhf.evaluation.problems import EvaluationError
from riskpo_openrlhf.integration import contract, evaluation_engines
from riskpo_openrlhf.lab.tiny_model import build_tiny_tokenizer
from riskpo_openrlhf.verifiers.built_in import PATH as REWARD_FUNC
from riskpo_openrlhf.verifiers.labels import write_label

CHAT = [{"role": "user", "content": "1+1"}]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`command(*flags, answer=…)` evaluates two problems -> exit code; `command.asked` are the samples asked for."""
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}="
    tokenizer.save_pretrained(tmp_path / "model")
    Qwen2Config(max_position_embeddings=64).save_pretrained(tmp_path / "model")
    rows = [
        {"prompt": CHAT, "label": "2", "datasource": "arithmetic", "id": "chat"},
        {"prompt": "2+2=", "label": "4", "datasource": "arithmetic", "id": "text"},
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "reward.py").write_text("")

    def sample(request, **fields):
        datasource, problem, place = request["key"]
        row = {"datasource": datasource, "id": problem, "sample": place, "response": "2", "score": 1.0, "status": "ok"}
        return {**row, "tokens": 1, "truncated": False, "logprob": -0.1, "extra_logs": {}, **fields}

    @contextmanager
    def running(args, tokenizer, *, reward, **kwargs):
        run.reward, run.runtime = reward, args.runtime
        yield [None]

    def run(*flags, answer=lambda request: {}, reward=tmp_path / "reward.py", out=True):
        run.asked = []

        def generate(engines, problems):
            for requests in problems:
                run.asked += requests
                yield [sample(request, **answer(request)) for request in requests]

        stand_in = SimpleNamespace(**vars(evaluation_engines))
        stand_in.generate, stand_in.running = generate, running
        monkeypatch.setattr(evaluate, "load_engines", lambda args: stand_in)
        places = ["--model", tmp_path / "model", "--data", tmp_path / "data.jsonl"]
        places += (["--out", tmp_path / "out"] if out else []) + (["--reward", reward] if reward else [])
        return evaluate.main(list(map(str, [*places, *flags])))

    run.asked, run.folder = [], tmp_path / "out"
    return run


def test_chat_and_text_prompts_are_evaluated_together_and_a_finished_evaluation_asks_for_nothing_more(command, capsys):
    assert command("--n", "3") == 0
    assert {request["prompt"] for request in command.asked} == {"1+1=", "2+2="}
    assert len(command.asked) == 6 and {request["max_len"] for request in command.asked} == {36}
    summary = json.loads((command.folder / "summary.json").read_text())
    assert summary["sources"]["arithmetic"]["pass@3"] == 1.0
    assert summary["sampling"]["arithmetic"]["n"] == 3
    assert "given here: n" in capsys.readouterr().out
    assert command("--n", "3") == 0
    assert command.asked == []


def test_a_verifier_that_keeps_failing_stops_the_run_with_its_error_and_its_samples_are_made_again(command, capsys):
    fails = {"score": None, "status": "error", "error": "ConnectionError: no verifier"}
    assert command("--n", "30", answer=lambda request: fails) == 1
    assert "30 of 30 samples have no verdict" in (error := capsys.readouterr().err)
    assert "ConnectionError: no verifier" in error
    assert len((command.folder / "samples.jsonl").read_text().splitlines()) == 30
    assert command("--n", "30") == 0
    assert len(command.asked) == 60
    assert json.loads((command.folder / "summary.json").read_text())["sources"]["arithmetic"]["error"] == 0


def test_a_few_failures_are_told_in_the_end(command, capsys):
    def answer(request):
        first = request["key"][2] == 0
        return {"score": None, "status": "error", "error": "OSError: once"} if first else {}

    assert command("--n", "10", answer=answer) == 0
    assert "2 samples have no verdict, e.g. OSError: once" in capsys.readouterr().out


def test_an_engine_that_dies_ends_with_code_1_and_keeps_what_was_done(command, capsys):
    def answer(request):
        if request["key"][1] == "text":
            raise EvaluationError("engine 1 of 1 failed: EngineDeadError")
        return {}

    assert command("--n", "5", answer=answer) == 1
    assert "EngineDeadError" in capsys.readouterr().err
    assert command("--n", "5") == 0
    assert {request["key"][1] for request in command.asked} == {"text"}


def test_an_interrupt_ends_with_code_130(command, capsys):
    def answer(request):
        raise KeyboardInterrupt

    assert command(answer=answer) == 130
    assert "the same command resumes" in capsys.readouterr().err


def test_the_benchmark_s_length_gives_way_to_the_model_s_positions_but_a_flag_does_not(command, capsys):
    data = command.folder.parent / "data.jsonl"
    data.write_text(data.read_text().replace("arithmetic", "aime24"))
    assert command("--n", "1") == 0
    assert {request["sampling"]["max_tokens"] for request in command.asked} == {60}
    assert "responses get 60 tokens instead of 32768" in capsys.readouterr().out
    assert command("--n", "1", "--max_new_tokens", "100") == 2
    assert "leaves 60 for --max_new_tokens 100" in capsys.readouterr().err


def test_other_weights_under_the_same_name_are_another_evaluation(command, capsys):
    assert command("--n", "1") == 0
    (command.folder.parent / "model/config.json").write_text(Qwen2Config(max_position_embeddings=64).to_json_string())
    assert command("--n", "1") == 2
    assert "model_files" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_said_so(command, capsys):
    assert command("--model", "/nowhere") == 2
    assert "--model /nowhere does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--n", "0"), "--n 0 is not allowed: 1 or more"),
        (("--n", "4", "--temperature", "0"), "take --n 1"),
        (("--data", "missing.jsonl"), "missing.jsonl can't be read: No such file"),
        (("--data", "train.parquet"), "train.parquet is no JSON-lines text in UTF-8"),
        (("--model", "no-such-model"), "There is no folder no-such-model"),
    ],
)
def test_a_wrong_flag_ends_with_code_2_before_anything_is_begun(command, options, said, capsys, monkeypatch):
    monkeypatch.chdir(command.folder.parent)
    (command.folder.parent / "train.parquet").write_bytes(b"PAR1\xae")
    assert command(*options) == 2
    assert said in capsys.readouterr().err and command.asked == []


def test_an_evaluation_of_which_nothing_could_be_read_ends_with_code_1_the_cause_and_the_cure(command, capsys):
    unread = {"score": 0.0, "status": "no_answer"}
    assert command("--n", "2", answer=lambda request: unread) == 1
    printed = capsys.readouterr()
    assert "arithmetic: not one of 4 responses could be read (100% no answer). Likely cause:" in printed.err
    assert "--reward FILE" in printed.err
    assert json.loads((command.folder / "summary.json").read_text())["sources"]["arithmetic"]["no_answer"] == 1


def test_responses_that_are_all_wrong_but_were_read_are_a_result(command):
    assert command("--n", "2", answer=lambda request: {"score": 0.0}) == 0


def test_labels_that_name_no_verifier_are_refused_before_anything_is_sampled(command, capsys):
    assert command(reward=None) == 2
    error = capsys.readouterr().err
    assert "the label '2' of arithmetic/chat names no verifier, as 2 of 2 labels" in error
    assert "--reward FILE" in error and "--reward riskpo" in error
    assert command.asked == []


def test_labels_that_name_their_verifier_are_graded_by_it_and_so_are_others_with_reward_riskpo(command, capsys):
    assert command("--n", "1", reward="riskpo") == 0
    assert command.reward == [str(REWARD_FUNC)]
    data = command.folder.parent / "data.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    data.write_text("".join(json.dumps(row | {"label": write_label("math", row["label"])}) + "\n" for row in rows))
    assert command("--n", "1", "--out", str(command.folder / "named"), reward=None) == 0
    assert command.reward == [str(REWARD_FUNC)]
    assert "Graded by riskpo (the verifier that each label names)" in capsys.readouterr().out
    data.write_text(data.read_text().replace("math", "maths"))
    assert command(reward=None) == 2
    assert "arithmetic/chat: verifier 'maths' is not known" in capsys.readouterr().err


def test_what_a_run_trained_is_graded_as_in_training(command, capsys):
    reward = command.folder.parent / "reward.py"
    flags = {"reward.remote_url": [str(reward)], "riskpo.runtime": "cpu", "data.apply_chat_template": True}
    settings = {"format": 1, "flags": flags, "config": {"a knob of an older version": 1}}
    (command.folder.parent / "settings.json").write_text(json.dumps(settings))
    assert command("--n", "1", reward=None) == 0
    assert command.reward == [str(reward)] and command.runtime == "cpu"
    assert {request["prompt"] for request in command.asked} == {"1+1=", "2+2=="}  # the template adds the mark
    assert f"Graded by {reward} (as in training, " in capsys.readouterr().out


def test_without_out_the_result_goes_beside_the_model(command):
    assert command("--n", "1", out=False) == 0
    assert (command.folder.with_name("evaluation") / "summary.json").is_file()


def test_with_json_the_last_line_is_the_summary_and_a_comparison_is_nothing_else(command, capsys):
    assert command("--n", "1", "--json") == 0
    written = json.loads((command.folder / "summary.json").read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == written
    assert evaluate.main(["--compare", str(command.folder), str(command.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overall"]["pass@1"]["difference"] == 0


def test_another_openrlhf_ends_with_code_3_before_anything_is_sampled(tmp_path, monkeypatch, capsys):
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "1+1=", "label": "2"}) + "\n")
    monkeypatch.setattr(contract, "installed_version", lambda: "0.10.0")
    places = ["--model", "m", "--data", tmp_path / "data.jsonl", "--out", tmp_path / "out", "--reward", "riskpo"]
    assert evaluate.main([*map(str, places)]) == 3
    assert "0.10.0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_seam_ends_with_code_3_and_its_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "1+1=", "label": "2"}) + "\n")
    monkeypatch.delattr("openrlhf.utils.agent.SingleTurnAgentExecutor._fetch_rewards_via_func")
    places = ["--model", "m", "--data", tmp_path / "data.jsonl", "--out", tmp_path / "out", "--reward", "riskpo"]
    assert evaluate.main([*map(str, places), "--runtime", "cpu"]) == 3
    assert "SingleTurnAgentExecutor._fetch_rewards_via_func" in capsys.readouterr().err


def test_in_a_file_the_progress_is_a_line_now_and_then_and_no_bar(command, capsys, monkeypatch):
    monkeypatch.setattr("riskpo_openrlhf.evaluation.run.SECONDS", 0)
    assert command("--n", "2") == 0
    printed = capsys.readouterr()
    assert "2 of 4 samples, right 100.0 %\n4 of 4 samples, right 100.0 %\n" in printed.out
    assert "Evaluating" not in printed.err
