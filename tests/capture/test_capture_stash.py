"""Does a trace hold what autograd stashes, as what it is, and does training not notice?"""

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))

import torch.nn.functional as F  # noqa: E402
from capture_models import CASES, Cnn  # noqa: E402
from torch import nn  # noqa: E402
from torch.multiprocessing.reductions import StorageWeakRef  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from sfpsim.errors import InputError  # noqa: E402
from sfpsim.trace.capture import Capture  # noqa: E402
from sfpsim.trace.reader import open_trace  # noqa: E402

SAVED = ("stash", "buffer", "weight_copy")


def saved_by_autograd(model, loss):
    """Return copies of the distinct tensors that saved-tensor hooks see, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found, alive = {}, []

    def pack(t):
        alive.append(t.detach())  # so that no address is used twice
        where = t.untyped_storage().data_ptr()
        key = where, t._version, t.dtype, t.storage_offset(), t.numel()
        if where not in weights and t.numel() and key not in found:
            found[key] = t.detach().clone()
        return t.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss().backward()
    return list(found.values())


def fingerprint(values):
    """What two lists of tensors have in common: sorted bytes, whatever the memory order."""
    return sorted((v.dtype.name, np.sort(v, axis=None).tobytes()) for v in values)


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_stash_is_what_plain_hooks_see(captured, case):
    model, loss = CASES[case]()
    torch.manual_seed(9)
    expected = [t.numpy() for t in saved_by_autograd(model, loss)]
    model.zero_grad()
    torch.manual_seed(9)
    for module in model.modules():  # the first run has moved the running statistics
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    trace = captured(model, loss)
    found = [np.asarray(trace.values(r)) for r in trace.records if r.use in SAVED]
    fresh = [e for e in expected if e.shape != (4,)]  # running statistics differ by a run
    assert len(found) == len(expected)
    assert sum(v.nbytes for v in found) == sum(v.nbytes for v in expected)
    assert set(fingerprint(fresh)) <= set(fingerprint(found))


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("sample", [None, 1024])
def test_training_with_capture_is_bit_for_bit_training_without(tmp_path, case, sample):
    def losses(capture_into):
        torch.manual_seed(4)
        model, loss = CASES[case]()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        capture = Capture(model, tmp_path / "t", every=2, sample=sample, optimizer=optimizer)
        out = []
        for _ in range(6):
            with capture.step() if capture_into else torch.enable_grad():
                value = loss()
                value.backward()
            optimizer.step()
            optimizer.zero_grad()
            out.append(value.item())
        return out, [p.detach().clone() for p in model.parameters()]

    plain, weights = losses(False)
    (tmp_path / "t" / "manifest.json").unlink()
    watched, same = losses(True)
    assert plain == watched
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    assert open_trace(tmp_path / "t").steps == [0, 2, 4]


def attached(model):
    """Return how much is attached to the model and to PyTorch."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    hooks += [len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()]
    modes = torch._C._len_torch_function_stack() + torch._C._len_torch_dispatch_stack()
    saved = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return sum(hooks) + modes + (saved is not None)


def test_nothing_is_attached_between_captured_steps(tmp_path):
    model, loss = CASES["cnn"]()
    capture = Capture(model, tmp_path / "t", every=2)
    before = attached(model)
    inside = []
    for _ in range(4):
        with capture.step():
            inside.append(attached(model))
            loss().backward()
        assert attached(model) == before == 0
    assert inside[0] == inside[2] > 0
    assert inside[1] == inside[3] == 0


def test_an_exception_in_a_step_takes_everything_off_and_writes_nothing(tmp_path):
    model, loss = CASES["cnn"]()
    capture = Capture(model, tmp_path / "t", every=1)

    def broken():
        with capture.step():
            loss()
            return 1 / 0

    with pytest.raises(ZeroDivisionError):
        broken()
    assert attached(model) == 0
    assert [p.name for p in (tmp_path / "t").iterdir()] == ["manifest.json"]
    with capture.step():
        loss().backward()
    assert open_trace(tmp_path / "t").steps == [1]


