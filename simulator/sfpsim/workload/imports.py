"""Networks from outside: PyTorch modules, ONNX models, SCALE-Sim topologies, layer tables."""

from __future__ import annotations

import csv
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from sfpsim.errors import InputError
from sfpsim.trace.record import RecordedOp, record_ops
from sfpsim.trace.schema import Op
from sfpsim.workload.networks import KINDS, Layer, Network, layer_of_row, load_network

ENDINGS = (".csv", ".onnx")
OURS = ("name", "type", "M", "Ngemm", "Kgemm", "params", "macs_per_sample")


def find_network(name: str | Network) -> Network:
    """Return the published network called `name`, or that in the file of that name.

    Files are our layer tables, SCALE-Sim topologies (both ``.csv``) and ``.onnx``.

    Raises
    ------
    InputError
        If there is neither, or the file cannot be used.
    """
    if isinstance(name, Network):
        return name
    path = Path(name)
    if path.suffix not in ENDINGS:
        return load_network(name)
    if path.suffix == ".onnx":
        return read_onnx(path)
    lines = _lines(path)
    if not lines:
        raise InputError(f"{path}: an empty file is no network")
    if {"name", "type"} <= {cell.strip() for cell in lines[0]}:
        return _layer_table(path, lines)
    return _scale_sim(path, lines)


