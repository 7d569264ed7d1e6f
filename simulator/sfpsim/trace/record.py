"""What a PyTorch module computes in one forward pass, operation by operation.

Operations are seen below autograd, so that it does not matter how the module writes them;
values are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sfpsim.errors import InputError
from sfpsim.trace.schema import Op

# ATen's name and the kind that layer tables give it.
KINDS = {
    "native_batch_norm": "bn", "_native_batch_norm_legit": "bn", "cudnn_batch_norm": "bn",
    "_batch_norm_with_update": "bn", "native_layer_norm": "layernorm", "relu": "relu",
    "relu_": "relu", "hardtanh": "relu6", "hardtanh_": "relu6", "gelu": "gelu", "silu": "silu",
    "silu_": "silu", "hardswish": "hardswish", "hardswish_": "hardswish",
    "hardsigmoid": "hardsigmoid", "hardsigmoid_": "hardsigmoid", "sigmoid": "sigmoid",
    "tanh": "tanh", "_softmax": "softmax", "_log_softmax": "softmax", "_safe_softmax": "softmax",
    "max_pool2d_with_indices": "maxpool", "mean": "avgpool", "_adaptive_avg_pool2d": "adaptivepool",
    "avg_pool2d": "adaptivepool", "add": "add", "add_": "add", "embedding": "embedding",
    "native_dropout": "dropout",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RecordedOp:
    """One operation: `op` has a product's sizes over the whole batch.

    `layer` is the module that ran it; `source` numbers the tensor it reads first and
    `result` the one it makes; `in_shape` and `out_shape` are theirs. `parameters` counts
    weight and bias.
    """

    layer: str
    kind: str
    op: Op | None
    source: int
    result: int
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    parameters: int


def record_ops(module: Any, *example: Any) -> list[RecordedOp]:
    """Run `module` once on `example` and return its operations in order.

    Raises
    ------
    InputError
        If it runs a product that is not taken apart (a recurrent layer in one kernel).
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from sfpsim.trace.products import UNCOUNTED, forward_products

    sizes = {p.data_ptr(): p.numel() for p in module.parameters()}
    own = {*sizes, *(b.data_ptr() for b in module.buffers())}
    stack: list[str] = [""]
    out: list[RecordedOp] = []
    made: dict[Any, int] = {}

    def number(tensor: Any, new: bool = False) -> int:
        key = tensor.untyped_storage().data_ptr()
        if new or key not in made:
            made[key] = len(made) + len(out) + 1
        return made[key]

    class Watch(TorchDispatchMode):
        """Notes every operation after it ran."""

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = func.overloadpacket.__name__
            if name in UNCOUNTED:
                raise InputError(
                    f"module {stack[-1]!r}: operation {name!r} is not taken apart: supported are "
                    "convolutions, matrix products and attention"
                )
            result = func(*args, **(kwargs or {}))
            first = result[0] if isinstance(result, tuple | list) else result
            for product in forward_products(name, args, first):
                operands = [t for t in (product.a, product.b) if t is not None]
                count = sum(sizes.get(t.data_ptr(), 0) for t in operands)
                bias = [a for a in args if isinstance(a, torch.Tensor) and a.dim() == 1]
                count += sum(sizes.get(t.data_ptr(), 0) for t in bias)
                out.append(
                    RecordedOp(
                        layer=stack[-1], kind=product.op.kind, op=product.op,
                        source=number(operands[0]), result=number(first, new=True),
                        in_shape=tuple(operands[0].shape), out_shape=tuple(first.shape),
                        parameters=count if name != "bmm" else 0,
                    )
                )  # fmt: skip
            source: Any = args[1] if name == "embedding" else args[0] if args else None
            # what a module counts for itself (batches, running means) is no layer
            if name in KINDS and source.data_ptr() not in own:
                out.append(
                    RecordedOp(
                        layer=stack[-1], kind=KINDS[name], op=None, source=number(source),
                        result=number(first, new=True), in_shape=tuple(source.shape),
                        out_shape=tuple(first.shape),
                        parameters=sum(sizes.get(t.data_ptr(), 0) for t in args
                                       if isinstance(t, torch.Tensor)),
                    )
                )  # fmt: skip
            return result

    with torch.no_grad(), _named(module, stack), Watch():
        module(*example)
    return out


@contextmanager
def _named(module: Any, stack: list[str]) -> Iterator[None]:
    """Keep the name of the module that runs on top of `stack`."""
    hooks = []
    for name, inner in module.named_modules():
        hooks.append(inner.register_forward_pre_hook(lambda m, a, n=name: stack.append(n)))
        hooks.append(inner.register_forward_hook(lambda m, a, o: stack.pop() and None))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
