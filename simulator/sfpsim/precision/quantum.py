"""Quantum Mantissa and Quantum Exponent: bitlengths learned with the network.

Source: Schrödinger's FP, MLSys 2024, sections on Quantum Mantissa and Quantum Exponent.
Where the paper is silent the reading taken is named in the docstrings.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from sfpsim.errors import InputError
from sfpsim.precision import kernels
from sfpsim.precision.arithmetic import (
    FULL_EXPONENT_BITS,
    Range,
    exponent_range,
    flat_words,
    largest,
    mantissa_bits_of,
    quantized,
    smallest,
    words_of_lengths,
)
from sfpsim.precision.attach import Method
from sfpsim.trace.schema import Lengths

Gradient = Literal["exact", "analytic"]
LEAST_EXPONENT_BITS = 1
log = logging.getLogger(__name__)


class Quantize(torch.autograd.Function):
    """V -> P(R(V, e), m) with the drawn lengths; gradients for V, n_m and n_e.

    dL/dV passes where abs(V) < Vmax. dL/dn_m is the sum of dL/dV' times the difference that
    one more bit than floor(n_m) makes: the exact derivative of the expected value. dL/dn_e
    likewise, or, `analytic`, the paper's derivatives with respect to Vmax and Vmin times
    dVmax/dn = Vmax (ln 2)^2 2^(n-1) and dVmin/dn = -Vmin (ln 2)^2 2^(n-1).
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, n_m: torch.Tensor, n_e: torch.Tensor, m: int, e: int,
        gradient: Gradient,
    ) -> torch.Tensor:  # fmt: skip
        """Return the quantized values."""
        # Kept beside the graph: these are emulation, and no part of the stash.
        ctx.x, ctx.lengths, ctx.gradient = x.detach(), (float(n_m), float(n_e), m, e), gradient
        return quantized(x, m, exponent_range(e))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        """Return the gradients of V, n_m and n_e."""
        (g,), x = grads, ctx.x
        n_m, n_e, m, e = ctx.lengths
        most = mantissa_bits_of(x.dtype)
        m, limits = min(m, most), exponent_range(e)
        words, slopes = flat_words(x), flat_words(g).view(np.float32)
        g_m = g_e = None
        if ctx.needs_input_grad[1]:
            low = math.floor(n_m)
            ends = [words_of_lengths(min(n, most), limits) for n in (low, low + 1)]
            g_m = torch.tensor(kernels.difference(words, slopes, *ends), dtype=torch.float32)
        if ctx.needs_input_grad[2] and ctx.gradient == "exact":
            low = math.floor(n_e)
            ends = [words_of_lengths(m, exponent_range(n)) for n in (low, low + 1)]
            g_e = torch.tensor(kernels.difference(words, slopes, *ends), dtype=torch.float32)
        elif ctx.needs_input_grad[2]:
            g_e = analytic_exponent_gradient(g, x, m, n_e, e)
        return _inside(g, words, slopes, m, limits), g_m, g_e, None, None, None


def _inside(g: torch.Tensor, words: Any, slopes: Any, m: int, limits: Range | None) -> torch.Tensor:
    """Return the gradient of V: that of the output where abs(V) < Vmax, else 0."""
    if limits is None:
        return g
    out = np.empty_like(slopes)
    kernels.pass_inside(words, slopes, words_of_lengths(m, limits).vmax, out)
    return torch.from_numpy(out).reshape(g.shape).to(g.device, g.dtype)


