import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")


@pytest.fixture(scope="session", autouse=True)
def warm_container_kernels():
    """Compile the container kernels once, so that no timed or deadlined test does."""
    from sfpsim.containers.registry import parse_container

    for dtype in (np.float32, np.float16):
        x = np.linspace(0, 1, 70).astype(dtype)
        for spec in ("gecko-bias", "gecko-delta", "sfp:m=2,e=4", "sfp:m=2"):
            container = parse_container(spec)
            container.decode(container.encode(x))