def test_a_captured_step_keeps_no_tensor_alive(tmp_path):
    model, loss = CASES["attention"]()
    made = []
    for module in model.modules():
        module.register_forward_hook(
            lambda module, args, out: made.append(
                StorageWeakRef((out[0] if isinstance(out, tuple) else out).untyped_storage())
            )
        )
    capture = Capture(model, tmp_path / "t", every=1)
    gc.collect()
    gc.disable()
    try:
        with capture.step():
            loss().backward()
        assert len(made) > 5
        assert all(reference.expired() for reference in made)
    finally:
        gc.enable()


def test_memory_that_is_used_again_does_not_lend_its_name(captured):
    """Freed outputs leave their addresses to tensors that other layers make."""

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.ModuleList(nn.Softplus() for _ in range(6))

        def forward(self, x):
            for module in self.inner:
                module(x.detach())  # its output is freed at once
                x = x.sin()
            return x

    model, x = Chain(), torch.randn(64, requires_grad=True)
    trace = captured(model, lambda: model(x).sum())
    stash = [r for r in trace.records if r.use == "stash"]
    assert [r.producer for r in stash] == [None, *[""] * 5]
    expected = x.detach()
    for r in stash:
        assert np.array_equal(trace.values(r), expected.numpy())
        expected = expected.sin()


def test_roles_of_what_a_cnn_saves(captured):
    model, loss = CASES["cnn"]()
    trace = captured(model, loss)
    roles = {}
    for r in trace.records:
        if r.use in SAVED:
            roles.setdefault((r.layer, r.role), []).append((r.dtype, r.shape))
    assert roles["bn", "activation"] == [("float32", (2, 4, 8, 8))]
    assert roles["bn", "other"] == [("float32", (4,))] * 4
    assert roles["pool", "other"] == [("int64", (2, 4, 4, 4))]
    assert roles["drop", "other"] == [("float32", (2, 4, 4, 4))]
    assert ("int64", (2,)) in roles["", "other"]
    assert {r.role for r in trace.records} == {"weight", "activation", "gradient", "other"}


def test_kinds_of_layers_without_a_product_are_named(captured):
    for case in ("cnn", "attention"):
        trace = captured(*CASES[case](), name=case)
        kinds = {op.op.kind for op in trace.ops} | {r.op.kind for r in trace.records if r.op}
        expected = {
            "cnn": {"conv", "batch_norm", "relu", "max_pool2d", "dropout", "sigmoid", "linear",
                    "cross_entropy"},
            "attention": {"embedding", "layer_norm", "linear", "matmul", "softmax",
                          "attention_scores", "attention_context", "cross_entropy"},
        }[case]  # fmt: skip
        assert expected <= kinds


def test_a_tensor_that_several_layers_save_is_there_once(captured):
    first, second = nn.Linear(4, 3), nn.Linear(4, 3)
    model = nn.ModuleList([nn.Linear(5, 4), first, second])
    x = torch.randn(2, 5)

    def loss():
        y = model[0](x)
        return (first(y) + second(y)).sum()

    trace = captured(model, loss)
    shared = [r for r in trace.records if r.use == "stash" and r.shape == (2, 4)]
    assert [r.users for r in shared] == [("1", "2")]


def test_parts_of_one_memory_are_counted_as_what_they_are(captured):
    """The slices of a fused q, k, v projection are three tensors, an expanded one its base."""
    model = nn.Linear(4, 12)
    x, small = torch.randn(2, 4), torch.randn(1, 4, requires_grad=True)

    def loss():
        q, k, v = model(x).chunk(3, dim=1)
        return (q * k * v * small.expand(2, 4)).sum()

    trace = captured(model, loss)
    saved = [r.shape for r in trace.records if r.use == "stash"]
    assert saved.count((2, 4)) >= 4
    assert (1, 4) in saved


def test_memory_order_of_channels_last(captured):
    model = Cnn().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    trace = captured(model, lambda: model(x).sum())
    stem = next(r for r in trace.records if r.layer == "conv" and r.use == "stash")
    assert stem.memory_order == (0, 2, 3, 1)
    assert np.array_equal(trace.values(stem), x.permute(0, 2, 3, 1).numpy().reshape(-1))