def range_gradients(
    x: torch.Tensor, most: float, least: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return dR/dVmax and dR/dVmin of every value, as the paper prints them."""
    zero = torch.zeros_like(x)
    by_most = torch.where(x >= most, 1.0, torch.where(x <= -most, -1.0, zero))
    magnitude, sign = x.abs(), torch.sign(x)
    rounded_up = (magnitude >= least / 2) & (magnitude < least)
    flushed = (magnitude < least / 2) & (magnitude > 0)
    by_least = torch.where(rounded_up, sign, torch.where(flushed, -sign, zero))
    return by_most, by_least


def analytic_exponent_gradient(
    g: torch.Tensor, x: torch.Tensor, m: int, n_e: float, e: int
) -> torch.Tensor:
    """Chain the paper's derivatives to n_e; zero where the drawn length limits nothing."""
    limits = exponent_range(e)
    if limits is None:
        return torch.zeros((), dtype=torch.float32)
    most, least = largest(m, limits), smallest(m, limits)
    by_most, by_least = range_gradients(x.float(), most, least)
    slope = math.log(2) ** 2 * 2 ** (n_e - 1)
    return (g.float() * (by_most * most - by_least * least) * slope).sum()


def _rounded_up(
    lengths: Mapping[str, tuple[float, float]], model: nn.Module
) -> dict[str, tuple[int, int]]:
    layers = {name for name, _ in model.named_modules()}
    out = {key: (math.ceil(m), math.ceil(e)) for key, (m, e) in lengths.items()}
    for key, (m, e) in out.items():
        if key.rpartition(".")[0].partition(":")[0] not in layers:
            raise InputError(f"lengths of {key}: {type(model).__name__} has no such layer")
        if m < 0 or not LEAST_EXPONENT_BITS <= e <= FULL_EXPONENT_BITS:
            raise InputError(
                f"lengths of {key}: {m} and {e}; allowed are mantissas of 0 bits or more and "
                f"exponents of {LEAST_EXPONENT_BITS} to {FULL_EXPONENT_BITS}"
            )
    return out


@dataclass
class TensorLengths:
    """The learned lengths of one tensor and the ones drawn for the batch."""

    mantissa: nn.Parameter
    exponent: nn.Parameter
    most: int
    drawn: tuple[int, int] | None = None


class QuantumFloat(Method):
    """Quantum Mantissa and Quantum Exponent, together or alone.

    Parameters
    ----------
    model
        What is trained.
    optimizer
        The lengths become a parameter group of it: same learning rate, no weight decay (a
        reading; the paper does not say).
    mantissa, exponent
        Which of the two is learned; the other keeps its full length.
    gamma
        Strength of the footprint term, 0.1 in the paper.
    learn_epochs
        Lengths are learned in the first so many epochs, then rounded up and frozen, and
        learned again after every change of the learning rate. None: always.
    relearn_epochs
        For so many epochs they are learned again; None: as many; 0: frozen for good, which
        the paper found a little less accurate.
    gradient
        ``exact`` (the default) or ``analytic``; see `Quantize`.
    initial_mantissa_bits
        Where mantissas begin; None: at the length of their type.
    length_lr
        Another learning rate for the lengths.
    seed
        Of the draws.
    lengths
        Mantissa and exponent bits by key, to train with from the start and to learn no more:
        what another training found, as advice on datatypes.

    Raises
    ------
    InputError
        As `Method`; or if nothing is to be learned or a number is out of range.
    """

    name = "quantum"

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, mantissa: bool = True,
        exponent: bool = True, gamma: float = 0.1, learn_epochs: int | None = 5,
        relearn_epochs: int | None = None, gradient: Gradient = "exact",
        initial_mantissa_bits: int | None = None, length_lr: float | None = None, seed: int = 0,
        lengths: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:  # fmt: skip
        if not (mantissa or exponent):
            raise InputError("quantum: neither mantissa nor exponent is to be learned")
        if gradient not in ("exact", "analytic"):
            raise InputError(f"gradient={gradient!r}: allowed are exact, analytic")
        if gamma < 0 or (learn_epochs is not None and learn_epochs < 1):
            raise InputError(f"gamma={gamma}, learn_epochs={learn_epochs}: must be positive")
        if relearn_epochs is not None and relearn_epochs < 0:
            raise InputError(f"relearn_epochs={relearn_epochs}: must be 0 or more")
        self.relearn_epochs = learn_epochs if relearn_epochs is None else relearn_epochs
        self.learns = mantissa, exponent
        self.gamma, self.gradient, self.learn_epochs = gamma, gradient, learn_epochs
        self.initial = initial_mantissa_bits
        self.chance = torch.Generator().manual_seed(seed)
        self.tensors: dict[str, TensorLengths] = {}
        self.advised = None if lengths is None else _rounded_up(lengths, model)
        self.frozen = self.advised is not None
        self.optimizer = optimizer
        self.rate, self.changed_at, self.clipped = self._rate(), 0, 0
        super().__init__(model)
        group: dict[str, Any] = {"params": [], "weight_decay": 0.0}
        if length_lr is not None:
            group["lr"] = length_lr
        self._seed_group(group)
        self._clip_hook = optimizer.register_step_post_hook(lambda *_: self._clip())

    def _rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _seed_group(self, group: dict[str, Any]) -> None:
        """Make the group with the weights' lengths; those of activations join as they show up."""
        for name, module in self.model.named_modules():
            weight = getattr(module, "_parameters", {}).get("weight")
            if weight is not None and weight.is_floating_point():
                self._known(f"{name}.weight", weight)
        group["params"] = self._learned()
        self.optimizer.add_param_group(group)
        self.group = self.optimizer.param_groups[-1]

    def _known(self, key: str, x: torch.Tensor) -> TensorLengths:
        if key not in self.tensors:
            most = mantissa_bits_of(x.dtype)
            begin = most if self.initial is None or not self.learns[0] else min(self.initial, most)
            m, e = (self.advised or {}).get(key, (begin, FULL_EXPONENT_BITS))
            lengths = TensorLengths(
                mantissa=nn.Parameter(torch.tensor(float(min(m, most))), self._open(0)),
                exponent=nn.Parameter(torch.tensor(float(e)), self._open(1)),
                most=most,
            )
            self.tensors[key] = lengths
            if hasattr(self, "group"):
                self.group["params"] += self._learned(lengths)
        return self.tensors[key]

    def _open(self, which: int) -> bool:
        return self.learns[which] and not self.frozen

    def _learned(self, *chosen: TensorLengths) -> list[nn.Parameter]:
        pairs = [(t.mantissa, t.exponent) for t in (chosen or self.tensors.values())]
        return [p for pair in pairs for p, learns in zip(pair, self.learns, strict=True) if learns]

    def quantize(self, x: torch.Tensor, key: str) -> torch.Tensor:
        """Quantize at the lengths drawn for this batch; rounded up outside of training."""
        t = self._known(key, x)
        if t.drawn is None:
            t.drawn = self._draw(t.mantissa), self._draw(t.exponent)
        m, e = t.drawn
        return Quantize.apply(x, t.mantissa, t.exponent, m, e, self.gradient)

    def _draw(self, length: nn.Parameter) -> int:
        value = float(length.detach())
        if not self.model.training:
            return math.ceil(value)
        low = math.floor(value)
        return low + int(float(torch.rand((), generator=self.chance)) < value - low)

    def new_batch(self) -> None:
        """Draw anew for every tensor."""
        for t in self.tensors.values():
            t.drawn = None

    def penalty(self) -> torch.Tensor:
        """Return gamma * (sum lambda n_m + sum lambda n_e), lambda a tensor's share of elements."""
        total = sum(self.elements.get(key, 0) for key in self.tensors) or 1
        out = torch.zeros(())
        for key, t in self.tensors.items():
            share = self.elements.get(key, 0) / total
            for p, learns in zip((t.mantissa, t.exponent), self.learns, strict=True):
                if learns:
                    out = out + share * p
        return self.gamma * out

    def _loss(self, loss: torch.Tensor, value: float) -> torch.Tensor:
        return loss if self.frozen else loss + self.penalty()

    def epoch(self, number: int) -> None:
        """Say that epoch `number` begins: follows the schedule of learning and freezing."""
        if self.advised is not None:
            return
        if self._rate() != self.rate:
            self.rate, self.changed_at = self._rate(), number
        most = self.relearn_epochs if self.changed_at else self.learn_epochs
        learning = most is None or number - self.changed_at < most
        if learning:
            self._set_frozen(False)
        else:
            self.freeze()

    def freeze(self) -> None:
        """Round the lengths up and learn them no more."""
        for t in self.tensors.values():
            for p in (t.mantissa, t.exponent):
                p.data.ceil_()
        self._set_frozen(True)

    def _set_frozen(self, frozen: bool) -> None:
        self.frozen = frozen
        for t in self.tensors.values():
            t.mantissa.requires_grad_(self._open(0))
            t.exponent.requires_grad_(self._open(1))
            if frozen:
                t.mantissa.grad = t.exponent.grad = None

    def _clip(self) -> None:
        """Bring lengths that left their range back into it, as the paper clips at 0."""
        for key, t in self.tensors.items():
            for p, least, most in (
                (t.mantissa, 0, t.most),
                (t.exponent, LEAST_EXPONENT_BITS, FULL_EXPONENT_BITS),
            ):
                value = float(p.detach())
                if not math.isfinite(value):
                    raise InputError(f"quantum: the length of {key} is {value}")
                if not least <= value <= most:
                    self.clipped += 1
                    log.debug("length of %s: %.3f clipped to %d .. %d", key, value, least, most)
                    p.data.clamp_(least, most)

    def lengths(self, key: str) -> Lengths | None:
        """Return the lengths of `key`, rounded up, and the learned reals beside them."""
        t = self.tensors.get(key)
        if t is None:
            return None
        m, e = float(t.mantissa.detach()), float(t.exponent.detach())
        return Lengths(
            mantissa_bits=math.ceil(m), exponent_bits=math.ceil(e), mantissa_bits_real=m,
            exponent_bits_real=e,
        )  # fmt: skip

    def mean_bits(self) -> dict[str, float]:
        """Return mean mantissa and exponent bits a value, and bits without the sign."""
        total = sum(self.elements.get(key, 0) for key in self.tensors) or 1
        share = {key: self.elements.get(key, 0) / total for key in self.tensors}
        m = sum(share[key] * float(t.mantissa.detach()) for key, t in self.tensors.items())
        e = sum(share[key] * float(t.exponent.detach()) for key, t in self.tensors.items())
        return {"mantissa": m, "exponent": e, "total": m + e}

    def _state(self) -> dict[str, Any]:
        return {
            "lengths": {
                key: (float(t.mantissa.detach()), float(t.exponent.detach()), t.most)
                for key, t in self.tensors.items()
            },
            "frozen": self.frozen,
            "rate": self.rate,
            "changed_at": self.changed_at,
            "chance": self.chance.get_state(),
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        for key, (m, e, most) in state["lengths"].items():
            dtype = {23: torch.float32, 7: torch.bfloat16, 10: torch.float16}[most]
            t = self._known(key, torch.zeros(0, dtype=dtype))
            t.mantissa.data.fill_(m)
            t.exponent.data.fill_(e)
        self.rate, self.changed_at = state["rate"], state["changed_at"]
        self.chance.set_state(state["chance"])
        self._set_frozen(state["frozen"])

    def detach(self) -> None:
        """Take off the hooks and the lengths' group of the optimizer."""
        super().detach()
        self._clip_hook.remove()
        groups = self.optimizer.param_groups
        groups[:] = [group for group in groups if group is not self.group]
