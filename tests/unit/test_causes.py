"""Each known error gives its cause and its cure, wherever it stands in what Ray hands on."""

import pytest

from riskpo_openrlhf.integration import causes
from riskpo_openrlhf.integration.causes import RUN_FAULT, START, explain, explain_text
from riskpo_openrlhf.integration.faults import RunFault

ERRORS = {
    "torch's archive on a full disk": (
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), "a disk is full",
        RUN_FAULT),
    "the system on a full disk": (OSError(28, "No space left on device"), "a disk is full", RUN_FAULT),
    "Ray on a full disk": (RuntimeError("OutOfDiskError: Local disk is full"), "a disk is full", RUN_FAULT),
    "a GPU out of memory": (
        RuntimeError("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        "a GPU is out of memory", causes.INFRASTRUCTURE),
    "an engine without memory for its cache": (
        ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
        "a vLLM engine has too little memory", causes.INFRASTRUCTURE),
    "Ray's object store": (RuntimeError("ObjectStoreFullError: Failed to put object"), "Ray's object store is full",
                           causes.INFRASTRUCTURE),
    "Ray's memory monitor": (
        RuntimeError("Task was killed due to the node running low on memory."), "the machine ran low on memory",
        causes.INFRASTRUCTURE),
    "a port in use": (
        RuntimeError("The server socket has failed to listen on any local network address. port: 41, EADDRINUSE"),
        "a network port was taken", START),
    "a lost node": (RuntimeError("The actor died because its node has died."), "a node of the cluster was lost",
                    causes.INFRASTRUCTURE),
    "a dead engine": (RuntimeError("EngineDeadError: EngineCore encountered an issue."), "a vLLM engine died",
                      causes.INFRASTRUCTURE),
    "NCCL": (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled system error"), "connection between",
             causes.INFRASTRUCTURE),
    "Ray's node process": (
        RuntimeError("ActorUnavailableError: The actor 6b is unavailable: RPC Error message: Socket closed; "),
        "Ray's node process (raylet) ended", causes.INFRASTRUCTURE),
    "a long path": (
        OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /scratch/x/ray"),
        "Ray's temporary folder is too long", RUN_FAULT),
    "Ray's own start": (
        RuntimeError("Timed out waiting for file /tmp/ray/session_1/gcs_server_port_6b"), "Ray did not start",
        causes.INFRASTRUCTURE),
    "a wrong key of Weights & Biases": (
        RuntimeError("x\nwandb.errors.errors.AuthenticationError: API key must have 40+ characters, has 3."),
        "Weights & Biases failed: AuthenticationError: API key must have 40+ characters, has 3.", RUN_FAULT),
    "a disk that turned read-only": (
        OSError(30, "Read-only file system", "/data/_actor/.writing-global_step2"),
        "a file or folder can't be used: OSError: [Errno 30] Read-only file system: '/data/_actor/.writing-global",
        RUN_FAULT),
    "a file of another user": (
        PermissionError(13, "Permission denied", "/data/x"),
        "a file or folder can't be used: PermissionError: [Errno 13] Permission denied: '/data/x'", RUN_FAULT),
    "a broken disk": (OSError(5, "Input/output error", "/data/x"), "or a server of files, failed: OSError: [Errno 5]",
                      causes.INFRASTRUCTURE),
    "gloo": (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:36"),
             "connection between", causes.INFRASTRUCTURE),
}  # fmt: skip


def raised(error: BaseException) -> BaseException:
    """The error, two levels under another one."""
    try:
        try:
            raise error
        except BaseException as inner:
            raise RuntimeError("the job failed") from inner
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize("name", ERRORS)
def test_a_known_error_is_found_at_any_depth_and_gives_its_row(name):
    error, cause, kind = ERRORS[name]
    for each in (error, raised(error)):
        found = explain(each)
        row = next(row for row in causes.TABLE if row.cure == found.cure)
        assert cause.removesuffix(" died") in found.cause and found.kind == kind == row.kind


def test_every_row_of_the_table_is_reached_by_one_of_these_errors_or_by_its_own_test():
    reached = {explain(error).cure for error, _, _ in ERRORS.values()}
    assert {row.cause for row in causes.TABLE if row.cure not in reached} == {
        "a vLLM engine failed in its start{engine}",
        "a process of a vLLM engine died{engine}",
    }


def test_what_ray_could_not_write_at_its_start_names_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(causes, "FULL", 2**70)  # every disk counts as full
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "other"))
    cause = explain(RuntimeError("Timed out waiting for file /x/gcs_server_port_6b. Is it full?")).cause
    assert f"{tmp_path}/ray (" in cause and f"{tmp_path}/other (" in cause and "MiB free)" in cause


