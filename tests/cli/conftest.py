import json
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from sfpsim.cli import run
from sfpsim.trace.schema import Lengths, Manifest, TensorRecord
from sfpsim.trace.writer import TraceWriter


@dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out, parse_constant=pytest.fail)

    @property
    def line(self):
        """The one line on standard error, with nothing on standard output."""
        assert self.status == 2
        assert self.out == ""
        assert self.err.startswith("sfpsim: ")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        return self.err.removeprefix("sfpsim: ").rstrip("\n")


@pytest.fixture
def sfpsim(capfd):
    """Run the command line in this process."""

    def call(*arguments):
        capfd.readouterr()
        status = run([str(a) for a in arguments])
        return Outcome(status, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def values():
    return np.random.default_rng(1).normal(size=(40, 100)).astype(np.float32)


@pytest.fixture(scope="session")
def arrays(tmp_path_factory, values):
    """A file with one tensor of each kind."""
    path = tmp_path_factory.mktemp("arrays") / "arrays.safetensors"
    tensors = {
        "single": values,
        "brain": values.astype(ml_dtypes.bfloat16),
        "half": values.astype(np.float16),
        "whole": np.arange(50, dtype=np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.full((), 2.5, np.float32),
    }
    save_file(tensors, path)
    return path


@pytest.fixture(scope="session")
def single(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("single") / "single.npy"
    np.save(path, values)
    return path


def _record(name, role, use, step=0, **more):
    return TensorRecord(
        name=name, step=step, layer="fc", role=role, use=use, dtype="float32", shape=(40, 100),
        memory_order=(0, 1), runs=((0, 4000),), any_sign=True, **more,
    )  # fmt: skip


@pytest.fixture
def trace(tmp_path, values):
    """A trace directory of two tensors, one of them with bitlengths in force."""
    path = tmp_path / "run.trace"
    manifest = Manifest(model="two tensors", framework="none", framework_version="0")
    lengths = Lengths(mantissa_bits=3, exponent_bits=5)
    with TraceWriter(path, manifest) as writer:
        writer.add(_record("w", "weight", "weight"), values.reshape(-1))
        writer.add(_record("x", "activation", "stash", lengths=lengths), values.reshape(-1))
    return path


@pytest.fixture
def steps(tmp_path, values):
    """A trace of one weight at two steps, between which its lengths became shorter."""
    path = tmp_path / "steps.trace"
    manifest = Manifest(model="one tensor", framework="none", framework_version="0")
    with TraceWriter(path, manifest) as writer:
        for step, epoch, bits in ((0, 0, 7), (50, 1, 2)):
            lengths = Lengths(mantissa_bits=bits, exponent_bits=6)
            more = {"epoch": epoch, "lengths": lengths}
            writer.add(_record(f"w{step}", "weight", "weight", step, **more), values.reshape(-1))
    return path
