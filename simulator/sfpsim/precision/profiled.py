"""Integer lengths found after training, tensor by tensor: what learned lengths compare with.

Source of the procedure: Judd et al., Reduced-Precision Strategies for Bounded Memory in Deep
Neural Nets (arXiv 1511.05236): each tensor's shortest length at which the network alone keeps
its accuracy, then all together, lengthened until the whole does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sfpsim.errors import InputError
from sfpsim.precision.bitpruning import LEAST_BITS, MOST_BITS, BitPruning


def profiled_lengths(
    model: nn.Module, score: Callable[[], float], *, tolerance: float, most_bits: int = 8
) -> dict[str, int]:
    """Return a length for each tensor at which `score` falls by at most `tolerance`.

    The model is not trained and is as it was afterwards; use the lengths with
    ``BitPruning(model, optimizer, learn=False, bits=lengths)``.

    Parameters
    ----------
    model
        A trained model.
    score
        Runs the model and returns what must not fall, for example accuracy in %.
    tolerance
        By how much it may.
    most_bits
        Where every length begins; no length is longer but where all must grow together.

    Raises
    ------
    InputError
        If `tolerance` is negative, `most_bits` out of range, or a method is attached.
    """
    if tolerance < 0 or not LEAST_BITS <= most_bits <= MOST_BITS:
        raise InputError(
            f"tolerance={tolerance}, most_bits={most_bits}: allowed are 0 or more, and "
            f"{LEAST_BITS} to {MOST_BITS}"
        )
    least = score() - tolerance
    scratch = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.0)
    method = BitPruning(model, scratch, learn=False, initial_bits=MOST_BITS)
    try:
        score()  # every tensor shows up
        alone = {key: _shortest(method, key, most_bits, score, least) for key in method.bits}
        return _together(method, alone, score, least)
    finally:
        method.detach()


def _shortest(
    method: BitPruning, key: str, most: int, score: Callable[[], float], least: float
) -> int:
    """Return the shortest length of `key` alone that keeps the score, at the most `most`."""
    found = most
    for bits in range(most - 1, LEAST_BITS - 1, -1):
        method.bits[key].data.fill_(bits)
        if score() < least:
            break
        found = bits
    method.bits[key].data.fill_(MOST_BITS)
    return found


def _together(
    method: BitPruning, alone: dict[str, int], score: Callable[[], float], least: float
) -> dict[str, int]:
    """Return the lengths with as many bits more for all as the score needs."""
    for more in range(MOST_BITS):
        lengths = {key: min(bits + more, MOST_BITS) for key, bits in alone.items()}
        for key, bits in lengths.items():
            method.bits[key].data.fill_(bits)
        if score() >= least:
            break
    return lengths
