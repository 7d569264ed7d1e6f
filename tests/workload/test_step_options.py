"""What a training step's options move: against PyTorch's own stash, and worked out by hand."""

from dataclasses import replace
from importlib import resources

import pytest

from sfpsim.experiment.network import NetworkTrace, simulate_network, stashed
from sfpsim.trace.reader import open_trace
from sfpsim.workload.imports import record_module
from sfpsim.workload.layers import FUSIONS, RECOMPUTES, STASHES, StepOptions, Weaver
from sfpsim.workload.networks import load_network

BIG = 1 << 60


@pytest.fixture(scope="module")
def profile():
    return open_trace(resources.files("sfpsim") / "sample" / "resnet8")


def cnn():
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(inplace=True),
        nn.Conv2d(8, 16, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(64, 10),
    ), (4, 3, 16, 16)  # fmt: skip


def mlp():
    from torch import nn

    return nn.Sequential(
        nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 48), nn.Sigmoid(), nn.Linear(48, 16),
        nn.Tanh(), nn.Linear(16, 24), nn.SiLU(), nn.LayerNorm(24), nn.Linear(24, 3),
    ), (6, 20)  # fmt: skip


def transformer():
    import torch
    from torch import nn

    class Block(nn.Module):
        """Attention written out, and the two-layer network behind it."""

        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(12, 32)
            self.ln1, self.ln2 = nn.LayerNorm(32), nn.LayerNorm(32)
            self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))
            self.proj, self.up, self.down = nn.Linear(32, 32), nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, x):
            x = self.embed(x)
            y = self.ln1(x)
            q, k, v = self.q(y), self.k(y), self.v(y)
            scores = torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1)
            x = x + self.proj(torch.bmm(scores, v))
            return x + self.down(nn.functional.gelu(self.up(self.ln2(x))))

    return Block(), (2, 10, 12)


def saved_by_pytorch(module, x):
    """Bytes that autograd keeps, parameters, BN and LN statistics left out."""
    import torch

    own = {p.data_ptr() for p in (*module.parameters(), *module.buffers())}
    found = {}

    def pack(t):
        if t.data_ptr() not in own and t.numel() > 32:  # statistics: a value a channel or a row
            found[t.untyped_storage().data_ptr(), t.dtype, t.numel()] = t
        return t.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        module(x).sum().backward()
    return sum(t.numel() * t.element_size() for t in found.values())


@pytest.mark.parametrize("make", [cnn, mlp, transformer])
def test_autograds_stash_is_what_pytorch_saves(make, profile):
    import torch

    torch.manual_seed(0)
    module, shape = make()
    x = torch.randn(shape)
    network = record_module(module, x)
    options = StepOptions(stash="autograd", fusion="none")
    trace = NetworkTrace(network, shape[0], profile, options=options)
    mine = {r.name: r for r in stashed(trace.plan_steps(lambda _: BIG)[0])}
    size = sum(r.values * (8 if r.dtype == "int64" else 4) for r in mine.values())
    assert size == saved_by_pytorch(module, x), {n: r.values for n, r in mine.items()}


@pytest.mark.parametrize("name", ["resnet18", "bert_base_seq128", "mobilenet_v3_small"])
def test_weaving_nothing_changes_nothing(name, profile):
    trace = NetworkTrace(load_network(name), 2, profile)
    plans = trace.plan_steps(lambda _: BIG)[0]
    before = [replace(p, reads=list(p.reads), writes=list(p.writes)) for p in plans]
    assert Weaver(trace.network, 2, StepOptions(), trace._woven).weave(plans) == before


def moved(network, profile, **options):
    trace = NetworkTrace(network, 2, profile, options=StepOptions(**options))
    plans = trace.plan_steps(lambda _: BIG)[0]
    out = {}
    for plan in plans:
        sizes = [sum(t.record.values * t.times for t in side) for side in (plan.reads, plan.writes)]
        out.setdefault((plan.layer, plan.pass_), sizes)  # a table may name a ReLU twice
    return out


def test_a_normalisation_that_is_not_fused_moves_eight_times_its_tensor(profile):
    """bn1 of ResNet18: read twice and written; backward both read twice and one written."""
    found = moved(load_network("resnet18"), profile, fusion="none", stash="autograd")
    size = 2 * 802_816
    assert found["bn1", "forward"] == [2 * size, size]
    assert found["bn1", "input_gradient"] == [4 * size, size]
    assert found["relu", "forward"] == [size, size]
    assert found["relu", "input_gradient"] == [2 * size, size]
    pooled = 2 * 200_704
    assert found["maxpool", "forward"] == [size, 2 * pooled]  # and an index of every output
    assert found["maxpool", "input_gradient"] == [2 * pooled + size, size]
    assert found["conv1", "forward"][1] == size


