"""BitWave and BitChop: outside observers of the loss, one length for the whole network.

Sources: BitWave: Schrödinger's FP, MLSys 2024; BitChop: its preprint, arXiv 2204.13666 v1,
April 2022. Neither changes a gradient. Where they are silent the defaults are readings: a
history of 100 batches, a threshold of 1e-4 of the mean loss a batch, steps of 1; for
BitChop a moving average with weight 0.1 for loss and error band alike.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import nn

from sfpsim.errors import InputError
from sfpsim.precision.arithmetic import Range, mantissa_bits_of, quantized
from sfpsim.precision.attach import Method
from sfpsim.trace.schema import Lengths

MOST_LIMIT = 126
FULL_MANTISSA = 23


def slope(values: list[float]) -> float:
    """Return the slope of the least-squares line through `values`, a step."""
    n = len(values)
    if n < 2:
        return 0.0
    middle, mean = (n - 1) / 2, math.fsum(values) / n
    above = math.fsum((i - middle) * (v - mean) for i, v in enumerate(values))
    return above / math.fsum((i - middle) ** 2 for i in range(n))


def bits_of_limit(limit: int) -> int:
    """Return the least exponent length whose range holds exponents -limit .. limit + 1.

    126 is the whole range and takes 8 bits; the length shrinks where the range crosses a
    power of two.
    """
    bits = 1
    while not (limit <= 2 ** (bits - 1) and limit + 1 <= 2 ** (bits - 1) - 1) and bits < 8:
        bits += 1
    return bits


class _Through(torch.autograd.Function):
    """Quantize forward, pass the gradient unchanged."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, m: int, limits: Range | None) -> torch.Tensor:
        return quantized(x, m, limits)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        return grads[0], None, None


class _Watcher(Method):
    """One mantissa length and one exponent limit for every tensor."""

    def __init__(self, model: nn.Module, mantissa_bits: int) -> None:
        super().__init__(model)
        if not 0 <= mantissa_bits <= FULL_MANTISSA:
            raise InputError(f"mantissa_bits={mantissa_bits}: must be 0 to {FULL_MANTISSA}")
        self.most = mantissa_bits
        self.mantissa_bits = mantissa_bits
        self.limit = MOST_LIMIT
        self.frozen = False
        self.history: list[tuple[int, int]] = []

    def quantize(self, x: torch.Tensor, key: str) -> torch.Tensor:
        """Quantize at the network's lengths."""
        limits = None if self.limit >= MOST_LIMIT else Range(-self.limit, self.limit + 1)
        kept = min(self.mantissa_bits, mantissa_bits_of(x.dtype))
        return _Through.apply(x, kept, limits)

    def lengths(self, key: str) -> Lengths | None:
        """Return the network's lengths."""
        return Lengths(
            mantissa_bits=self.mantissa_bits, exponent_bits=bits_of_limit(self.limit)
        )  # fmt: skip

    def _loss(self, loss: torch.Tensor, value: float) -> torch.Tensor:
        self.history.append((self.mantissa_bits, self.limit))
        if not self.frozen:
            self.watch(value)
        return loss

    def watch(self, value: float) -> None:
        """Decide the next batch's lengths from the loss of this one."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Fix mantissa and range at the mean of all used so far, rounded up."""
        if not self.history:
            raise InputError(f"{self.name}: nothing was trained yet: there is no mean to freeze at")
        self.mantissa_bits = math.ceil(sum(m for m, _ in self.history) / len(self.history))
        self.limit = math.ceil(sum(x for _, x in self.history) / len(self.history))
        self.frozen = True

    def _state(self) -> dict[str, Any]:
        return {
            "mantissa_bits": self.mantissa_bits, "limit": self.limit, "frozen": self.frozen,
            "history": list(self.history),
        }  # fmt: skip

    def _load_state(self, state: dict[str, Any]) -> None:
        self.mantissa_bits, self.limit = state["mantissa_bits"], state["limit"]
        self.frozen, self.history = state["frozen"], list(state["history"])

    def mean_bits(self) -> dict[str, float]:
        """Return mean mantissa and exponent bits over the batches so far."""
        if not self.history:
            return {"mantissa": 0.0, "exponent": 0.0, "total": 0.0}
        m = sum(m for m, _ in self.history) / len(self.history)
        e = sum(bits_of_limit(x) for _, x in self.history) / len(self.history)
        return {"mantissa": m, "exponent": e, "total": m + e}


