"""Marks: tests/system starts real engines, which `tests/run.sh --fast` leaves out; who shares a process with whom."""

from pathlib import Path

import pytest
from hypothesis import settings

# Property tests have no time limit: a busy machine is no fault of the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

SYSTEM = Path(__file__).parent / "system"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(SYSTEM):
            item.add_marker("system")
        # For `pytest -n 2`. Engines need the cores: one job of theirs at a time. Other files share their fixtures.
        group = "engines" if item.path.is_relative_to(SYSTEM) else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
