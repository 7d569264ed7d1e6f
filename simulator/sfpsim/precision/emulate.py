"""Any container of the registry applied to what a training stashes, to see its accuracy."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sfpsim.containers.base import Container
from sfpsim.containers.registry import parse_container
from sfpsim.containers.sfp import Sfp, SfpFromTrace
from sfpsim.errors import InputError
from sfpsim.precision.arithmetic import exponent_range, mantissa_bits_of, quantized, room_for
from sfpsim.precision.attach import WHOLE, Method
from sfpsim.trace.sampling import to_numpy
from sfpsim.trace.schema import Lengths


class _Stored(torch.autograd.Function):
    """What comes back from memory forward, the gradient unchanged backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, container: Container) -> torch.Tensor:
        if isinstance(container, Sfp):  # the same bits, much sooner
            kept = container.mantissa_bits
            most = mantissa_bits_of(x.dtype)
            return quantized(
                x, most if kept is None else kept, exponent_range(container.exponent_bits)
            )
        found = container.quantize(to_numpy(x))
        out = room_for(x, x.dtype)
        out.view(-1).view(torch.uint8).numpy()[:] = found.reshape(-1).view("uint8")
        return out.to(x.device)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        return grads[0], None


class Emulation(Method):
    """Weights and stashed activations as a container gives them back.

    Parameters
    ----------
    model
        What is trained.
    container
        A container or its specification.

    Raises
    ------
    InputError
        As `Method`; or if the container is unknown or has no lengths of its own.
    """

    name = "emulation"

    def __init__(self, model: nn.Module, container: Container | str) -> None:
        found = parse_container(container) if isinstance(container, str) else container
        if isinstance(found, SfpFromTrace):
            raise InputError(
                f"container {found.spec!r} takes its lengths from a trace: give m= and e="
            )
        self.container = found
        self.untouched = WHOLE if isinstance(found, Sfp) else None
        super().__init__(model)

    def quantize(self, x: torch.Tensor, key: str) -> torch.Tensor:
        """Store and read back."""
        return _Stored.apply(x, self.container)

    def lengths(self, key: str) -> Lengths | None:
        """Return the lengths of an `sfp`, None for other containers."""
        if not isinstance(self.container, Sfp):
            return None
        return Lengths(
            mantissa_bits=self.container.mantissa_bits, exponent_bits=self.container.exponent_bits
        )
