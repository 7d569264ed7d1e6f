"""Published networks as layer tables, and what their products move.

The five CNNs were recorded from torchvision's modules at 224 x 224; ViT-B/16, BERT-base,
GPT-2 small and DLRM follow their papers' sizes. Parameters and MACs of every table are
checked against the published ones. Residual additions and MobileNetV3's
squeeze-and-excite products have no rows of their own.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from sfpsim.errors import InputError
from sfpsim.trace.schema import Op
from sfpsim.workload.reuse import best_scheme

ProductPass = Literal["forward", "input_gradient", "weight_gradient", "gradient_a", "gradient_b"]
PRODUCTS = ("conv", "dwconv", "linear", "attn_matmul")
OTHERS = ("bn", "layernorm", "relu", "relu6", "gelu", "silu", "hardswish", "hardsigmoid", "sigmoid",
          "tanh", "softmax", "maxpool", "avgpool", "adaptivepool", "add", "dropout",
          "embedding")  # fmt: skip
KINDS = (*PRODUCTS, *OTHERS)
# Layers that read the same input, which is stashed once: the projections of an attention,
# and a residual block's first convolution with its shortcut's.
SHARED = (
    (re.compile(r"^(.*\.)(k|v)$"), r"\1q"),
    (re.compile(r"^(.*\.)downsample\.0$"), r"\1conv1"),
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A row of a table: a product's GEMM sizes a sample (0 for layers without one).

    `in_elements`, `out_elements` are a sample's; `parameters` counts weight and bias;
    `input_hw`, `kernel`, `stride` are those of a convolution, empty otherwise; `shares` names
    the layer that read the same input first, where that is not told from the names.
    """

    name: str
    kind: str
    m: int
    n: int
    k: int
    groups: int
    parameters: int
    macs: int
    in_elements: int
    out_elements: int
    channels: int
    input_hw: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    shares: str = ""

    @property
    def is_product(self) -> bool:
        """Whether the layer is a matrix product."""
        return self.kind in PRODUCTS

    @property
    def input_name(self) -> str:
        """The layer in whose name the input is stashed: its own, or that it shares it with."""
        if self.shares:
            return self.shares
        for pattern, first in SHARED:
            if pattern.match(self.name):
                return pattern.sub(first, self.name)
        return self.name

    @property
    def weight_elements(self) -> int:
        """Elements of weight and bias that a product reads; a tied weight's own count."""
        return self.parameters or self.groups * self.k * self.n

    @property
    def touched(self) -> int:
        """Elements of a sample's input that the kernel touches."""
        out = self.channels if self.kernel else self.in_elements
        for size, kernel, stride in zip(self.input_hw, self.kernel, self.stride, strict=True):
            out *= size if stride <= kernel else min(size, -(-size // stride) * kernel)
        return out

    @property
    def window(self) -> float:
        """How often a convolution's window uses an input element, 1 at least."""
        out = 1.0
        for kernel, stride in zip(self.kernel, self.stride, strict=True):
            out *= kernel / stride
        return max(1.0, out)

    def op(self, batch: int) -> Op:
        """Return the product of a whole batch."""
        m, groups = (self.m, self.groups * batch) if self.kind == "attn_matmul" else (
            self.m * batch, self.groups,
        )  # fmt: skip
        return Op(
            kind=self.kind, m=m, n=self.n,
            k=self.k, groups=groups,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Operands:
    """One product of one pass: elements of A, B and C, batch and groups together."""

    layer: str
    pass_: ProductPass
    m: int
    n: int
    groups: int
    a: int
    b: int
    c: int
    macs: int
    window: float = 1.0

    def least(self, buffer_elements: int) -> float:
        """Elements that any order of the work moves: a lower bound.

        2 MACs / sqrt(R_w S) with a buffer of S elements, R_w (`window`) how often a
        convolution's window uses an input element, 1 for a GEMM; and each element once.
        Source: Chen, Han and Wang, HPCA 2020.
        """
        return max(self.compulsory, 2 * self.macs / (self.window * buffer_elements) ** 0.5)

    @property
    def compulsory(self) -> int:
        """Elements moved if each moves once."""
        return self.a + self.b + self.c

    def moved(self, buffer_elements: int) -> int:
        """Elements moved with the best reuse in a buffer of so many."""
        s = best_scheme(self.a, self.b, self.c, self.m, self.n, buffer_elements, self.groups)
        return self.a * s.a_times + self.b * s.b_times + self.c


@dataclass(frozen=True, kw_only=True)
class Network:
    """A published network."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a sample's forward pass."""
        return sum(layer.macs for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Trained parameters, embedding tables of DLRM left out."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def products(self) -> list[Layer]:
        """The layers that are matrix products, in order."""
        return [layer for layer in self.layers if layer.is_product]

    def operands(self, batch: int) -> list[Operands]:
        """Return every product of a training step on `batch` samples."""
        out: list[Operands] = []
        for number, layer in enumerate(self.products):
            out += _attention(layer, batch) if layer.kind == "attn_matmul" else _weighted(
                layer, batch, first=number == 0
            )  # fmt: skip
        return out


def _weighted(layer: Layer, batch: int, *, first: bool) -> list[Operands]:
    x, w, y = layer.touched * batch, layer.weight_elements, layer.out_elements * batch
    op = layer.op(batch)
    sizes: list[tuple[ProductPass, int, int, int, int, int]] = [
        ("forward", op.m, op.n, x, w, y)
    ]  # fmt: skip
    if not first:
        sizes.append(("input_gradient", op.m, op.k, y, w, x))
    sizes.append(("weight_gradient", op.k, op.n, x, y, w))
    return [
        Operands(layer=layer.name, pass_=p, m=m, n=n, groups=op.groups, a=a, b=b, c=c,
                 macs=op.macs, window=layer.window)
        for p, m, n, a, b, c in sizes
    ]  # fmt: skip


def _attention(layer: Layer, batch: int) -> list[Operands]:
    op = layer.op(batch)
    a, b, c = (op.groups * size for size in (op.m * op.k, op.k * op.n, op.m * op.n))
    sizes: list[tuple[ProductPass, int, int, int, int, int]] = [
        ("forward", op.m, op.n, a, b, c),
        ("gradient_a", op.m, op.k, c, b, a),
        ("gradient_b", op.k, op.n, a, c, b),
    ]
    return [
        Operands(layer=layer.name, pass_=p, m=m, n=n, groups=op.groups, a=x, b=y, c=z,
                 macs=op.macs)
        for p, m, n, x, y, z in sizes
    ]  # fmt: skip


@cache
def _texts() -> dict[str, str]:
    folder = resources.files("sfpsim.workload") / "tables"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".csv")), key=lambda f: f.name)
    return {f.name.removesuffix(".csv"): f.read_text("utf-8") for f in files}


def layer_of_row(row: dict[str, str]) -> Layer:
    """Return the layer of a line of a table; an empty cell is 0."""

    def number(key: str) -> int:
        return int(row[key] or 0)

    conv = row["type"] in ("conv", "dwconv")
    groups = number("groups") or 1
    return Layer(
        name=row["name"], kind=row["type"], m=number("M"), n=number("Ngemm"), k=number("Kgemm"),
        groups=groups, parameters=number("params"), macs=number("macs_per_sample"),
        in_elements=number("in_elems"), out_elements=number("out_elems"), channels=number("C"),
        input_hw=(number("H"), number("W")) if conv else (),
        kernel=(number("R"), number("S")) if conv else (),
        stride=(number("stride_h"), number("stride_w")) if conv else (),
    )  # fmt: skip


@cache
def load_network(name: str) -> Network:
    """Return the published network called `name`.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in _texts():
        raise InputError(f"unknown network {name!r}: known are {', '.join(_texts())}")
    rows = csv.DictReader(io.StringIO(_texts()[name]))
    return Network(name=name, layers=tuple(layer_of_row(row) for row in rows))


def networks() -> list[tuple[str, str, str]]:
    """Return (name, summary, source) of every network in the package."""
    out = []
    for name in _texts():
        network = load_network(name)
        made = "torchvision's module at 224 x 224" if any(
            layer.kind == "conv" and layer.kernel != (16, 16) for layer in network.layers
        ) else "its paper's sizes"  # fmt: skip
        summary = (
            f"{network.macs / 1e9:.3f} G MAC a sample, {network.parameters / 1e6:.3f} M parameters"
        )
        out.append((name, summary, made))
    return out
