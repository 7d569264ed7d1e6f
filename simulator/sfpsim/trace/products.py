"""Which operations of PyTorch are matrix products, with their sizes and operands.

They are known by their names below autograd, where every way to write a product (a layer,
``matmul``, ``einsum``, attention, a function of the user's) has come down to a few.
Recurrent layers that run as one fused kernel and a few rare ones are not taken apart:
`UNCOUNTED` names them, and the capture warns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from sfpsim.trace.schema import Op

FUSED_ATTENTION = "_scaled_dot_product_"
UNCOUNTED = frozenset(
    {"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "_thnn_fused_lstm_cell", "_trilinear",
     "mv", "addmv", "dot", "addbmm", "_cdist_forward", "_grouped_mm",
     "_efficient_attention_forward", "_flash_attention_forward"}
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Product:
    """An op and its operands (torch tensors; None for one that stays on chip)."""

    op: Op
    a: Any
    b: Any


def forward_products(name: str, args: tuple[Any, ...], out: Any) -> list[Product]:
    """Return the products that the ATen operation `name` computed; mostly none or one.

    Those of sparse matrices are not among them.
    """
    if any(getattr(t, "layout", torch.strided) != torch.strided for t in args[:3]):
        return []
    if name in ("mm", "bmm", "_scaled_mm"):
        return [_matmul(args[0], args[1])]
    if name in ("addmm", "baddbmm", "_addmm_activation"):
        return [_matmul(args[1], args[2])]
    if name == "convolution":
        return [_convolution(*args, out=out)]
    if name.startswith(FUSED_ATTENTION) and not name.endswith("backward"):
        return _attention(*args[:3])
    return []


def gradient_product(name: str, args: tuple[Any, ...]) -> list[tuple[Any, Any, bool, bool]]:
    """Return what the ATen operation `name` may be in the backward pass.

    Returns
    -------
    list
        Tuples (operands, output gradient, first wanted, second wanted): for a convolution
        and for attention exact; for a matrix product the two readings, of which the one
        whose operand a forward product had is true.
    """
    if any(getattr(t, "layout", torch.strided) != torch.strided for t in args[:3]):
        return []
    if name == "convolution_backward":
        mask = args[-1]
        return [((args[1], args[2]), args[0], mask[0], mask[1])]
    if name.startswith(FUSED_ATTENTION) and name.endswith("backward"):
        return [((args[1], args[2]), None, True, True), ((None, args[3]), args[0], True, True)]
    if name in ("mm", "bmm"):
        return [((args[0],), args[1], False, False), ((args[1],), args[0], False, False)]
    return []


def _matmul(a: Any, b: Any) -> Product:
    groups = a.shape[0] if a.dim() == 3 else 1
    op = Op(
        kind="matmul",
        m=a.shape[-2],
        n=b.shape[-1],
        k=a.shape[-1],
        groups=groups,
        input_shape=tuple(a.shape),
        output_shape=(*a.shape[:-1], b.shape[-1]),
    )
    return Product(op=op, a=a, b=b)


def _convolution(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, *, out: Any,
) -> Product:  # fmt: skip
    kernel = tuple(weight.shape[2:])
    positions, inner = (x, weight.shape[0]) if transposed else (out, weight.shape[1] * groups)
    outer = weight.shape[1] if transposed else weight.shape[0] // groups
    taps = math.prod(kernel)
    op = Op(
        kind="conv_transpose" if transposed else "conv",
        m=x.shape[0] * math.prod(positions.shape[2:]),
        n=outer * taps if transposed else outer,
        k=inner // groups * (1 if transposed else taps),
        groups=groups,
        input_shape=tuple(x.shape),
        output_shape=tuple(out.shape),
        kernel=kernel,
        stride=tuple(stride),
        padding=tuple(padding),
    )
    return Product(op=op, a=x, b=weight)


def _attention(q: Any, k: Any, v: Any) -> list[Product]:
    """Return scores and context of a fused attention; the scores never leave the chip."""
    groups, rows, keys = math.prod(q.shape[:-2]), q.shape[-2], k.shape[-2]
    scores = Op(
        kind="attention_scores", m=rows, n=keys, k=q.shape[-1], groups=groups,
        input_shape=tuple(q.shape), output_shape=(*q.shape[:-1], keys),
    )  # fmt: skip
    context = Op(
        kind="attention_context", m=rows, n=v.shape[-1], k=keys, groups=groups,
        input_shape=(*q.shape[:-1], keys), output_shape=(*q.shape[:-1], v.shape[-1]),
    )  # fmt: skip
    return [Product(op=scores, a=q, b=k), Product(op=context, a=None, b=v)]
