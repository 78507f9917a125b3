"""TensorBoard logs on a disk that is full, with the real writer."""

from types import SimpleNamespace

import pytest

from riskpo_openrlhf.integration.trainers import SafeLogger


@pytest.fixture
def logger(tmp_path):
    pytest.importorskip("tensorboard")
    from openrlhf.utils.logging_utils import TensorboardLogger

    place = SimpleNamespace(tensorboard_dir=str(tmp_path), wandb=SimpleNamespace(run_name="run"))
    return TensorboardLogger(SimpleNamespace(logger=place))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's own thread
def test_a_full_disk_is_told_once_and_stops_nothing(logger, capsys):
    safe = SafeLogger(logger)
    safe.log_train(1, {"reward": 0.5})
    full = open("/dev/full", "wb", buffering=0)
    file = logger.writer._get_file_writer().event_writer._async_writer._writer
    file._writer.write = lambda data: full.write(data)
    for step in (2, 3, 4):
        safe.log_train(step, {"reward": 0.5})
    safe.log_eval(4, {"reward": 0.5})
    safe.close()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[riskpo]")]
    assert len(lines) == 1 and "No space left on device" in lines[0] and "--logger.tensorboard_dir" in lines[0]
