"""What lies in tests/system starts real engines and carries the marker that `tests/run.sh --fast` leaves out."""

from pathlib import Path

import pytest

SYSTEM = Path(__file__).parent / "system"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(SYSTEM):
            item.add_marker("system")