def _lines(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


# Our own tables -----------------------------------------------------------------------


def _layer_table(path: Path, lines: list[list[str]]) -> Network:
    head = [cell.strip() for cell in lines[0]]
    if missing := [key for key in OURS if key not in head]:
        raise InputError(f"{path}: column {missing[0]!r} is missing: a table has {', '.join(OURS)}")
    layers = []
    for number, line in enumerate(lines[1:], 2):
        row = dict(zip(head, line, strict=False))
        where = f"{path}, line {number}, layer {row.get('name')!r}"
        if row["type"] not in KINDS:
            raise InputError(
                f"{where}: unknown op {row['type']!r}: supported are {', '.join(KINDS)}"
            )
        try:
            layer = layer_of_row({key: row.get(key, "") for key in (*head, *OURS)})
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error
        layers.append(layer)
        _check(layer, where)
    return _whole(Network(name=path.stem, layers=tuple(layers)), str(path))


def _check(layer: Layer, where: str) -> None:
    """Hold a product's sizes against each other."""
    if not layer.is_product:
        return
    for key in ("m", "n", "k"):
        if getattr(layer, key) < 1:
            raise InputError(f"{where}: {key.upper()}={getattr(layer, key)} must be positive")
    macs = layer.groups * layer.m * layer.n * layer.k
    if layer.macs != macs:
        raise InputError(f"{where}: {layer.macs} MACs do not fit groups x M x N x K = {macs}")
    made = layer.groups * layer.m * layer.n
    if layer.out_elements != made:
        raise InputError(
            f"{where}: {layer.out_elements} outputs do not fit groups x M x N = {made}"
        )
    if layer.kernel and layer.channels * math.prod(layer.input_hw) != layer.in_elements:
        raise InputError(
            f"{where}: {layer.in_elements} inputs do not fit C x H x W = "
            f"{layer.channels} x {' x '.join(map(str, layer.input_hw))}"
        )


def _whole(network: Network, where: str) -> Network:
    """Check that there are products and that their names differ."""
    if not network.products:
        raise InputError(f"{where}: no layer is a product")
    twice = [n for n, count in Counter(x.name for x in network.products).items() if count > 1]
    if twice:
        raise InputError(f"{where}: two layers are called {twice[0]!r}")
    return network


# SCALE-Sim ----------------------------------------------------------------------------


def _scale_sim(path: Path, lines: list[list[str]]) -> Network:
    """Read a topology: conv (name, H, W, R, S, C, K, stride) or GEMM (name, M, N, K).

    SCALE-Sim knows no padding and rounds a window that is cut off up to a whole one.
    """
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    gemm = any(cell.upper() == "M" for cell in rows[0])
    layers = []
    for number, row in enumerate(rows[1:], 2):
        where = f"{path}, line {number}"
        try:
            sizes = [int(cell) for cell in row[1:]]
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error
        wanted = (3,) if gemm else (7, 8)
        if len(sizes) not in wanted or min(sizes, default=0) < 1:
            raise InputError(
                f"{where}: {len(sizes)} sizes {sizes}: a topology of SCALE-Sim has name and "
                + ("M, N, K" if gemm else "H, W, R, S, C, filters, stride, all positive")
            )
        layers.append(_gemm_row(row[0], sizes) if gemm else _conv_row(row[0], sizes, where))
    if not gemm:
        _warn_padding(path, layers)
    return _whole(Network(name=path.stem, layers=tuple(layers)), str(path))


def _gemm_row(name: str, sizes: list[int]) -> Layer:
    m, n, k = sizes
    return _product(name, "linear", m=m, n=n, k=k, parameters=n * k, in_elements=m * k)


def _conv_row(name: str, sizes: list[int], where: str) -> Layer:
    height, width, r, s, channels, filters, stride = sizes[:7]
    if r > height or s > width:
        raise InputError(f"{where}: layer {name!r}: a window of {r} x {s} does not fit "
                         f"{height} x {width}")  # fmt: skip
    p, q = (-(-(size - window + stride) // stride) for size, window in ((height, r), (width, s)))
    k = channels * r * s
    return replace(
        _product(name, "conv", m=p * q, n=filters, k=k, parameters=filters * k,
                 in_elements=channels * height * width),
        channels=channels, input_hw=(height, width), kernel=(r, s), stride=(stride, stride),
    )  # fmt: skip


def _product(
    name: str, kind: str, *, m: int, n: int, k: int, parameters: int, in_elements: int,
    groups: int = 1,
) -> Layer:  # fmt: skip
    return Layer(
        name=name, kind=kind, m=m, n=n, k=k, groups=groups, parameters=parameters,
        macs=groups * m * n * k, in_elements=in_elements, out_elements=groups * m * n,
        channels=0, input_hw=(), kernel=(), stride=(),
    )  # fmt: skip


def _warn_padding(path: Path, layers: list[Layer]) -> None:
    """Warn where a layer's output is too small for the next one's input: padding is missing."""
    short = []
    for before, after in pairwise(layers):
        if after.channels == before.n and after.in_elements > before.out_elements:
            short.append(after.name)
    if short:
        warnings.warn(
            f"{path}: padding is missing: {', '.join(short)} read more than the layer before "
            "writes; SCALE-Sim's topologies have no padding, so MACs are too few",
            stacklevel=4,
        )


# PyTorch ------------------------------------------------------------------------------


def record_module(module: Any, *example: Any, name: str = "") -> Network:
    """Return a PyTorch module as a network, from one forward pass on `example`.

    Parameters
    ----------
    module
        A ``torch.nn.Module``.
    example
        What it is called with; the first dimension of the first tensor is the batch.
    name
        What the network is called; the module's class by default.

    Raises
    ------
    InputError
        If it runs a product that is not supported, or sizes that do not grow with the batch.
    """
    batch = int(example[0].shape[0])
    ops = record_ops(module, *example)
    label = name or type(module).__name__
    return _whole(Network(name=label, layers=tuple(_layers(ops, batch))), label)


def _layers(ops: Iterable[RecordedOp], batch: int) -> Iterator[Layer]:
    names: Counter[str] = Counter()
    readers: dict[int, str] = {}
    for op in ops:
        base = op.layer or op.kind
        names[base] += 1
        name = base if names[base] == 1 else f"{base}:{names[base]}"
        if op.op is None:
            yield _other(name, op, batch)
            continue
        layer = _recorded(name, op, op.op, batch)
        if layer.kind != "attn_matmul":
            first = readers.setdefault(op.source, name)
            layer = replace(layer, shares="" if first == name else first)
        yield layer


def _per_sample(size: int, batch: int, name: str) -> int:
    if size % batch:
        raise InputError(f"layer {name!r}: {size} elements are not {batch} times a sample's")
    return size // batch


def _other(name: str, op: RecordedOp, batch: int) -> Layer:
    inside, outside = (
        _per_sample(math.prod(shape), batch, name) for shape in (op.in_shape, op.out_shape)
    )
    return Layer(
        name=name, kind=op.kind, m=0, n=0, k=0, groups=1, parameters=op.parameters, macs=0,
        in_elements=inside, out_elements=outside, channels=0, input_hw=(), kernel=(), stride=(),
    )  # fmt: skip


def _recorded(name: str, op: RecordedOp, product: Op, batch: int) -> Layer:
    inside = _per_sample(math.prod(op.in_shape), batch, name)
    if product.kind in ("conv", "conv_transpose"):
        channels = product.input_shape[1]
        layer = _product(
            name, "dwconv" if product.groups == channels > 1 else "conv",
            m=_per_sample(product.m, batch, name), n=product.n, k=product.k,
            groups=product.groups, parameters=op.parameters, in_elements=inside,
        )  # fmt: skip
        if product.kind == "conv_transpose":
            return replace(layer, out_elements=_per_sample(math.prod(op.out_shape), batch, name))
        return replace(
            layer, channels=channels, input_hw=product.input_shape[2:], kernel=product.kernel,
            stride=product.stride,
        )  # fmt: skip
    if op.parameters:
        return _product(
            name, "linear", m=_per_sample(product.m, batch, name), n=product.n, k=product.k,
            parameters=op.parameters, in_elements=inside,
        )  # fmt: skip
    groups = _per_sample(product.groups, batch, name)
    return _product(
        name, "attn_matmul", m=product.m, n=product.n, k=product.k, parameters=0, groups=groups,
        in_elements=groups * product.k * (product.m + product.n),
    )  # fmt: skip


# ONNX ---------------------------------------------------------------------------------

ONNX_KINDS = {
    "BatchNormalization": "bn", "LayerNormalization": "layernorm", "Relu": "relu", "Clip": "relu6",
    "Gelu": "gelu", "HardSwish": "hardswish", "HardSigmoid": "hardsigmoid", "Sigmoid": "sigmoid",
    "Tanh": "tanh", "Softmax": "softmax", "MaxPool": "maxpool", "AveragePool": "avgpool",
    "GlobalAveragePool": "avgpool", "ReduceMean": "avgpool", "Add": "add", "Dropout": "dropout",
    "Gather": "embedding",
}  # fmt: skip
ONNX_PRODUCTS = ("Conv", "Gemm", "MatMul")
ONNX_FREE = ("Flatten", "Reshape", "Transpose", "Identity", "Constant", "Shape", "Squeeze",
             "Unsqueeze", "Concat", "Slice", "Split", "Cast")  # fmt: skip


def read_onnx(path: str | Path) -> Network:
    """Return the network in an ONNX file; shapes come from ONNX's own inference.

    Raises
    ------
    InputError
        If the extra ``onnx`` is not installed, the file is no model, or an operator or a
        shape is not known.
    """
    try:
        import onnx
    except ImportError as error:
        raise InputError("ONNX files need the extra 'onnx' (pip install sfpsim[onnx])") from error
    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    except Exception as error:
        raise InputError(f"{path}: no ONNX model: {' '.join(str(error).split())}") from error
    graph = model.graph
    shapes = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in (*graph.value_info, *graph.input, *graph.output)
    }
    weights = {w.name: tuple(w.dims) for w in graph.initializer}
    inputs = [v.name for v in graph.input if v.name not in weights]
    batch = shapes[inputs[0]][0] if inputs and shapes[inputs[0]] else 0
    layers = [
        layer for i, node in enumerate(graph.node)
        if (layer := _node(node, i, shapes, weights, max(1, batch), path)) is not None
    ]  # fmt: skip
    return _whole(Network(name=Path(path).stem, layers=tuple(layers)), str(path))


def _node(
    node: Any, number: int, shapes: dict[str, Any], weights: dict[str, Any], batch: int,
    path: str | Path,
) -> Layer | None:  # fmt: skip
    name = node.name or f"{node.op_type}{number}"
    if node.op_type in ONNX_FREE:
        return None
    if node.op_type not in (*ONNX_PRODUCTS, *ONNX_KINDS):
        known = ", ".join((*ONNX_PRODUCTS, *ONNX_KINDS, *ONNX_FREE))
        raise InputError(
            f"{path}: layer {name!r}: unknown op {node.op_type!r}: supported are {known}"
        )
    every = shapes | weights
    where = f"{path}: layer {name!r}"
    source = every.get(node.input[0], ())
    if node.op_type == "Gather" and len(node.input) > 1:
        source = every.get(node.input[1], ())
    made = every.get(node.output[0], ())
    if not source or not made or 0 in (*source, *made):
        raise InputError(f"{where}: its shape is not known: give the model fixed input sizes")
    parameters = sum(math.prod(weights[w]) for w in node.input if w in weights)
    inside, outside = (_per_sample(math.prod(s), batch, name) for s in (source, made))
    if node.op_type in ONNX_KINDS:
        return replace(
            _product(name, ONNX_KINDS[node.op_type], m=0, n=0, k=0, parameters=parameters,
                     in_elements=inside),
            out_elements=outside,
        )  # fmt: skip
    if node.op_type == "Conv":
        return _onnx_conv(name, node, source, made, weights, batch, where)
    second = every.get(node.input[1], ())
    if not second:
        raise InputError(f"{where}: the shape of its second operand is not known")
    attributes = {a.name: a.i for a in node.attribute}
    k, n = second[-2:] if not attributes.get("transB") else second[:-3:-1]
    if source[-1] != k and not attributes.get("transA"):
        raise InputError(f"{where}: {source} x {second} do not fit each other")
    if node.input[1] in weights:
        return _product(name, "linear", m=_per_sample(math.prod(source) // k, batch, name), n=n,
                        k=k, parameters=parameters, in_elements=inside)  # fmt: skip
    groups = _per_sample(math.prod(source[:-2]), batch, name)
    m = source[-2]
    return _product(name, "attn_matmul", m=m, n=n, k=k, parameters=0, groups=groups,
                    in_elements=groups * k * (m + n))  # fmt: skip


def _onnx_conv(
    name: str, node: Any, source: tuple[int, ...], made: tuple[int, ...], weights: dict[str, Any],
    batch: int, where: str,
) -> Layer:  # fmt: skip
    if node.input[1] not in weights:
        raise InputError(f"{where}: its weight is no initializer")
    filters, per_group, *kernel = weights[node.input[1]]
    attributes = {a.name: a for a in node.attribute}
    groups = attributes["group"].i if "group" in attributes else 1
    if per_group * groups != source[1]:
        raise InputError(f"{where}: {source[1]} channels do not fit {groups} x {per_group}")
    strides = attributes["strides"].ints if "strides" in attributes else [1] * len(kernel)
    layer = _product(
        name, "dwconv" if groups == source[1] > 1 else "conv", m=math.prod(made[2:]),
        n=filters // groups, k=per_group * math.prod(kernel), groups=groups,
        parameters=sum(math.prod(weights[w]) for w in node.input if w in weights),
        in_elements=_per_sample(math.prod(source), batch, name),
    )  # fmt: skip
    return replace(layer, channels=source[1], input_hw=tuple(source[2:]), kernel=tuple(kernel),
                   stride=tuple(strides))  # fmt: skip
