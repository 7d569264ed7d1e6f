"""What of a tensor is kept: sampled runs in memory order, its bits as numpy, its signs."""

from __future__ import annotations

import random
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

RUN_VALUES = 512
GROUP_VALUES = 64
Runs = tuple[tuple[int, int], ...]


def sampled_runs(values: int, sample: int | None, seed: int) -> Runs:
    """Return the runs (first value, values) to keep of a tensor of `values` values.

    About `sample` values in runs of 512, one at a random multiple of 64 in each of as many
    equal parts of the tensor; a tensor that is not longer than the sample, or than two
    runs, is kept whole.

    Examples
    --------
    >>> sampled_runs(1000, 1024, seed=1)
    ((0, 1000),)
    >>> [length for _, length in sampled_runs(100_000, 1024, seed=1)]
    [512, 512]
    """
    if sample is None or values <= max(sample, 2 * RUN_VALUES):
        return ((0, values),)
    count = max(2, sample // RUN_VALUES)
    chance = random.Random(seed)
    part = values // count // GROUP_VALUES * GROUP_VALUES
    room = (part - RUN_VALUES) // GROUP_VALUES
    return tuple(
        (i * part + GROUP_VALUES * chance.randint(0, room), RUN_VALUES) for i in range(count)
    )


def dense(tensor: Any) -> Any:
    """Return `tensor` with expanded dimensions (stride 0) cut to 1: what memory holds."""
    for d, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(d, 0, 1)
    return tensor


def memory_order(tensor: Any) -> tuple[int, ...]:
    """Return the dimensions from slowest- to fastest-varying in memory."""
    strides = tensor.stride()
    return tuple(sorted(range(tensor.dim()), key=lambda d: (-strides[d], d)))


def to_numpy(tensor: Any) -> NDArray[Any]:
    """Return a torch tensor as numpy, bfloat16 and the 8-bit floats included, bit for bit."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    views = {
        torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
        torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
        torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
    }
    if tensor.dtype in views:
        word, dtype = views[tensor.dtype]
        bits: NDArray[Any] = tensor.view(word).numpy()
        return bits.view(dtype)
    return np.asarray(tensor.numpy())


def any_sign(flat: Any) -> bool | None:
    """Return whether a value of `flat` (torch, contiguous) has its sign bit set, None: no float.

    The least of the words read as integers tells: one pass, no temporary; -0.0 and
    negative NaNs count.
    """
    import torch

    words = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    if not flat.is_floating_point():
        return None
    return bool(flat.numel()) and int(flat.view(words[flat.element_size()]).min()) < 0
