import gzip

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def one_thread():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Fashion-MNIST's files with 96 and 50 images of noise."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(1)
    for part, count in (("train", 96), ("t10k", 50)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8).tobytes()
        labels = rng.integers(0, 10, count, np.uint8).tobytes()
        for kind, head, held in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            path = folder / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(bytes(head) + held))
    return folder
