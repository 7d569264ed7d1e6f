"""What a comparison says beside its numbers."""

import msgspec
import numpy as np

from sfpsim.experiment.compare import compare
from sfpsim.hardware.machine import load_machine
from sfpsim.trace.reader import open_trace


def test_floats_that_no_container_holds_are_named(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(100), b=np.ones(100, np.float32))
    found = compare(open_trace(tmp_path / "x.npz"), ["gecko-bias"])
    assert len(found.notes) == 1
    assert "1 tensors of dtype float64" in found.notes[0]


def test_a_memory_that_is_too_small_is_named(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3_000_000, np.float32))
    machine = load_machine("sfp-2024")
    device = msgspec.structs.replace(machine.device, rows=64)
    path = tmp_path / "tiny.yaml"
    path.write_bytes(msgspec.yaml.encode(device))
    memory = msgspec.structs.replace(machine.memory, device=str(path))
    small = msgspec.structs.replace(machine, memory=memory)
    assert compare(open_trace(tmp_path / "x.npy"), ["bf16"]).notes == []
    notes = compare(open_trace(tmp_path / "x.npy"), ["bf16"], machine=small).notes
    assert len(notes) == 1
    assert "addresses wrap around" in notes[0]
