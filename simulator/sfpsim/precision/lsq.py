"""LSQ: integers of a fixed length whose step is learned. What learned lengths compare with.

Source: Esser et al., Learned Step Size Quantization, ICLR 2020 (arXiv 1902.08153).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sfpsim.errors import InputError
from sfpsim.precision.attach import Method
from sfpsim.trace.schema import Lengths

LEAST_BITS, MOST_BITS = 2, 8


class StepQuantize(torch.autograd.Function):
    """round(clip(x / s, -Qn, Qp)) s, with the paper's gradients of x and s.

    dq/dx is 1 within the clip and 0 outside; dq/ds is round(x / s) - x / s within, -Qn or Qp
    outside; the gradient of s is scaled by 1 / sqrt(N Qp), N the values of the tensor.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, step: torch.Tensor, least: int, most: int
    ) -> torch.Tensor:
        """Quantize `x` to whole steps from `least` to `most`."""
        scaled = x.detach().float() / step.detach()
        ctx.inside = (scaled > least) & (scaled < most)
        whole = torch.round(scaled.clamp(least, most))
        ctx.slope = torch.where(ctx.inside, whole - scaled, whole)
        ctx.scale = 1 / math.sqrt(max(1, x.numel()) * most)
        return (whole * step.detach()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        """Return the gradients of x and of the step."""
        (g,) = grads
        by_step = (g.float() * ctx.slope).sum() * ctx.scale if ctx.needs_input_grad[1] else None
        return g * ctx.inside, by_step, None, None


class LSQ(Method):
    """Weights and activations as integers of `bits` bits, one learned step a tensor.

    Activations whose first batch has no negative value are unsigned, all else is signed. A
    step begins at 2 mean(abs(x)) / sqrt(Qp).

    Parameters
    ----------
    model
        What is trained.
    optimizer
        The steps become a parameter group of it, without weight decay (a reading).
    bits
        Length of every tensor, 2 to 8.
    step_lr
        Another learning rate for the steps.

    Raises
    ------
    InputError
        As `Method`; or if `bits` is out of range.
    """

    name = "lsq"
    untouched = None

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, bits: int = 4,
        step_lr: float | None = None,
    ) -> None:  # fmt: skip
        if not LEAST_BITS <= bits <= MOST_BITS:
            raise InputError(f"bits={bits}: allowed are {LEAST_BITS} to {MOST_BITS}")
        self.bits, self.optimizer = bits, optimizer
        self.steps: dict[str, nn.Parameter] = {}
        self.signed: dict[str, bool] = {}
        super().__init__(model)
        group: dict[str, Any] = {"params": [], "weight_decay": 0.0}
        if step_lr is not None:
            group["lr"] = step_lr
        optimizer.add_param_group(group)
        self.group = optimizer.param_groups[-1]
        self._clip_hook = optimizer.register_step_post_hook(lambda *_: self._clip())

    def limits(self, signed: bool) -> tuple[int, int]:
        """Return the least and the greatest whole number, -Qn and Qp."""
        half = 1 << (self.bits - 1)
        return (-half, half - 1) if signed else (0, 2 * half - 1)

    def _known(self, key: str, x: torch.Tensor) -> nn.Parameter:
        if key not in self.steps:
            self.signed[key] = bool(x.detach().min() < 0)
            most = self.limits(self.signed[key])[1]
            begin = 2 * float(x.detach().float().abs().mean()) / math.sqrt(most)
            self._add(key, begin or 1.0)
        return self.steps[key]

    def _add(self, key: str, step: float) -> None:
        self.steps[key] = nn.Parameter(torch.tensor(step))
        self.group["params"].append(self.steps[key])

    def quantize(self, x: torch.Tensor, key: str) -> torch.Tensor:
        """Quantize to whole steps; empty tensors stay."""
        if not x.numel():
            return x
        step = self._known(key, x)
        return StepQuantize.apply(x, step, *self.limits(self.signed[key]))

    def _clip(self) -> None:
        """A step stays above 0: one that crossed it would turn the values round."""
        for key, p in self.steps.items():
            if not bool(torch.isfinite(p)):
                raise InputError(f"lsq: the step of {key} is not finite")
            p.data.clamp_(min=1e-8)

    def lengths(self, key: str) -> Lengths | None:
        """Return None: these are integers, which no float container spells."""
        return None

    def mean_bits(self) -> dict[str, float]:
        """Return the length, the same by every measure."""
        return dict.fromkeys(("bits", "memory", "operations"), float(self.bits))

    def _state(self) -> dict[str, Any]:
        steps = {key: float(p.detach()) for key, p in self.steps.items()}
        return {"bits": self.bits, "steps": steps, "signed": dict(self.signed)}

    def _load_state(self, state: dict[str, Any]) -> None:
        if state["bits"] != self.bits:
            raise InputError(f"a checkpoint of {state['bits']} bits is given, not of {self.bits}")
        self.signed = dict(state["signed"])
        for key, step in state["steps"].items():
            self._add(key, step)

    def detach(self) -> None:
        """Take off the hooks and the steps' group of the optimizer."""
        super().detach()
        self._clip_hook.remove()
        groups = self.optimizer.param_groups
        groups[:] = [group for group in groups if group is not self.group]
