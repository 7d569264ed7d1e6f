"""What all methods share: hooks that hand layers their inputs and weights quantized."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sfpsim.errors import InputError
from sfpsim.trace.observe import METHOD
from sfpsim.trace.schema import Lengths

LAYERS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.Linear, nn.Embedding, nn.MultiheadAttention, nn.BatchNorm1d, nn.BatchNorm2d,
    nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d,
    nn.InstanceNorm3d, nn.RMSNorm, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d,
    nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    # functions that save their input; ReLU saves its output, which the next layer quantizes
    nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LeakyReLU, nn.PReLU,
    nn.ELU, nn.Softplus,
)  # fmt: skip
WEIGHTS = ("weight", "in_proj_weight")
PRODUCTS = {
    torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm,
    torch.nn.functional.scaled_dot_product_attention,
}  # fmt: skip
WHOLE = Lengths(exponent_bits=8)
"""A float as it is: a mantissa length of None keeps the whole field."""


class Method(abc.ABC):
    """A way of choosing bitlengths, attached to a model.

    Weights and inputs of convolutions, linear, embedding, attention, normalisation and
    pooling layers, inputs of activation functions that save them (all but ReLU), and both
    operands of products of activations, go through `quantize`; autograd then stashes what
    came out. Keys are ``LAYER.weight``, ``LAYER.input`` and
    ``LAYER:PRODUCT.first`` / ``.second``.

    Parameters
    ----------
    model
        Any ``torch.nn.Module``; it is not rewritten.

    Raises
    ------
    InputError
        If a method is attached already, or the model has no layer that is known.
    """

    name = "method"
    untouched: Lengths | None = WHOLE
    """What a capture says of a tensor that the method does not quantize."""

    def __init__(self, model: nn.Module) -> None:
        if hasattr(model, METHOD):
            raise InputError(
                f"{type(model).__name__}: a method is attached already: detach it first"
            )
        found = [(name, m) for name, m in model.named_modules() if isinstance(m, LAYERS)]
        if not found:
            raise InputError(
                f"{type(model).__name__}: no layer to quantize: known are "
                + ", ".join(kind.__name__ for kind in LAYERS)
            )
        self.model = model
        self.elements: dict[str, int] = {}
        self.operations: dict[str, int] = {}
        self.witness: Callable[[torch.Tensor, torch.Tensor, Lengths | None], None] | None = None
        """Told of every tensor and how it is stored, while a capture listens."""
        self._replaced: dict[nn.Module, list[dict[str, Any]]] = {}
        self._stack: list[str] = []
        self._mode: list[_Products] = []
        self._handles: list[Any] = []
        object.__setattr__(model, METHOD, self)
        self._hook(model, found)

    def _hook(self, model: nn.Module, found: list[tuple[str, nn.Module]]) -> None:
        begin = model.register_forward_pre_hook(self._begin, prepend=True)
        end = model.register_forward_hook(self._end, always_call=True)
        self._handles += [begin, end]
        for name, module in found:
            self._handles += [
                module.register_forward_pre_hook(self._before(name), with_kwargs=True),
                module.register_forward_hook(self._after(name), always_call=True),
            ]
        for name, module in model.named_modules():
            self._handles += [
                module.register_forward_pre_hook(self._enter(name), prepend=True),
                module.register_forward_hook(self._leave, always_call=True),
            ]

    def detach(self) -> None:
        """Take every hook off; the model is as it was, with the weights it learned."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if getattr(self.model, METHOD, None) is self:
            object.__delattr__(self.model, METHOD)

    @abc.abstractmethod
    def quantize(self, x: torch.Tensor, key: str) -> torch.Tensor:
        """Return `x` as the method stores it; differentiable."""

    @abc.abstractmethod
    def lengths(self, key: str) -> Lengths | None:
        """Return the bitlengths in force for `key`, None where it has none."""

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        """Take note of the task's loss of a batch and return what is to be minimised.

        Raises
        ------
        InputError
            If the loss is NaN or infinite.
        """
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(f"{self.name}: the loss is {value}: the training has diverged")
        return self._loss(loss, value)

    def _loss(self, loss: torch.Tensor, value: float) -> torch.Tensor:
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs beside model and optimizer."""
        return {"method": self.name, "elements": dict(self.elements), **self._state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; load it before the optimizer's.

        Raises
        ------
        InputError
            If it is the state of another method.
        """
        if state.get("method") != self.name:
            raise InputError(
                f"a checkpoint of {state.get('method')!r} is given, {self.name!r} is attached"
            )
        self.elements = dict(state["elements"])
        self._load_state(state)

    def _state(self) -> dict[str, Any]:
        """Return what the method itself has to remember."""
        return {}

    def _load_state(self, state: dict[str, Any]) -> None:  # noqa: B027 - nothing to remember
        """Take over what `_state` returned."""

    def new_batch(self) -> None:  # noqa: B027 - most methods have nothing to do here
        """Called as the model's forward pass begins."""

    # Hooks ----------------------------------------------------------------------------

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        self.new_batch()
        mode = _Products(self)
        mode.__enter__()
        self._mode.append(mode)

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._mode:
            self._mode.pop().__exit__(None, None, None)

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            self._stack.append(name)

        return hook

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._stack:
            self._stack.pop()

    def _before(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: Any, named: Any) -> Any:
            held: dict[str, Any] = {}
            for key in WEIGHTS:
                weight = module._parameters.get(key)
                if weight is not None and weight.is_floating_point():
                    held[key] = weight
                    module._parameters[key] = self._quantize(weight, f"{name}.weight")
            self._replaced.setdefault(module, []).append(held)
            if isinstance(module, nn.Embedding):
                return None
            return self._quantized_inputs(inputs, f"{name}.input"), named

        return hook

    def _quantized_inputs(self, inputs: tuple[Any, ...], key: str) -> tuple[Any, ...]:
        seen: dict[int, Any] = {}
        out = []
        for x in inputs:
            if torch.is_tensor(x) and x.is_floating_point():
                if id(x) not in seen:
                    seen[id(x)] = self._quantize(x, key)
                x = seen[id(x)]
            out.append(x)
        return tuple(out)

    def _after(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._replaced.get(module):
                module._parameters.update(self._replaced[module].pop())
            if torch.is_tensor(output):
                self._count_operations(module, name, output)

        return hook

    def _count_operations(self, module: nn.Module, name: str, output: torch.Tensor) -> None:
        weight = module._parameters.get("weight")
        if weight is None or isinstance(module, nn.Embedding) or weight.dim() < 2:
            return
        macs = output.numel() * weight[0].numel()
        self.operations[f"{name}.weight"] = self.operations[f"{name}.input"] = macs

    def _quantize(self, x: torch.Tensor, key: str) -> torch.Tensor:
        self.elements[key] = x.numel()
        out = self.quantize(x, key)
        if self.witness is not None:
            self.witness(x, out, self.lengths(key))
        return out


class _Products(TorchFunctionMode):
    """Quantizes both operands of products of activations."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.parameters = {id(p) for p in method.model.parameters()}
        self.counts: dict[str, int] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if function in PRODUCTS and len(args) > 1:
            layer = self.method._stack[-1] if self.method._stack else ""
            key = f"{layer}:{function.__name__.strip('_')}"
            self.counts[key] = self.counts.get(key, 0) + 1
            key += f"{self.counts[key]}" if self.counts[key] > 1 else ""
            args = tuple(self._operand(x, key, i) for i, x in enumerate(args))
        return function(*args, **named)

    def _operand(self, x: Any, key: str, position: int) -> Any:
        operand = torch.is_tensor(x) and x.is_floating_point() and id(x) not in self.parameters
        if not operand or position > 2:
            return x
        return self.method._quantize(x, f"{key}.{('first', 'second', 'third')[position]}")