def test_autocast_copies_of_weights_are_weights(captured):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    x = torch.randn(2, 3, 8, 8)

    def loss():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(x).float().sum()

    trace = captured(model, loss)
    copies = {r.parameter: r for r in trace.records if r.use == "weight_copy"}
    assert set(copies) == {"0.weight", "3.weight"}
    assert {(r.role, r.dtype) for r in copies.values()} == {("weight", "bfloat16")}
    assert all(r.shape != (4, 3, 3, 3) for r in trace.records if r.role == "activation")
    assert {r.dtype for r in trace.records if r.role == "activation"} == {"bfloat16"}
    reads = {op.name: op.reads[1] for op in trace.ops if op.op.macs}
    assert reads == {"0": copies["0.weight"].name, "3": copies["3.weight"].name}


def test_a_quantized_weight_is_a_weight(captured):
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx, w):
            return torch.round(w * 8) / 8

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    layer = nn.Linear(6, 4)
    x = torch.randn(3, 6, requires_grad=True)
    trace = captured(layer, lambda: F.linear(x, Round.apply(layer.weight), layer.bias).sum())
    (copy,) = [r for r in trace.records if r.use == "weight_copy"]
    assert (copy.role, copy.parameter) == ("weight", "weight")


def test_data_made_in_the_step_are_activations(captured):
    model, _ = CASES["cnn"]()
    trace = captured(model, lambda: model(torch.randn(2, 3, 8, 8)).sum())
    roles = {r.layer: r.role for r in trace.records if r.use == "stash" and r.shape[-1] == 8}
    assert roles["conv"] == roles["bn"] == "activation"


def test_checkpointing_shows_the_smaller_stash(captured):
    def case():
        torch.manual_seed(2)
        inner = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        model = nn.Sequential(nn.Linear(6, 8), inner, nn.Linear(8, 3))
        return model, torch.randn(4, 6)

    model, x = case()
    plain = captured(model, lambda: model(x).sum(), name="plain")
    model, x = case()
    small = captured(
        model,
        lambda: model[2](checkpoint(model[1], model[0](x), use_reentrant=False)).sum(),
        name="small",
    )
    stash = {
        name: sum(r.values for r in trace.records if r.use == "stash")
        for name, trace in (("plain", plain), ("small", small))
    }
    assert stash == {"plain": 4 * (6 + 8 + 16 + 16 + 8), "small": 4 * (6 + 8 + 8)}
    again = [op for op in small.ops if op.name.endswith(":recompute")]
    assert [op.name for op in again] == ["1.0:recompute"]
    gradients = {r.parameter: r for r in plain.records if r.use == "weight_gradient"}
    for r in small.records:
        if r.use == "weight_gradient":
            assert np.array_equal(small.values(r), plain.values(gradients[r.parameter]))


def test_any_sign_is_that_of_the_whole_tensor(captured):
    model = nn.Linear(1, 1)
    x = torch.rand(100, 100)
    w = torch.rand(100, 100, requires_grad=True)

    def signs(name):
        trace = captured(model, lambda: (w * x * x.bool()).sum(), sample=1024, name=name)
        r = next(r for r in trace.records if r.use == "stash" and r.dtype == "float32")
        assert r.is_sampled
        return r.any_sign, bool((np.asarray(trace.values(r)) < 0).any()), r.runs

    assert signs("positive")[0] is False
    held = {at + i for at, length in signs("again")[2] for i in range(length)}
    outside = next(i for i in range(10_000) if i not in held)
    x.view(-1)[outside] = -0.0
    assert signs("negative")[:2] == (True, False)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_a_dtype_that_a_trace_cannot_hold_is_named(tmp_path, dtype):
    model = nn.Linear(2, 2)
    z = torch.ones(3, dtype=dtype, requires_grad=True)
    capture = Capture(model, tmp_path / "t", every=1)
    with pytest.raises(InputError, match="complex"), capture.step():
        (z * z).abs().sum().backward()
    assert attached(model) == 0