def test_fusing_into_the_producer_leaves_the_normalisations(profile):
    found = moved(load_network("resnet18"), profile, fusion="producer", stash="autograd")
    size, pooled = 2 * 802_816, 2 * 200_704
    assert not [key for key in found if "relu" in key[0] or "pool" in key[0]]
    # Its input once, its statistics come with it; out: ReLU's result, which autograd keeps,
    # the pooled one and its indices.
    assert found["bn1", "forward"] == [size, size + 2 * pooled]


@pytest.mark.parametrize(("optimizer", "times"), [("sgd", 3), ("momentum", 5), ("adam", 7)])
def test_the_update_moves_three_five_or_seven_times_the_parameters(optimizer, times, profile):
    network = load_network("alexnet")
    for master in (False, True):
        found = moved(network, profile, optimizer=optimizer, master=master)
        update = sum(sum(x) for (_, pass_), x in found.items() if pass_ == "update")
        assert update == (times + master) * network.parameters  # a master writes the copy too


def test_products_read_the_copy_and_the_master_is_the_optimizers(profile):
    trace = NetworkTrace(load_network("alexnet"), 1, profile, options=StepOptions(master=True))
    plans = trace.plan_steps(lambda _: BIG)[0]
    ahead = {t.record.name: t.record.role for p in plans if p.pass_ == "forward" for t in p.reads}
    assert {n for n, role in ahead.items() if role == "weight"} == {
        f"{x.name}.weight.copy" for x in trace.network.products
    }
    assert "optimizer" not in ahead.values()


@pytest.mark.parametrize("name", ["resnet18", "bert_base_seq128"])
def test_recomputation_keeps_less_and_moves_no_tensor_before_it_is_written(name, profile):
    kept = {}
    for recompute in RECOMPUTES:
        for stash in STASHES:
            for fusion in FUSIONS:
                options = StepOptions(recompute=recompute, stash=stash, fusion=fusion)
                trace = NetworkTrace(load_network(name), 2, profile, options=options)
                plans = trace.plan_steps(lambda _: BIG)[0]
                kept[recompute, stash, fusion] = sum(r.values for r in stashed(plans))
                _ordered(plans)
    for stash in STASHES:
        for fusion in FUSIONS:
            assert kept["full", stash, fusion] < 0.75 * kept["none", stash, fusion]
    assert kept["normalisation", "autograd", "full"] < 0.95 * kept["none", "autograd", "full"]


def _ordered(plans):
    """Whatever the step writes (weights and states aside) is written before it is read."""
    made = {t.record.name for p in plans for t in p.writes if p.pass_ != "update"}
    there = set()
    for plan in plans:
        for t in plan.reads:
            assert t.record.name not in made or t.record.name in there, (plan.layer, t.record.name)
        there |= {t.record.name for t in plan.writes}


def test_recomputed_blocks_compute_twice_and_hold_less_memory(profile):
    def run(recompute):
        options = StepOptions(stash="autograd", recompute=recompute)
        return simulate_network(
            "resnet18", ["bf16"], batch=2, profile=profile, options=options
        )[1].containers[0]  # fmt: skip

    once, twice = run("none"), run("full")
    assert twice.totals.peak_live_bytes < once.totals.peak_live_bytes
    again = [x for x in twice.layers if x.name.endswith(":recompute")]
    ahead = {x.name: x.macs for x in once.layers if x.pass_ == "forward"}
    assert {x.name.removesuffix(":recompute"): x.macs for x in again}.items() <= ahead.items()
    assert len(again) >= 16


def test_the_bound_lies_between_compulsory_and_operands(profile):
    result, _ = simulate_network("dlrm_mlperf", ["bf16"], batch=4, profile=profile)
    t = result.traffic
    assert t.compulsory_bytes <= t.bound_bytes <= t.operand_bytes <= t.full_bytes["full"]
    for name in ("alexnet", "gpt2_small_seq1024", "vit_b_16"):
        for buffer in (1 << 12, 1 << 17, 1 << 22):
            for o in load_network(name).operands(1):
                assert o.compulsory <= o.least(buffer) <= o.moved(buffer) * (1 + 1e-9)
