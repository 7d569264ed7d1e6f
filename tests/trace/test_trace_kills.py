"""Is a trace readable after a kill at any moment?"""

from pathlib import Path

import pytest

pytest.importorskip("torch")


@pytest.fixture
def kills(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "models"))
    import kill_capture

    return kill_capture.kills


def test_kills_after_the_first_step_leave_readable_traces(kills):
    found = kills(7, seed=4)
    assert found["readable"] == 7, found


def test_kills_before_the_first_step_leave_readable_or_empty_traces(kills):
    found = kills(3, seed=4, after=0)
    assert found["readable"] + found["empty"] == 3, found
