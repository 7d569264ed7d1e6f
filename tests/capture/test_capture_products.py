"""Is every product in the trace, with its sizes, its operands and its gradients?"""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))

import torch.nn.functional as F  # noqa: E402
from capture_models import CASES  # noqa: E402
from torch import nn  # noqa: E402


class Call(nn.Module):
    """A function of one learned tensor as a module."""

    def __init__(self, function, *shape):
        super().__init__()
        self.w = nn.Parameter(torch.randn(*shape))
        self.function = function

    def forward(self, x):
        return self.function(x, self.w)


def products(trace):
    return [op for op in trace.ops if op.op.macs]


x34 = (3, 4)
HAND_COUNTS = {
    "linear": (F.linear, x34, (5, 4), 3 * 4 * 5),
    "matmul": (torch.matmul, x34, (4, 5), 3 * 4 * 5),
    "operator": (lambda x, w: x @ w, (2, 3, 4), (4, 5), 2 * 3 * 4 * 5),
    "mm": (torch.mm, x34, (4, 5), 3 * 4 * 5),
    "addmm": (lambda x, w: torch.addmm(torch.ones(5), x, w), x34, (4, 5), 3 * 4 * 5),
    "bmm": (torch.bmm, (2, 3, 4), (2, 4, 5), 2 * 3 * 4 * 5),
    "baddbmm": (lambda x, w: torch.baddbmm(torch.ones(1), x, w), (2, 3, 4), (2, 4, 5), 120),
    "einsum": (lambda x, w: torch.einsum("bik,bjk->bij", x, w), (2, 3, 4), (2, 5, 4), 120),
    "conv1d": (F.conv1d, (2, 3, 9), (6, 3, 4), 2 * 6 * 6 * 3 * 4),
    "conv2d": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), (2, 3, 8, 8), (6, 3, 3, 3),
               2 * 4 * 4 * 6 * 27),
    "grouped": (lambda x, w: F.conv2d(x, w, groups=2), (1, 4, 5, 5), (6, 2, 3, 3),
                3 * 3 * 6 * 2 * 9),
    "depthwise": (lambda x, w: F.conv2d(x, w, groups=4), (1, 4, 5, 5), (4, 1, 3, 3), 9 * 4 * 9),
    "conv3d": (F.conv3d, (1, 2, 4, 4, 4), (3, 2, 2, 2, 2), 27 * 3 * 2 * 8),
    "transposed": (lambda x, w: F.conv_transpose2d(x, w, stride=2), (1, 3, 4, 4), (3, 5, 2, 2),
                   16 * 3 * 5 * 4),
    "attention": (lambda x, w: F.scaled_dot_product_attention(x, w, w), (2, 3, 5, 4),
                  (2, 3, 7, 4), 2 * (2 * 3 * 5 * 7 * 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(HAND_COUNTS))
def test_macs_equal_a_count_by_hand(captured, name):
    function, shape, weight, macs = HAND_COUNTS[name]
    model = Call(function, *weight)
    x = torch.randn(*shape, requires_grad=True)
    trace = captured(model, lambda: model(x).square().sum())
    assert sum(op.op.macs for op in products(trace)) == macs
    for op in products(trace):
        assert op.gradients == (True, True)
        assert op.gradient or op.op.kind == "attention_scores"
    stash = [r for r in trace.records if r.use == "stash" and r.op.macs]
    assert stash
    assert all(r.op.kind in {op.op.kind for op in products(trace)} for r in stash)


def test_names_kinds_and_operands_of_attention(captured):
    trace = captured(*CASES["attention"]())
    named = {op.name: op for op in products(trace)}
    assert list(named) == [
        "qkv", "matmul", "matmul:2", "attention_scores", "attention_context", "mha",
        "mha:matmul", "mha:matmul:2", "mha.out_proj", "head",
    ]  # fmt: skip
    roles = {r.name: r.role for r in trace.records}
    for name in ("matmul", "matmul:2", "attention_scores", "mha:matmul", "mha:matmul:2"):
        assert [roles[read] for read in named[name].reads] == ["activation"] * 2
    assert named["attention_context"].reads[0] == ""
    for name in ("qkv", "mha", "mha.out_proj", "head"):
        assert roles[named[name].reads[1]] == "weight"
    assert all(op.gradients == (True, True) for op in named.values())


def test_output_gradients_are_those_that_hooks_see(captured):
    model, loss = CASES["cnn"]()
    seen = {}
    for name in ("conv", "depthwise", "fc"):

        def forward(module, args, out, name=name):
            out.register_hook(lambda g: seen.setdefault(name, g.clone()))

        model.get_submodule(name).register_forward_hook(forward)
    trace = captured(model, loss)
    found = {r.name: r for r in trace.records}
    for op in products(trace):
        values = np.asarray(trace.values(found[op.gradient])).reshape(found[op.gradient].shape)
        assert np.array_equal(values.reshape(-1), seen[op.name].numpy().reshape(-1))


def test_weight_gradients_are_those_of_the_parameters(captured):
    model, loss = CASES["attention"]()
    trace = captured(model, loss)
    found = {r.parameter: trace.values(r) for r in trace.records if r.use == "weight_gradient"}
    expected = dict(model.named_parameters())
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert np.array_equal(np.sort(values), np.sort(expected[name].grad.numpy().reshape(-1)))


def test_only_the_gradients_that_are_computed_are_noted(captured):
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 7))
    model[1].requires_grad_(False)
    x = torch.randn(3, 4)
    trace = captured(model, lambda: model(x).sum())
    assert {op.name: op.gradients for op in products(trace)} == {
        "0": (False, True), "1": (True, False), "2": (True, True),
    }  # fmt: skip
    read = next(op.reads[0] for op in trace.ops if op.name == "1")
    assert next(r.use for r in trace.records if r.name == read) == "operand"


