"""BitPruning and Quantum Integer: integer bitlengths learned with the network.

Sources: BitPruning, arXiv 2002.03090, interpolates between two lengths, for inference;
Quantum Integer (Schrödinger's FP, MLSys 2024) draws one of them, as Quantum Mantissa does.
Where their text was not available the readings are: uniform min-max quantizer, lengths from
8 bits, clipped at 1, no weight decay on them.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from sfpsim.errors import InputError, one_of
from sfpsim.precision import kernels
from sfpsim.precision.attach import Method
from sfpsim.trace.schema import Lengths

Grain = Literal["network", "layer", "channel", "group"]
GRAINS: tuple[Grain, ...] = ("network", "layer", "channel", "group")
Weighting = Literal["bits", "memory", "operations"]
LEAST_BITS, MOST_BITS = 1, 16


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x.detach().to("cpu", torch.float32).contiguous().reshape(-1)


def _interpolated(
    x: torch.Tensor, first: int, second: int, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Q(x, first) + share (Q(x, second) - Q(x, first)), and that difference.

    Q(x, b) rounds `x`, flat float32, to the nearest of 2^b values from its least to its
    greatest, equally far apart; where these are the same, x stays.
    """
    least, most = (float(end) for end in torch.aminmax(x))
    if not least < most:
        return x.clone(), torch.zeros_like(x)
    width = np.float32(most) - np.float32(least)
    steps = [np.float32(width / np.float32(2**bits - 1)) for bits in (first, second)]
    out, gap = torch.empty_like(x), torch.empty_like(x)
    kernels.interpolate(
        x.numpy(), np.float32(least), *steps, np.float32(share), out.numpy(), gap.numpy()
    )
    return out, gap


