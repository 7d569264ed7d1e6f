from importlib import resources

import pytest

from sfpsim.trace.reader import open_trace


@pytest.fixture(scope="session")
def one_step():
    """The first captured step of the sample trace."""
    trace = open_trace(resources.files("sfpsim") / "sample" / "resnet8")
    step = trace.steps[0]
    trace.records = [r for r in trace.records if r.step == step]
    trace.ops = [op for op in trace.ops if op.step == step]
    return trace