def test_a_layer_that_runs_twice_is_two_products_of_one_weight(captured):
    model = nn.Sequential(nn.Linear(4, 4))
    x = torch.randn(3, 4)
    trace = captured(model, lambda: model(model(x)).sum())
    first, second = products(trace)
    assert (first.name, second.name) == ("0", "0:2")
    assert first.reads[1] == second.reads[1] == "step0.weight.0.weight"
    assert first.gradients == (False, True)
    assert second.gradients == (True, True)
    assert first.gradient != second.gradient


def test_a_tied_weight_belongs_to_its_first_owner(captured):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 8)
            self.head = nn.Linear(8, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            return self.head(self.embed(tokens))

    model, tokens = Tied(), torch.randint(0, 11, (3, 5))
    trace = captured(model, lambda: model(tokens).sum())
    (head,) = products(trace)
    assert head.name == "head"
    assert head.reads[1] == "step0.weight.embed.weight"
    assert [r.name for r in trace.records if r.use == "weight"] == ["step0.weight.embed.weight"]
    assert len([r for r in trace.records if r.use == "weight_gradient"]) == 1


def test_accumulated_gradients_are_one_record_with_the_last_value(captured):
    model = nn.Linear(4, 3)
    a, b = torch.randn(2, 4), torch.randn(2, 4)

    def loss():
        model(a).sum().backward()
        return model(b).sum()

    trace = captured(model, loss)
    (gradient,) = [
        r for r in trace.records if r.use == "weight_gradient" and r.parameter == "weight"
    ]
    assert np.array_equal(trace.values(gradient), model.weight.grad.numpy().reshape(-1))
    assert [op.name for op in products(trace)] == ["model", "model:2"]


def test_a_product_in_a_function_of_the_users_own(captured):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a @ b

        @staticmethod
        def backward(ctx, gradient):
            a, b = ctx.saved_tensors
            return gradient @ b.t(), a.t() @ gradient

    model = Call(Product.apply, 4, 5)
    x = torch.randn(3, 4, requires_grad=True)
    trace = captured(model, lambda: model(x).square().sum())
    (op,) = products(trace)
    assert (op.op.macs, op.gradients) == (60, (True, True))
    assert not any(other.op.kind == "custom" for other in trace.ops)


def test_a_product_that_is_not_taken_apart_is_warned_about(captured):
    model = Call(torch.mv, 4)
    with pytest.warns(UserWarning, match="mv"):
        trace = captured(model, lambda: model(torch.randn(3, 4)).sum())
    assert products(trace) == []


def one_layer(x, layer):
    """Return losses of `layer` on `x` by the way in which it is run."""

    def inference():
        with torch.inference_mode():
            layer(x)
        return layer(x).sum()

    def twice():
        y = layer(x).tanh().sum()
        (gradient,) = torch.autograd.grad(y, layer.weight, create_graph=True)
        return y + gradient.square().sum()

    return {
        "plain": lambda: layer(x).sum(),
        "bfloat16": lambda: layer.bfloat16()(x.bfloat16()).sum(),
        "float64": lambda: layer.double()(x.double()).sum(),
        "vmap": lambda: torch.vmap(layer)(x).sum(),
        "compiled": lambda: torch.compile(layer, backend="eager")(x).sum(),
        "inference mode": inference,
        "gradient of a gradient": twice,
        "sparse": lambda: layer(torch.sparse.mm(torch.eye(3).to_sparse(), x)).sum(),
    }


@pytest.mark.parametrize("way", sorted(one_layer(torch.zeros(3, 4), nn.Linear(4, 5))))
def test_ways_to_run_a_layer(captured, way):
    layer = nn.Linear(4, 5)
    trace = captured(layer, one_layer(torch.randn(3, 4), layer)[way])
    first = products(trace)[0]
    assert (first.op.macs, first.gradients) == (60, (False, True))