class Interpolate(torch.autograd.Function):
    """(1 - a) Q(x, b) + a Q(x, b + 1) with n = b + a; straight through for x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, n: torch.Tensor, groups: int) -> torch.Tensor:
        """Quantize `groups` equal parts of `x` along its first dimension at lengths `n`."""
        parts = _flat(x).chunk(groups)
        lengths = n.detach().tolist() * (groups // n.numel())
        found = []
        for part, length in zip(parts, lengths, strict=True):
            low = math.floor(length)
            found.append(_interpolated(part, low, low + 1, length - low))
        ctx.gaps, ctx.groups = [gap for _, gap in found], n.numel()
        return torch.cat([out for out, _ in found]).reshape(x.shape).to(x.device, x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        """Return the gradients of x and n."""
        (g,) = grads
        if not ctx.needs_input_grad[1]:
            return g, None, None
        parts = _flat(g).chunk(len(ctx.gaps))
        changes = [_change(part, gap) for part, gap in zip(parts, ctx.gaps, strict=True)]
        return g, torch.tensor(changes if ctx.groups > 1 else [math.fsum(changes)]), None


def _change(g: torch.Tensor, gap: torch.Tensor) -> float:
    return float(kernels.dot(g.numpy(), gap.numpy()))


class Draw(torch.autograd.Function):
    """Q(x, b) or Q(x, b + 1), as drawn; the gradient of the length is that of the mean."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, n: torch.Tensor, drawn: int) -> torch.Tensor:
        """Quantize `x` at `drawn` bits."""
        low = math.floor(float(n.detach()))
        ctx.sign, other = (1, low + 1) if drawn == low else (-1, low)
        out, ctx.gap = _interpolated(_flat(x), drawn, other, 0.0)
        return out.reshape(x.shape).to(x.device, x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        """Return the gradients of x and n."""
        (g,) = grads
        if not ctx.needs_input_grad[1]:
            return g, None, None
        return g, torch.tensor([ctx.sign * _change(_flat(g), ctx.gap)]), None


class BitPruning(Method):
    """Learns integer lengths of weights and activations together with the network.

    Parameters
    ----------
    model
        What is trained.
    optimizer
        The lengths become a parameter group of it, without weight decay.
    grain
        One length for the network, for each tensor (``layer``), for each output channel of
        weights (``channel``), or for each `group_channels` of them (``group``; where they
        do not divide the channels, the next smaller number that does). Activations have one
        a tensor in the last two.
    gamma
        Strength of the regularizer.
    weighting
        What it counts: mean ``bits``, ``memory`` (by elements) or ``operations`` (by MACs).
    initial_bits
        Where lengths begin.
    learn
        False fixes every tensor at `initial_bits`: the baseline of fixed lengths.
    length_lr
        Another learning rate for the lengths.
    group_channels
        Output channels of a group, for grain ``group``.
    bits
        Lengths to begin with of single tensors, by key, in place of `initial_bits`.

    Raises
    ------
    InputError
        As `Method`; or if a parameter is out of range.
    """

    name = "bitpruning"
    untouched = None

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, grain: Grain = "layer",
        gamma: float = 1.0, weighting: Weighting = "bits", initial_bits: int = 8,
        learn: bool = True, length_lr: float | None = None, group_channels: int = 8,
        bits: dict[str, int] | None = None,
    ) -> None:  # fmt: skip
        one_of("grain", grain, GRAINS)
        if group_channels < 1:
            raise InputError(f"group_channels={group_channels}: must be at least 1")
        wrong = {k: n for k, n in (bits or {}).items() if not LEAST_BITS <= n <= MOST_BITS}
        if wrong:
            raise InputError(f"bits={wrong}: lengths are from {LEAST_BITS} to {MOST_BITS}")
        if weighting not in ("bits", "memory", "operations"):
            raise InputError(f"weighting={weighting!r}: allowed are bits, memory, operations")
        if not LEAST_BITS <= initial_bits <= MOST_BITS or gamma < 0:
            raise InputError(
                f"initial_bits={initial_bits}, gamma={gamma}: allowed are {LEAST_BITS} to "
                f"{MOST_BITS}, and 0 or more"
            )
        self.grain, self.gamma, self.weighting = grain, gamma, weighting
        self.initial_bits, self.learn = initial_bits, learn
        self.group_channels, self.given = group_channels, dict(bits or {})
        self.bits: dict[str, nn.Parameter] = {}
        self.frozen = not learn
        self.optimizer, self.clipped = optimizer, 0
        super().__init__(model)
        group: dict[str, Any] = {"params": [], "weight_decay": 0.0}
        if length_lr is not None:
            group["lr"] = length_lr
        for name, module in model.named_modules():
            weight = module._parameters.get("weight")
            if weight is not None and weight.is_floating_point():
                self._known(f"{name}.weight", self._groups(weight, f"{name}.weight"))
        group["params"] = list(dict.fromkeys(self.bits.values())) if learn else []
        optimizer.add_param_group(group)
        self.group = optimizer.param_groups[-1]
        self._clip_hook = optimizer.register_step_post_hook(lambda *_: self._clip())

    def _groups(self, x: torch.Tensor, key: str) -> int:
        if self.grain not in ("channel", "group") or not key.endswith(".weight") or x.dim() < 2:
            return 1
        channels = int(x.shape[0])
        most = 1 if self.grain == "channel" else min(self.group_channels, channels)
        return channels // next(n for n in range(most, 0, -1) if channels % n == 0)

    def _known(self, key: str, groups: int) -> nn.Parameter:
        if key not in self.bits:
            shared = next(iter(self.bits.values()), None) if self.grain == "network" else None
            begin = torch.full((groups,), float(self.given.get(key, self.initial_bits)))
            self.bits[key] = nn.Parameter(begin, not self.frozen) if shared is None else shared
            if hasattr(self, "group") and self.learn and shared is None:
                self.group["params"].append(self.bits[key])
        return self.bits[key]

    def quantize(self, x: torch.Tensor, key: str) -> torch.Tensor:
        """Quantize `x` between its own least and greatest value; empty tensors stay."""
        if not x.numel():
            return x
        groups = self._groups(x, key)
        return Interpolate.apply(x, self._known(key, groups), groups)

    def shares(self) -> dict[str, float]:
        """Return each tensor's share of what the regularizer counts; they sum to 1."""
        if self.weighting == "bits":
            counts = dict.fromkeys(self.bits, 1)
        else:
            source = self.elements if self.weighting == "memory" else self.operations
            counts = {key: source.get(key, 0) for key in self.bits}
        total = sum(counts.values()) or 1
        return {key: count / total for key, count in counts.items()}

    def _loss(self, loss: torch.Tensor, value: float) -> torch.Tensor:
        if self.frozen:
            return loss
        shares = self.shares()
        terms = [share * self.bits[key].mean() for key, share in shares.items()]
        return loss + self.gamma * torch.stack(terms).sum()

    def freeze(self) -> None:
        """Round the lengths up and learn them no more; then fine-tune."""
        self.frozen = True
        for p in self.bits.values():
            p.data.ceil_()
            p.requires_grad_(False)
            p.grad = None

    def _clip(self) -> None:
        for key, p in self.bits.items():
            if not bool(torch.isfinite(p).all()):
                raise InputError(f"bitpruning: a length of {key} is not finite")
            if float(p.detach().min()) < LEAST_BITS or float(p.detach().max()) > MOST_BITS:
                self.clipped += 1
                p.data.clamp_(LEAST_BITS, MOST_BITS)

    def lengths(self, key: str) -> Lengths | None:
        """Return None: these are integers, which no float container spells."""
        return None

    def mean_bits(self) -> dict[str, float]:
        """Return the mean length by tensors, by elements and by operations."""
        out: dict[str, float] = {}
        chosen = self.weighting
        for self.weighting in ("bits", "memory", "operations"):
            out[self.weighting] = math.fsum(
                share * float(self.bits[key].detach().mean())
                for key, share in self.shares().items()
            )
        self.weighting = chosen
        return out

    def _state(self) -> dict[str, Any]:
        bits = {key: p.detach().clone() for key, p in self.bits.items()}
        return {"bits": bits, "frozen": self.frozen, "operations": dict(self.operations)}

    def _load_state(self, state: dict[str, Any]) -> None:
        self.operations = dict(state["operations"])
        for key, kept in state["bits"].items():
            self._known(key, len(kept)).data.copy_(kept)
        self.frozen = bool(state["frozen"])
        for p in self.bits.values():
            p.requires_grad_(self.learn and not self.frozen)

    def detach(self) -> None:
        """Take off the hooks and the lengths' group of the optimizer."""
        super().detach()
        self._clip_hook.remove()
        groups = self.optimizer.param_groups
        groups[:] = [group for group in groups if group is not self.group]


