"""Exported traffic: a file a channel, steps one behind the other, all of it or nothing."""

from pathlib import Path

import numpy as np
import pytest

from sfpsim.errors import InputError
from sfpsim.hardware.dram.simulate import Requests
from sfpsim.interop.address_trace import read_trace
from sfpsim.interop.traffic import TrafficExport, channel_paths


def bursts(*cycles):
    return Requests(
        address=np.array(cycles, np.uint64) * 64,
        is_write=np.zeros(len(cycles), np.uint8),
        cycle=np.array(cycles, np.uint64),
    )


def cycles_of(path, form="stl"):
    return [c for batch in read_trace(path, form) for c in batch.cycle.tolist()]


@pytest.mark.parametrize(
    ("name", "second"),
    [("t", "t.ch1"), ("t.txt", "t.ch1.txt"), ("t.stl.gz", "t.ch1.stl.gz")],
)
def test_names(name, second):
    assert channel_paths(Path("a") / name, 1) == [Path("a") / name]
    assert channel_paths(Path("a") / name, 2)[1] == Path("a") / second


def test_steps_follow_each_other(tmp_path):
    with TrafficExport(tmp_path / "t.stl", "stl", 2) as export:
        export.add(0, bursts(0, 3, 5))
        export.add(1, bursts(2))
        export.add(0, bursts(7))
        export.next_step(100)
        export.add(1, bursts(1))
        assert export.requests == [4, 2]
        assert not (tmp_path / "t.ch0.stl").exists()
    assert cycles_of(tmp_path / "t.ch0.stl") == [0, 3, 5, 7]
    assert cycles_of(tmp_path / "t.ch1.stl") == [2, 101]


def test_all_or_nothing(tmp_path):
    with pytest.raises(IndexError), TrafficExport(tmp_path / "t", "stl", 3) as export:
        export.add(3, bursts(1))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="cannot be written"):
        TrafficExport(tmp_path / "none" / "t", "stl", 3)
    (tmp_path / ".tmp-t.ch1").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        TrafficExport(tmp_path / "t", "stl", 2)
    assert [p.name for p in tmp_path.iterdir()] == [".tmp-t.ch1"]