def test_an_engines_start_names_the_root_cause_that_it_left():
    text = "RuntimeError: Engine core initialization failed. root cause: ValueError: 3 heads on 2 GPUs"
    assert explain_text(text).cause == "a vLLM engine failed in its start: ValueError: 3 heads on 2 GPUs"


def test_an_engine_that_dies_in_a_run_names_the_root_cause_and_does_not_blame_memory():
    text = "EngineDeadError: class_name: RiskPORolloutActor pid: 7 root cause: IndexError: index 18 is out of bounds"
    found = explain_text(text)
    assert found.cause.startswith("a process of a vLLM engine died: IndexError: index 18 is out of bounds")
    assert "memory" not in found.cure


def test_the_innermost_run_fault_is_the_cause_whatever_wraps_it():
    ray_exceptions = pytest.importorskip("ray.exceptions")
    inner = RunFault("No response has a verdict", "mend the reward function")
    wrapped = ray_exceptions.RayTaskError("fit", "text", inner).as_instanceof_cause()
    for error in (inner, raised(inner), wrapped, raised(wrapped)):
        found = explain(error)
        assert (found.cause, found.cure, found.kind) == (inner.cause, inner.cure, RUN_FAULT)


def test_a_full_disk_is_named_with_its_free_space(tmp_path, monkeypatch):
    monkeypatch.setattr(causes, "FULL", 2**70)  # every disk counts as full
    cause = explain(OSError(28, "No space left on device"), [str(tmp_path / "not/yet/there")]).cause
    assert f"{tmp_path}/not/yet/there (" in cause and "MiB free)" in cause


DEATH = """ActorDiedError: The actor died unexpectedly before finishing this task.
	class_name: {}
	actor_id: 6b
	pid: 4711
	ip: 10.0.0.7
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker
unexpectedly exits with a connection error code 2. End of file. There are some potential root causes."""


@pytest.mark.parametrize(("name", "part"), causes.PARTS.items())
def test_a_killed_part_is_named_by_what_it_is(name, part):
    found = explain_text(DEATH.format(name))
    article = "an" if part == "asynchronous launcher" else "a"
    assert found.cause.startswith(f"{article} {part} died (process 4711) without a word: killed")
    assert "oom" in found.cure and "--riskpo.max_restarts" in found.cure


def test_an_actor_that_fails_in_its_start_gives_the_last_error_of_its_traceback():
    text = (
        "ActorDiedError: class_name: RiskPORolloutActor\nThe actor died because of an error raised in its creation "
        "task, ray::RiskPORolloutActor.__init__()\n  File 'x.py', line 1\npydantic_core.ValidationError: 1 validation "
        "error for ModelConfig\n  Value error, User-specified max_model_len (100000) is greater than 64\n"
    )
    cause = explain_text(text).cause
    assert cause.startswith("a vLLM engine failed in its start: ValidationError: 1 validation error for ModelConfig")
    assert "max_model_len (100000)" in cause


def test_a_run_fault_in_an_actors_start_is_no_fault_of_machines():
    text = "error raised in its creation task\nriskpo_openrlhf.integration.faults.RunFault: No data. Name a file.\n"
    found = explain_text(f"ActorDiedError: class_name: RiskPOTrainer\n{text}")
    assert (found.cause, found.kind) == ("No data. Name a file.", RUN_FAULT)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(KeyError("episode"), RUN_FAULT), (AssertionError(), RUN_FAULT), (TypeError("None"), RUN_FAULT),
     (RuntimeError(""), causes.INFRASTRUCTURE), (OSError(5, "Input/output error"), causes.INFRASTRUCTURE),
     (ConnectionResetError(), causes.INFRASTRUCTURE)],
)  # fmt: skip
def test_an_unknown_error_is_given_as_it_is_and_is_restarted_unless_the_code_would_raise_it_again(error, kind):
    for each in (error, raised(error)):
        found = explain(each)
        assert type(error).__name__ in found.cause and found.kind == kind