class QuantumInteger(BitPruning):
    """Integer lengths learned by drawing one a tensor and batch, as Quantum Mantissa does.

    Parameters are those of `BitPruning`; a length is one a tensor (grain ``layer``) or one
    for the network. The defaults are the paper's: strength 0.1, weighted by footprint. While
    the model is not in training, lengths are rounded up.

    Parameters
    ----------
    seed
        Of the draws.
    """

    name = "quantum-integer"

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, grain: Grain = "layer",
        gamma: float = 0.1, weighting: Weighting = "memory", initial_bits: int = 8,
        length_lr: float | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        one_of("grain", grain, ("network", "layer"))
        self.chance = torch.Generator().manual_seed(seed)
        self.drawn: dict[int, int] = {}
        super().__init__(
            model, optimizer, grain=grain, gamma=gamma, weighting=weighting,
            initial_bits=initial_bits, length_lr=length_lr,
        )  # fmt: skip

    def new_batch(self) -> None:
        """Draw anew for every tensor."""
        self.drawn.clear()

    def quantize(self, x: torch.Tensor, key: str) -> torch.Tensor:
        """Quantize `x` at the length drawn for this batch; empty tensors stay."""
        if not x.numel():
            return x
        n = self._known(key, 1)
        if id(n) not in self.drawn:
            self.drawn[id(n)] = self._draw(float(n.detach()))
        return Draw.apply(x, n, self.drawn[id(n)])

    def _draw(self, value: float) -> int:
        if not self.model.training:
            return math.ceil(value)
        low = math.floor(value)
        return low + int(float(torch.rand((), generator=self.chance)) < value - low)

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"chance": self.chance.get_state()}

    def _load_state(self, state: dict[str, Any]) -> None:
        super()._load_state(state)
        self.chance.set_state(state["chance"])
