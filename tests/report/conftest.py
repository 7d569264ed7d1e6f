import numpy as np
import pytest
from safetensors.numpy import save_file

from sfpsim.experiment.compare import compare
from sfpsim.trace.reader import open_trace

POLICIES = ("fp32", "bf16", "fp16", "gecko-bias", "gecko-delta", "sfp:m=4,e=5",
            "sfp:m=4,exponent=gecko-bias", "sfp:m=1,e=4")  # fmt: skip


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    """Eight containers over a file of arrays."""
    path = tmp_path_factory.mktemp("report") / "arrays.safetensors"
    random = np.random.default_rng(2)
    save_file({name: random.normal(size=3000).astype(np.float32) for name in "ab"}, path)
    return compare(open_trace(path), POLICIES, per_tensor=True)
