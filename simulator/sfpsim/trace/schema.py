"""What a trace says of itself and of each tensor: the strict structs behind the files.

`manifest.json` holds one `Manifest`, `index.jsonl` one `TensorRecord` a line and
`ops.jsonl` one `OpRecord` a line. docs/trace-format.md describes the files.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

SCHEMA_VERSION = 1

Role = Literal["weight", "activation", "gradient", "optimizer", "other", "unknown"]
Use = Literal[
    "stash", "operand", "buffer", "weight", "bias", "weight_copy", "weight_gradient",
    "output_gradient", "optimizer_state", "array",
]  # fmt: skip
Pass = Literal["forward", "input_gradient", "weight_gradient", "update", "none"]


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen keyword-only record; unknown keys are errors."""


class Op(Struct, frozen=True, kw_only=True):
    """The matrix product (or other work) of a layer, with the shapes that give its MACs.

    `m`, `n`, `k` are the GEMM sizes of the whole batch: the layer computes `groups`
    products of (m x k) by (k x n); ``macs = groups * m * n * k``. For a convolution m is
    N*P*Q, n output channels a group, k input channels a group times R*S. Ops without a
    product have zeros and the name of their function as kind (``batch_norm``, ``relu``,
    ``max_pool2d``, ``softmax``, ``embedding``, ``add``, ...).
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


class OpRecord(Struct, frozen=True, kw_only=True):
    """One operation of a captured step that multiplies, or that saves for the backward pass.

    Attributes
    ----------
    name
        Unique in its step: that of the layer whose weight it multiplies by, else
        ``layer:kind``; a second one of the same name gets ``:2``, work done again in the
        backward pass (checkpointing) ``:recompute``.
    step, order
        Training step, and position in the step's execution order.
    layer
        Dotted name of the module that ran it; "" outside every submodule.
    op
        Its kind and shapes.
    reads
        Of a product: the names of its first and second operand; "" for one that stays on
        chip (the scores of a fused attention) or was not captured.
    saves
        Names of the other tensors it saved for the backward pass.
    gradient
        Name of the gradient of its output, as its gradient products read it; "" for none.
    gradients
        Whether the products for the gradient of the first and the second operand ran.
    """

    name: str
    step: int
    order: int
    layer: str = ""
    op: Op
    reads: tuple[str, ...] = ()
    saves: tuple[str, ...] = ()
    gradient: str = ""
    gradients: tuple[bool, bool] = (False, False)


class TensorRecord(Struct, frozen=True, kw_only=True):
    """One captured tensor.

    Attributes
    ----------
    name
        Unique in the trace.
    step, epoch
        Training step (0-based count of the steps given to the capture) and epoch.
    order
        Position in the step's execution order at which the tensor was made: 0 for what
        was there before the forward pass, the layer's first run for weights.
    layer
        Dotted module name of the layer that first saved (stash, operand), owns (weight,
        bias, their gradients and optimizer state) or produced (output gradient) the
        tensor; "" at top level.
    users
        Every layer that saved or multiplied the tensor.
    producer
        The layer in which the tensor was made, where known; None for network inputs.
    parameter
        Name of the parameter that it is, belongs to or is a copy of; "" for none.
    op
        The work of `layer`: for a stash that of the operation that saved it first.
    role
        weight (parameters and their copies), activation, gradient, optimizer (its state),
        other (integers, masks, statistics, buffers), unknown (imported files).
    use
        How it was seen: saved for the backward pass (stash), read by a product but not
        saved (operand), a module's buffer, a parameter (weight, bias) or its copy in
        another type or quantized (weight_copy), the gradient of one (weight_gradient) or
        of a product's output (output_gradient), or an array of an imported file.
    pass_
        The pass in which it is written to memory; ``pass`` in the file.
    dtype
        ml_dtypes / numpy name, e.g. ``float32``, ``bfloat16``, ``int64``, ``bool``.
    shape
        Full shape; a dimension along which all values are the same memory counts as 1.
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
    parameter: str = ""
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
