"""Is a trace readable after a kill at any moment?"""

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")


def test_ten_kills_leave_ten_readable_traces(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "models"))
    monkeypatch.delitem(sys.modules, "kill_capture", raising=False)
    import kill_capture

    found = kill_capture.kills(10, seed=4)
    assert found["readable"] + found["empty"] == 10, found
