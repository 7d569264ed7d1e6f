"""Networks from outside: SCALE-Sim topologies, layer tables, PyTorch modules, ONNX models."""

import csv
import warnings
from importlib import resources

import pytest

from sfpsim.errors import InputError
from sfpsim.experiment.network import simulate_network
from sfpsim.hardware.array import work_of
from sfpsim.hardware.machine import load_machine
from sfpsim.trace.reader import open_trace
from sfpsim.workload.imports import find_network, record_module
from sfpsim.workload.networks import load_network

TOPOLOGY = """Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,
Conv1, 224, 224, 7, 7, 3, 64, 2,
Conv2_1a, 56, 56, 3, 3, 64, 64, 1,
Conv3_1a, 56, 56, 3, 3, 64, 128, 2,
FC6, 1, 1, 1, 1, 512, 1000, 1,
"""  # noqa: E501
CYCLES = {"Conv1": 121_939, "Conv2_1a": 108_359, "Conv3_1a": 63_215, "FC6": 48_639}


@pytest.fixture(scope="module")
def profile():
    return open_trace(resources.files("sfpsim") / "sample" / "resnet8")


def file(tmp_path, text, name="net.csv"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_a_topology_of_scale_sim_has_its_cycles_and_a_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"padding is missing: Conv3_1a"):
        network = find_network(file(tmp_path, TOPOLOGY))
    array = load_machine("systolic-32").compute
    for layer in network.products:
        gemm = (layer.m, layer.n, layer.k, layer.groups)
        assert work_of(gemm, layer.macs, array, (0, 0)).cycles == CYCLES[layer.name]
    assert network.products[0].touched == 3 * 224 * 224


def test_a_gemm_topology(tmp_path, profile):
    path = file(tmp_path, "Layer, M, N, K,\nA, 128, 256, 64,\nB, 128, 32, 256,\n", "gemm.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = find_network(path)
    assert network.macs == 128 * 256 * 64 + 128 * 32 * 256
    result, _ = simulate_network(path, ["bf16"], batch=2, profile=profile)
    assert result.network == "gemm"
    assert result.parameters == 256 * 64 + 32 * 256


def table(name="resnet18"):
    text = (resources.files("sfpsim.workload") / "tables" / f"{name}.csv").read_text()
    return list(csv.reader(text.splitlines()))


def written(tmp_path, rows):
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    return str(path)


def test_a_table_of_the_users_is_the_same_network(tmp_path):
    found = find_network(written(tmp_path, table()))
    assert found.layers == load_network("resnet18").layers
    assert found.name == "mine"


@pytest.mark.parametrize(
    ("row", "column", "value", "match"),
    [
        (1, "type", "fft", "unknown op 'fft': supported are conv, dwconv"),
        (1, "M", "12543", "do not fit groups x M x N"),
        (1, "macs_per_sample", "5", "5 MACs do not fit"),
        (1, "in_elems", "150529", "150529 inputs do not fit C x H x W = 3 x 224 x 224"),
        (1, "Kgemm", "0", "K=0 must be positive"),
        (1, "M", "many", "invalid literal"),
        (5, "name", "conv1", "two layers are called 'conv1'"),
        (0, "Kgemm", "depth", "column 'Kgemm' is missing"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, row, column, value, match):
    rows = table()
    rows[row][rows[0].index(column)] = value
    with pytest.raises(InputError, match=match):
        find_network(written(tmp_path, rows))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "empty"),
        ("Layer,H,W,R,S,C,K,stride\nA,5,5,7,7,3,8,1\n", "window of 7 x 7 does not fit 5 x 5"),
        ("Layer,H,W,R,S,C,K,stride\nA,5,5,3,3\n", "4 sizes"),
        ("Layer,M,N,K\nA,5,x,3\n", "invalid literal"),
        ("Layer,M,N,K\n", "no layer is a product"),
    ],
)
def test_topologies_that_cannot_be(tmp_path, text, match):
    with pytest.raises(InputError, match=match):
        find_network(file(tmp_path, text))


def test_a_file_that_is_not_there():
    with pytest.raises(InputError, match="cannot be read"):
        find_network("nowhere.csv")


def small():
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.Sigmoid(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ).eval()  # fmt: skip


