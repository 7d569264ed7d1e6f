"""Who decides the bitlengths, in real PyTorch training: the papers' methods.

Every method attaches to a model in one line and takes the loss through one more::

    method = precision.QuantumFloat(model, optimizer)
    loss = method.loss(criterion(model(x), y))

Nothing of the model is rewritten: hooks hand each layer its input and weight as the method
stores them, so what autograd stashes is the quantized value. `Method.detach` takes the
hooks off again. Needs torch, which is loaded when a method is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfpsim.precision.bitpruning import BitPruning, QuantumInteger
    from sfpsim.precision.emulate import Emulation
    from sfpsim.precision.lsq import LSQ
    from sfpsim.precision.profiled import profiled_lengths
    from sfpsim.precision.quantum import QuantumFloat
    from sfpsim.precision.watching import BitChop, BitWave

_HOMES = {
    "BitChop": "sfpsim.precision.watching",
    "BitPruning": "sfpsim.precision.bitpruning",
    "BitWave": "sfpsim.precision.watching",
    "Emulation": "sfpsim.precision.emulate",
    "LSQ": "sfpsim.precision.lsq",
    "QuantumFloat": "sfpsim.precision.quantum",
    "QuantumInteger": "sfpsim.precision.bitpruning",
    "profiled_lengths": "sfpsim.precision.profiled",
}

__all__ = [
    "LSQ", "BitChop", "BitPruning", "BitWave", "Emulation", "QuantumFloat", "QuantumInteger",
    "profiled_lengths",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sfpsim.precision' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