class BitWave(_Watcher):
    """Shortens while the loss falls, lengthens where it rises, holds in between.

    Parameters
    ----------
    model
        What is trained.
    history
        Batches over which the loss's slope is taken; nothing is decided before it is full.
    threshold
        Slopes within this share of the mean loss, a batch, hold.
    mantissa_bits
        Where the mantissa begins and the most it has.
    least_mantissa_bits, least_limit
        The least that mantissa and exponent limit are; the paper's mantissas go down to 0. A
        few batches at 0 bits, or at a range that holds no weight, make a training at a high
        learning rate diverge before the slope can tell.
    mantissa, exponent
        Which of the two follows the slope.
    """

    name = "bitwave"

    def __init__(
        self, model: nn.Module, *, history: int = 100, threshold: float = 1e-4,
        mantissa_bits: int = FULL_MANTISSA, least_mantissa_bits: int = 0, least_limit: int = 1,
        mantissa: bool = True, exponent: bool = True,
    ) -> None:  # fmt: skip
        if not 0 <= least_mantissa_bits <= mantissa_bits:
            raise InputError(
                f"least_mantissa_bits={least_mantissa_bits}: must be 0 to {mantissa_bits}"
            )
        if not 1 <= least_limit <= MOST_LIMIT:
            raise InputError(f"least_limit={least_limit}: must be 1 to {MOST_LIMIT}")
        self.least = least_mantissa_bits, least_limit
        if history < 2 or threshold < 0:
            raise InputError(f"history={history}, threshold={threshold}: 2 or more, 0 or more")
        super().__init__(model, mantissa_bits)
        self.losses: deque[float] = deque(maxlen=history)
        self.threshold = threshold
        self.follows = mantissa, exponent

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"losses": list(self.losses)}

    def _load_state(self, state: dict[str, Any]) -> None:
        super()._load_state(state)
        self.losses.clear()
        self.losses.extend(state["losses"])

    def watch(self, value: float) -> None:
        """Move both lengths a step by the slope of the last losses."""
        self.losses.append(value)
        if len(self.losses) < (self.losses.maxlen or 0):
            return
        rise = slope(list(self.losses))
        band = self.threshold * abs(math.fsum(self.losses) / len(self.losses))
        step = 0 if abs(rise) <= band else (1 if rise > 0 else -1)
        if self.follows[0]:
            self.mantissa_bits = min(self.most, max(self.least[0], self.mantissa_bits + step))
        if self.follows[1]:
            self.limit = min(MOST_LIMIT, max(self.least[1], self.limit + step))

    def learning_rate_changed(self) -> None:
        """Forget the losses and go to full lengths: the loss jumps there."""
        self.losses.clear()
        self.mantissa_bits, self.limit = self.most, MOST_LIMIT


class BitChop(_Watcher):
    """Compares each loss with a moving average and an error band; mantissas only.

    Parameters
    ----------
    model
        What is trained.
    weight
        Of a new loss in the average and of its distance in the band.
    mantissa_bits
        Where the mantissa begins and the most it has.
    full_batches
        Batches at full length after the learning rate changed.
    """

    name = "bitchop"

    def __init__(
        self, model: nn.Module, *, weight: float = 0.1, mantissa_bits: int = FULL_MANTISSA,
        full_batches: int = 100,
    ) -> None:  # fmt: skip
        if not 0 < weight <= 1:
            raise InputError(f"weight={weight}: must be above 0 and at most 1")
        super().__init__(model, mantissa_bits)
        self.weight, self.full_batches = weight, full_batches
        self.average: float | None = None
        self.band = 0.0
        self.waiting = 0

    def _state(self) -> dict[str, Any]:
        own = {"average": self.average, "band": self.band, "waiting": self.waiting}
        return super()._state() | own

    def _load_state(self, state: dict[str, Any]) -> None:
        super()._load_state(state)
        self.average, self.band = state["average"], state["band"]
        self.waiting = state["waiting"]

    def watch(self, value: float) -> None:
        """Shrink below the band, grow above it, hold within; then update average and band."""
        if self.average is None:
            self.average = value
            return
        distance = value - self.average
        if self.waiting:
            self.waiting -= 1
            self.mantissa_bits = self.most
        elif distance < -self.band:
            self.mantissa_bits = max(0, self.mantissa_bits - 1)
        elif distance > self.band:
            self.mantissa_bits = min(self.most, self.mantissa_bits + 1)
        self.average += self.weight * distance
        self.band += self.weight * (abs(distance) - self.band)

    def learning_rate_changed(self) -> None:
        """Go to full length for some batches."""
        self.waiting, self.mantissa_bits = self.full_batches, self.most
