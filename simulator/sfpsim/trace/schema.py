"""What a trace says of itself and of each tensor: the strict structs behind the files.

`manifest.json` holds one `Manifest`; `index.jsonl` holds one `TensorRecord` a line.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

SCHEMA_VERSION = 1

Role = Literal["weight", "activation", "gradient", "optimizer", "other", "unknown"]
Use = Literal[
    "stash", "weight", "bias", "weight_gradient", "output_gradient", "optimizer_state", "array"
]
Pass = Literal["forward", "input_gradient", "weight_gradient", "update", "none"]


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen keyword-only record; unknown keys are errors."""


class Op(Struct, frozen=True, kw_only=True):
    """The matrix product (or other work) of a layer, with the shapes that give its MACs.

    `m`, `n`, `k` are the GEMM sizes of the whole batch: the layer computes `groups`
    products of (m x k) by (k x n); ``macs = groups * m * n * k``. For a convolution m is
    N*P*Q, n output channels a group, k input channels a group times R*S. Ops without a
    product (normalisation, activation, pooling, ...) have zeros.
    """

    kind: str
    m: int = 0
    n: int = 0
    k: int = 0
    groups: int = 1
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the forward pass, whole batch."""
        return self.groups * self.m * self.n * self.k


class Lengths(Struct, frozen=True, kw_only=True):
    """Bitlengths in force when the tensor was captured, as used and as learned."""

    mantissa_bits: int | None = None
    exponent_bits: int | None = None
    mantissa_bits_real: float | None = None
    exponent_bits_real: float | None = None


class TensorRecord(Struct, frozen=True, kw_only=True):
    """One captured tensor.

    Attributes
    ----------
    name
        Unique in the trace.
    step, epoch
        Training step (0-based count of optimizer steps) and epoch.
    order
        Position in the step's execution order (forward positions, then backward ones).
    layer
        Dotted module name of the layer that first saved (stash), owns (weight) or
        produced (output gradient) the tensor; "" at top level.
    users
        Every layer that reads the tensor (a stash saved by several layers lists them all).
    producer
        The layer whose output the tensor is, where known; None for network inputs and
        values made by functional operations.
    op
        The work of `layer`.
    role, use, pass_
        What it is, how it was seen, and the pass in which it is written to memory.
    dtype
        ml_dtypes / numpy name, e.g. ``float32``, ``bfloat16``, ``int64``, ``bool``.
    shape
        Full shape.
    memory_order
        Dimension indices from slowest- to fastest-varying in memory.
    runs
        Sampled runs as (first value, values) in memory order; one run over everything
        for a whole tensor.
    any_sign
        Whether any value of the whole tensor has its sign bit set (None if not a float).
    lengths
        Bitlengths in force, or None.
    segment, key
        The safetensors file and the key in it.
    """

    name: str
    step: int
    epoch: int = 0
    order: int = 0
    layer: str = ""
    users: tuple[str, ...] = ()
    producer: str | None = None
    op: Op | None = None
    role: Role
    use: Use
    pass_: Pass = msgspec.field(name="pass", default="none")
    dtype: str
    shape: tuple[int, ...]
    memory_order: tuple[int, ...]
    runs: tuple[tuple[int, int], ...]
    any_sign: bool | None = None
    lengths: Lengths | None = None
    segment: str = ""
    key: str = ""

    @property
    def values(self) -> int:
        """Number of values of the full tensor."""
        return math.prod(self.shape)

    @property
    def sampled_values(self) -> int:
        """Number of values that the trace holds."""
        return sum(length for _, length in self.runs)

    @property
    def is_sampled(self) -> bool:
        """Whether the trace holds less than the whole tensor."""
        return self.sampled_values < self.values


class Manifest(Struct, frozen=True, kw_only=True):
    """What a trace is: its model, framework, seed and precision method."""

    schema: int = SCHEMA_VERSION
    model: str
    framework: str
    framework_version: str
    seed: int | None = None
    precision_method: str | None = None
    optimizer: str | None = None
    batch_size: int | None = None
    licence: str | None = None
    note: str = ""