def products(network):
    return [
        (p.kind, p.m, p.n, p.k, p.groups, p.parameters, p.in_elements, p.out_elements)
        for p in network.products
    ]


SIZES = [
    ("conv", 64, 8, 27, 1, 224, 768, 512),
    ("dwconv", 64, 1, 9, 8, 72, 512, 512),
    ("linear", 1, 10, 8, 1, 90, 8, 10),
]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_recorded_module(batch, profile):
    import torch

    network = record_module(small(), torch.zeros(batch, 3, 16, 16), name="small")
    assert products(network) == SIZES
    assert [x.kind for x in network.layers] == [
        "conv", "bn", "relu", "dwconv", "sigmoid", "avgpool", "linear",
    ]  # fmt: skip
    assert network.products[1].name == "3"
    result, _ = simulate_network(network, ["bf16"], batch=8, profile=profile)
    assert result.macs == 64 * 8 * 27 + 64 * 9 * 8 + 80


def test_a_module_with_fused_attention_shares_the_input_of_its_projections():
    import torch
    from torch import nn

    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    network = record_module(layer, torch.zeros(2, 10, 32))
    kinds = [p.kind for p in network.products]
    assert kinds.count("attn_matmul") == 2
    assert network.macs == 10 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 4 * 10 * 10 * 8


def test_recorded_projections_of_one_input_stash_it_once():
    import torch
    from torch import nn

    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            return self.a(x) + self.b(x) + self.c(torch.relu(x))

    network = record_module(Three(), torch.zeros(2, 4))
    assert [p.input_name for p in network.products] == ["a", "a", "c"]


def test_a_product_that_is_not_taken_apart_is_named():
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Bilinear(4, 4, 3)

        def forward(self, x):
            return self.inner(x, x)

    with pytest.raises(InputError, match=r"module 'inner': operation '_trilinear'.*supported are"):
        record_module(Net(), torch.zeros(2, 4))


def onnx_model(tmp_path, nodes, inputs, outputs, weights):
    onnx = pytest.importorskip("onnx")
    import numpy as np

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(op, i, o, name=name, **extra) for name, op, i, o, extra in nodes],
        "g",
        [helper.make_tensor_value_info(n, kind, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, kind, s) for n, s in outputs.items()],
        [onnx.numpy_helper.from_array(np.zeros(s, np.float32), n) for n, s in weights.items()],
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph), path)
    return str(path)


def test_an_onnx_model_is_the_recorded_module(tmp_path, profile):
    nodes = [
        ("c", "Conv", ["x", "w0", "b0"], ["y0"], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("r", "Relu", ["y0"], ["y1"], {}),
        ("d", "Conv", ["y1", "w1"], ["y2"], {"group": 8, "pads": [1, 1, 1, 1]}),
        ("p", "GlobalAveragePool", ["y2"], ["y3"], {}),
        ("f", "Flatten", ["y3"], ["y4"], {}),
        ("l", "Gemm", ["y4", "w2", "b2"], ["y"], {"transB": 1}),
    ]
    weights = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 1, 3, 3), "w2": (10, 8), "b2": (10,)}
    path = onnx_model(tmp_path, nodes, {"x": (2, 3, 16, 16)}, {"y": (2, 10)}, weights)
    network = find_network(path)
    assert products(network) == SIZES
    result, _ = simulate_network(path, ["bf16"], batch=4, profile=profile)
    assert result.network == "model"


@pytest.mark.parametrize(
    ("node", "match"),
    [
        (("n", "Einsum", ["x", "w"], ["y"], {"equation": "ab,bc->ac"}),
         "layer 'n': unknown op 'Einsum': supported are Conv, Gemm, MatMul"),
        (("n", "MatMul", ["x", "z"], ["y"], {}), "second operand is not known"),
    ],
)  # fmt: skip
def test_onnx_models_that_cannot_be_read(tmp_path, node, match):
    path = onnx_model(tmp_path, [node], {"x": (2, 4)}, {"y": (2, 5)}, {"w": (4, 5)})
    with pytest.raises(InputError, match=match):
        find_network(path)


def test_a_file_that_is_no_onnx_model(tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(InputError, match="no ONNX model"):
        find_network(file(tmp_path, "text", "m.onnx"))
