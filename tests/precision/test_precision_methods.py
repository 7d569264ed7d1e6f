"""Methods on small models: what is stashed, schedules, checkpoints, watching, bad use."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from sfpsim.containers.registry import parse_container  # noqa: E402
from sfpsim.errors import InputError  # noqa: E402
from sfpsim.precision import (  # noqa: E402
    LSQ,
    BitChop,
    BitPruning,
    BitWave,
    Emulation,
    QuantumFloat,
    QuantumInteger,
    profiled_lengths,
)
from sfpsim.precision.arithmetic import exponent_range, quantized  # noqa: E402
from sfpsim.precision.watching import MOST_LIMIT  # noqa: E402
from sfpsim.trace.capture import Capture  # noqa: E402
from sfpsim.trace.reader import open_trace  # noqa: E402
from sfpsim.trace.sampling import to_numpy  # noqa: E402


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 36, 5)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        return self.fc(x.flatten(1))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(9, 8)
        self.qkv = nn.Linear(8, 24)
        self.ln = nn.LayerNorm(8)

    def forward(self, tokens):
        q, k, v = self.qkv(self.ln(self.token(tokens))).chunk(3, -1)
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v


def make(model=None, lr=0.1):
    model = model or Small()
    return model, torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def batch(seed=0):
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(6, 1, 6, 6, generator=chance), torch.randint(5, (6,), generator=chance)


def step(model, optimizer, method, seed=0):
    x, y = batch(seed)
    loss = method.loss(nn.functional.cross_entropy(model(x), y))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def stash_of(model, x):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        model(x)
    return saved


def test_what_is_stashed_is_the_quantized_value():
    model, optimizer = make()
    method = QuantumFloat(model, optimizer, initial_mantissa_bits=2)
    x, _ = batch()
    stashed = stash_of(model, x)
    inputs = [t for t in stashed if t.shape == x.shape]
    assert inputs
    assert all(torch.equal(t, quantized(x, 2, None)) for t in inputs)
    weights = [t for t in stashed if t.shape == model.conv.weight.shape]
    assert all(torch.equal(t, quantized(model.conv.weight, 2, None)) for t in weights)
    flat = [t for t in stashed if t.shape == (6, 144)]
    assert flat
    assert all(torch.equal(t, quantized(t, 2, None)) for t in flat)
    method.detach()


def test_attaching_changes_neither_parameters_nor_state_dict_and_detaching_all():
    model, optimizer = make()
    names, keys = [n for n, _ in model.named_parameters()], list(model.state_dict())
    x, _ = batch()
    before = model(x).detach()
    method = QuantumFloat(model, optimizer, initial_mantissa_bits=0)
    assert not torch.equal(model(x), before)
    assert [n for n, _ in model.named_parameters()] == names
    assert list(model.state_dict()) == keys
    method.detach()
    assert len(optimizer.param_groups) == 1
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    model.bn.reset_running_stats()
    assert torch.equal(model(x).detach(), before)
    QuantumFloat(model, optimizer).detach()


def test_an_exception_in_the_forward_pass_leaves_the_model_whole():
    model, optimizer = make()
    method = QuantumFloat(model, optimizer, initial_mantissa_bits=1)
    weight = model.conv.weight
    with pytest.raises(RuntimeError):
        model(torch.randn(6, 3, 6, 6))
    assert model.conv.weight is weight
    assert step(model, optimizer, method) > 0


def test_lengths_of_another_training_are_kept():
    model, optimizer = make()
    given = {"conv.weight": (2.1, 3.0), "conv.input": (0, 1), "fc.input": (40, 8)}
    method = QuantumFloat(model, optimizer, lengths=given)
    x, y = batch()
    for number in range(2):
        method.epoch(number)
        optimizer.param_groups[0]["lr"] = 0.01
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        assert method.loss(loss) is loss
        loss.backward()
        optimizer.step()
    kept = {k: (float(t.mantissa), float(t.exponent)) for k, t in method.tensors.items()}
    assert kept["conv.weight"] == (3, 3)
    assert kept["conv.input"] == (0, 1)
    assert kept["fc.input"] == kept["fc.weight"] == (23, 8)  # no more than the type has
    method.detach()
    for wrong, said in (
        ({"cnv.weight": (1, 1)}, "Small has no such layer"),
        ({"conv.weight": (1, 9)}, "exponents of 1 to 8"),
    ):
        with pytest.raises(InputError, match=said):
            QuantumFloat(model, optimizer, lengths=wrong)


@pytest.mark.parametrize(("again", "learned"), [(None, "LLFLLF"), (1, "LLFLFF"), (0, "LLFFFF")])
def test_for_how_long_lengths_are_learned_again(again, learned):
    model, optimizer = make()
    method = QuantumFloat(model, optimizer, learn_epochs=2, relearn_epochs=again)
    found = ""
    for number in range(6):
        optimizer.param_groups[0]["lr"] = 0.1 if number < 3 else 0.01
        method.epoch(number)
        found += "F" if method.frozen else "L"
    assert found == learned


def test_lengths_shrink_are_frozen_and_learned_again():
    model, optimizer = make(lr=0.05)
    method = QuantumFloat(model, optimizer, gamma=2.0, learn_epochs=2, length_lr=1.0)
    for number in range(3):
        method.epoch(number)
        for seed in range(6):
            step(model, optimizer, method, seed)
    assert method.frozen
    bits = method.mean_bits()
    assert bits["mantissa"] < 20
    assert bits["exponent"] < 8
    assert all(float(t.mantissa.detach()).is_integer() for t in method.tensors.values())
    held = dict(bits)
    step(model, optimizer, method)
    assert method.mean_bits() == held
    optimizer.param_groups[0]["lr"] = 0.01
    method.epoch(3)
    assert not method.frozen
    step(model, optimizer, method)
    assert method.mean_bits() != held
    found = method.lengths("conv.input")
    assert found.mantissa_bits >= found.mantissa_bits_real


def test_bitwave_stays_above_its_least():
    model, _ = make()
    method = BitWave(model, history=2, least_mantissa_bits=2, least_limit=6)
    for number in range(200):
        method.watch(300.0 - number)
    assert (method.mantissa_bits, method.limit) == (2, 6)
    method.detach()
    for wrong in ({"least_mantissa_bits": 24}, {"least_limit": 0}):
        with pytest.raises(InputError, match="must be"):
            BitWave(model, **wrong)


def test_lengths_stay_in_their_range_and_clips_are_counted():
    model, optimizer = make()
    method = QuantumFloat(model, optimizer, gamma=500.0, length_lr=50.0)
    for seed in range(4):
        step(model, optimizer, method, seed)
    assert method.clipped > 0
    for t in method.tensors.values():
        assert 0 <= float(t.mantissa.detach()) <= 23
        assert 1 <= float(t.exponent.detach()) <= 8


RESTARTED = {
    "quantum": lambda m, o: QuantumFloat(m, o, gamma=1.0, length_lr=0.5, seed=4),
    "quantum-integer": lambda m, o: QuantumInteger(m, o, gamma=1.0, length_lr=0.5, seed=4),
    "bitwave": lambda m, o: BitWave(m, history=2),
    "bitchop": lambda m, o: BitChop(m),
    "bitpruning": lambda m, o: BitPruning(m, o, gamma=1.0, length_lr=0.5),
    "one length": lambda m, o: BitPruning(m, o, gamma=1.0, length_lr=0.5, grain="network"),
    "channels": lambda m, o: BitPruning(m, o, gamma=1.0, length_lr=0.5, grain="channel"),
    "lsq": lambda m, o: LSQ(m, o, bits=3),
    "emulation": lambda m, o: Emulation(m, "fp16"),
}


@pytest.mark.parametrize("name", RESTARTED)
def test_a_restart_from_a_checkpoint_gives_the_same_training(name):
    def fresh():
        torch.manual_seed(3)
        model, optimizer = make(lr=0.05)
        return model, optimizer, RESTARTED[name](model, optimizer)

    model, optimizer, method = fresh()
    for seed in range(3):
        step(model, optimizer, method, seed)
    states = [x.state_dict() for x in (model, optimizer, method)]
    saved = copy.deepcopy(states)
    straight = [step(model, optimizer, method, seed) for seed in range(3, 6)]
    model, optimizer, method = fresh()
    for part, state in zip((method, model, optimizer), (saved[2], saved[0], saved[1]), strict=True):
        part.load_state_dict(state)
    again = [step(model, optimizer, method, seed) for seed in range(3, 6)]
    assert again == straight
    with pytest.raises(InputError, match="another"):
        method.load_state_dict({"method": "another"})


def test_attention_products_and_embeddings_have_lengths():
    model, optimizer = make(Attending())
    method = QuantumFloat(model, optimizer, initial_mantissa_bits=3)
    model(torch.arange(6).reshape(2, 3)).sum().backward()
    assert {"token.weight", "qkv.input", "qkv.weight", "ln.input", "ln.weight"} <= set(
        method.tensors
    )
    products = [key for key in method.tensors if ":" in key]
    assert products == [":matmul.first", ":matmul.second", ":matmul2.first", ":matmul2.second"]
    assert all(p.grad is not None for p in model.parameters())


def test_autocast_and_accumulation():
    model, optimizer = make()
    method = QuantumFloat(model, optimizer, gamma=1.0)
    for seed in range(2):
        x, y = batch(seed)
        with torch.autocast("cpu", torch.bfloat16):
            loss = method.loss(nn.functional.cross_entropy(model(x), y))
        loss.backward()
    optimizer.step()
    assert method.tensors["conv.weight"].mantissa.grad is not None


def test_evaluation_uses_lengths_rounded_up_and_draws_nothing():
    model, optimizer = make()
    method = QuantumFloat(model, optimizer, initial_mantissa_bits=3)
    model(batch()[0])
    for t in method.tensors.values():
        t.mantissa.data.fill_(1.5)
    model.eval()
    first = model(batch()[0])
    assert torch.equal(first, model(batch()[0]))
    assert method.tensors["conv.input"].drawn == (2, 8)


def test_bitwave_follows_the_slope_of_a_hand_made_loss_curve():
    model, _ = make()
    method = BitWave(model, history=4, threshold=0.01, mantissa_bits=10)
    loss = torch.tensor
    for value in (4.0, 3.0, 2.0):
        method.loss(loss(value))
    assert (method.mantissa_bits, method.limit) == (10, MOST_LIMIT)
    for _ in range(2):
        method.loss(loss(1.0))
    assert (method.mantissa_bits, method.limit) == (8, 124)
    for _ in range(3):
        method.loss(loss(1.0))
    assert (method.mantissa_bits, method.limit) == (7, 123)  # 2 1 1 1 falls, then it holds
    for value in (2.0, 3.0):
        method.loss(loss(value))
    assert (method.mantissa_bits, method.limit) == (9, 125)
    method.freeze()
    assert method.mantissa_bits == -(-sum(m for m, _ in method.history) // len(method.history))
    method.loss(loss(9.0))
    assert method.frozen


def test_bitchop_compares_with_its_average_and_band():
    model, _ = make()
    method = BitChop(model, weight=0.5, mantissa_bits=7, full_batches=2)
    found = []
    for value in (4.0, 2.0, 2.9, 9.0, 0.0):
        method.loss(torch.tensor(value))
        found.append(method.mantissa_bits)
    # averages 4, 3, 2.95, 5.975: -2 below band 0; -0.1 within 1; +6.05 above .55; below
    assert found == [7, 6, 6, 7, 6]
    method.learning_rate_changed()
    method.loss(torch.tensor(0.0))
    assert method.mantissa_bits == 7


@pytest.mark.parametrize("grain", ["network", "layer", "channel", "group"])
def test_bitpruning_learns_and_rounds(grain):
    model, optimizer = make(lr=0.02)
    method = BitPruning(
        model, optimizer, grain=grain, gamma=1.0, length_lr=0.5, group_channels=3
    )  # fmt: skip
    sizes = {"channel": (4, 5), "group": (2, 5)}  # 4 channels in groups of 2, 5 alone
    assert (method.bits["conv.weight"].numel(), method.bits["fc.weight"].numel()) == sizes.get(
        grain, (1, 1)
    )
    for seed in range(6):
        step(model, optimizer, method, seed)
    assert method.mean_bits()["bits"] < 8
    assert len({id(p) for p in method.bits.values()}) == (
        1 if grain == "network" else len(method.bits)
    )
    method.freeze()
    assert all(bool((p == p.ceil()).all()) for p in method.bits.values())
    held = method.mean_bits()
    step(model, optimizer, method)
    assert method.mean_bits() == held
    assert sum(method.shares().values()) == pytest.approx(1.0)


@pytest.mark.parametrize("weighting", ["memory", "operations"])
def test_bitpruning_weights_by_what_is_asked(weighting):
    model, optimizer = make()
    method = BitPruning(model, optimizer, weighting=weighting)
    model(batch()[0])
    shares = method.shares()
    if weighting == "memory":
        assert shares["conv.input"] / shares["fc.weight"] == pytest.approx(6 * 36 / 720)
    else:
        assert shares["conv.weight"] == shares["conv.input"]
        assert shares["conv.weight"] / shares["fc.weight"] == pytest.approx(
            6 * 36 * 4 * 9 / (6 * 720)
        )
        assert shares["bn.weight"] == 0


@pytest.mark.parametrize("spec", ["bf16", "fp16", "gecko-bias", "sfp:m=2,e=4", "sfp:m=3"])
def test_any_container_is_emulated(spec):
    model, optimizer = make()
    method = Emulation(model, spec)
    x, _ = batch()
    container = parse_container(spec)
    stashed = [t for t in stash_of(model, x) if t.shape == x.shape]
    assert stashed
    assert all(to_numpy(t).tobytes() == container.quantize(to_numpy(x)).tobytes() for t in stashed)
    assert step(model, optimizer, method) > 0


def test_bad_use_is_said_clearly():
    model, optimizer = make()
    method = QuantumFloat(model, optimizer)
    with pytest.raises(InputError, match="attached already"):
        BitWave(model)
    with pytest.raises(InputError, match="diverged"):
        method.loss(torch.tensor(float("nan")))
    with pytest.raises(InputError, match="no layer"):
        BitWave(nn.ReLU())
    method.detach()
    for make_it, match in (
        (lambda: QuantumFloat(model, optimizer, mantissa=False, exponent=False), "neither"),
        (lambda: QuantumFloat(model, optimizer, gradient="other"), "other"),
        (lambda: BitPruning(model, optimizer, grain="row"), "row"),
        (lambda: BitPruning(model, optimizer, initial_bits=0), "initial_bits"),
        (lambda: BitPruning(model, optimizer, group_channels=0), "group_channels"),
        (lambda: BitPruning(model, optimizer, bits={"fc.weight": 17}), "from 1 to 16"),
        (lambda: QuantumInteger(model, optimizer, grain="channel"), "allowed are network, layer"),
        (lambda: LSQ(model, optimizer, bits=1), "allowed are 2 to 8"),
        (lambda: profiled_lengths(model, lambda: 1.0, tolerance=-1), "tolerance=-1"),
        (lambda: BitWave(model, history=1), "history"),
        (lambda: BitChop(model, weight=0.0), "weight"),
        (lambda: Emulation(model, "sfp"), "trace"),
        (lambda: Emulation(model, "fp33"), "fp33"),
    ):
        with pytest.raises(InputError, match=match):
            make_it()
    with pytest.raises(InputError, match="nothing was trained"):
        BitWave(model).freeze()


def test_quantum_integers_shrink_and_are_rounded_up():
    model, optimizer = make(lr=0.02)
    method = QuantumInteger(model, optimizer, gamma=1.0, length_lr=0.5)
    for seed in range(6):
        step(model, optimizer, method, seed)
    assert method.mean_bits()["memory"] < 8
    shares = method.shares()
    assert shares["conv.input"] / shares["fc.weight"] == pytest.approx(6 * 36 / 720)
    n = method.bits["conv.weight"]
    n.data.fill_(2.25)
    weight = model.conv.weight.detach()
    counts = {2: 0, 3: 0}
    for _ in range(400):
        method.new_batch()
        out = method.quantize(weight, "conv.weight")
        counts[2 if len(set(out.reshape(-1).tolist())) <= 4 else 3] += 1
    assert counts[3] / 400 == pytest.approx(0.25, abs=0.08)
    model.eval()
    method.new_batch()
    assert 4 < len(set(method.quantize(weight, "conv.weight").reshape(-1).tolist())) <= 8
    method.freeze()
    assert float(n.detach()) == 3.0


def test_lsq_learns_steps():
    torch.manual_seed(1)
    model, optimizer = make(lr=0.02)
    method = LSQ(model, optimizer, bits=3)
    losses = [step(model, optimizer, method) for _ in range(40)]
    assert losses[-1] < losses[0] / 2
    assert method.signed["conv.weight"]
    assert not method.signed["fc.input"]
    out = method.quantize(model.conv.weight, "conv.weight")
    scaled = out / method.steps["conv.weight"]
    assert torch.allclose(scaled, scaled.round(), atol=1e-5)
    assert -4 <= float(scaled.detach().min()) <= float(scaled.detach().max()) <= 3
    assert method.mean_bits()["bits"] == 3
    begun = LSQ(make(copy.deepcopy(Small()))[0], make()[1], bits=8)
    x = torch.rand(50)
    begun.quantize(x, "x")
    assert float(begun.steps["x"].detach()) == pytest.approx(2 * float(x.mean()) / 255**0.5)


def test_lsq_steps_stay_above_zero():
    model, optimizer = make(lr=1e6)
    method = LSQ(model, optimizer, bits=3)
    step(model, optimizer, method)
    assert all(float(p.detach()) > 0 for p in method.steps.values())


def test_profiled_lengths_keep_the_score_and_leave_the_model():
    torch.manual_seed(2)
    model, optimizer = make(lr=0.05)
    x, y = batch()
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()

    def score():
        with torch.no_grad():
            return 100 * float((model(x).argmax(1) == y).float().mean())

    before, whole = copy.deepcopy(model.state_dict()), score()
    lengths = profiled_lengths(model, score, tolerance=0.0)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(),
                                                 strict=True))  # fmt: skip
    assert set(lengths) == {f"{n}.{u}" for n in ("conv", "bn", "fc") for u in ("weight", "input")}
    assert min(lengths.values()) < 8
    method = BitPruning(model, optimizer, learn=False, bits=lengths)
    assert score() >= whole
    assert method.mean_bits()["bits"] == pytest.approx(sum(lengths.values()) / len(lengths))


def test_profiled_lengths_of_a_score_that_needs_every_bit():
    """All together grow where each alone could be short."""
    model, _ = make()
    model.eval()
    x, _ = batch()
    exact = model(x).detach()

    def score():
        with torch.no_grad():
            return -float((model(x) - exact).abs().max())

    loose = profiled_lengths(model, score, tolerance=1.0)
    tight = profiled_lengths(model, score, tolerance=1e-3, most_bits=12)
    assert sum(tight.values()) > sum(loose.values())


class Nested(nn.Module):
    """A block whose last operation is its module's output, and its model's next input."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.blocks(x))


@pytest.mark.parametrize("name", ["quantum", "bitwave", "emulation", "bitpruning"])
def test_a_capture_has_the_lengths_of_every_stashed_tensor(tmp_path, name):
    """What a consumer quantizes has its lengths, what nothing quantizes is whole."""
    model, optimizer = make(Nested())
    method = {**RESTARTED, "emulation": lambda m, o: Emulation(m, "sfp:m=2,e=5")}[name](
        model, optimizer
    )
    with Capture(model, tmp_path) as capture, capture.step():
        nn.functional.cross_entropy(model(torch.randn(3, 6)), torch.arange(3)).backward()
    records = open_trace(tmp_path).records
    (relu,) = (r for r in records if r.use == "stash" and "blocks.0.1" in r.users)
    assert relu.users == ("blocks.0.1", "fc")
    assert relu.lengths == method.lengths("fc.input")
    (weight,) = (r for r in records if r.parameter == "fc.weight" and r.use == "weight")
    assert weight.lengths == method.lengths("fc.weight")
    (whole,) = (r for r in records if r.role == "activation" and r.users == ("",))  # the loss's
    if name == "bitpruning":
        assert relu.lengths is whole.lengths is None
    else:
        assert relu.lengths is not None
        assert (whole.lengths.mantissa_bits, whole.lengths.exponent_bits) == (None, 8)


def test_operands_of_products_have_their_own_lengths(tmp_path):
    model, optimizer = make(Attending())
    given = {
        "token.weight": (3, 5), ":matmul.first": (1, 6), ":matmul.second": (2, 7),
        ":matmul2.first": (4, 4),
    }  # fmt: skip
    QuantumFloat(model, optimizer, lengths=given)
    with Capture(model, tmp_path) as capture, capture.step():
        model(torch.tensor([[1, 2, 3]])).sum().backward()
    records = {r.name: r for r in open_trace(tmp_path).records}
    products = [op for op in open_trace(tmp_path).ops if op.op.kind == "matmul"]

    def lengths(name):
        found = records[name].lengths
        return found.mantissa_bits, found.exponent_bits

    assert [[lengths(name) for name in op.reads] for op in products] == [
        [(1, 6), (2, 7)], [(4, 4), (23, 8)],
    ]  # fmt: skip
    assert lengths("step0.weight.token.weight") == (3, 5)  # never stashed, but quantized


def test_copies_in_the_type_of_autocast_have_the_lengths_of_what_they_copy(tmp_path):
    model, optimizer = make(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 5)))
    QuantumFloat(model, optimizer, lengths={"1.weight": (3, 5), "1.input": (2, 4)})
    with Capture(model, tmp_path) as capture, capture.step(), torch.autocast("cpu", torch.bfloat16):
        nn.functional.cross_entropy(model(torch.randn(3, 6)), torch.arange(3)).backward()
    cast = {r.use: r.lengths for r in open_trace(tmp_path).records
            if r.dtype == "bfloat16" and r.layer == "1" and r.pass_ == "forward"}  # fmt: skip
    assert (cast["weight_copy"].mantissa_bits, cast["weight_copy"].exponent_bits) == (3, 5)
    assert (cast["stash"].mantissa_bits, cast["stash"].exponent_bits) == (2, 4)


def test_a_method_inside_the_captured_model_is_found(tmp_path):
    inner = Small()
    QuantumFloat(inner, make(inner)[1], lengths={"conv.weight": (1, 5)})
    model = nn.Sequential(inner, nn.Linear(5, 5))
    with Capture(model, tmp_path) as capture, capture.step():
        model(batch()[0]).sum().backward()
    (weight,) = (r for r in open_trace(tmp_path).records if r.name.endswith("0.conv.weight")
                 and r.use == "weight")  # fmt: skip
    assert (weight.lengths.mantissa_bits, weight.lengths.exponent_bits) == (1, 5)


class Pooled(nn.Module):
    """Every kind of storing: a weight, a stash shared by two functions, a pooled one."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = self.pool(self.relu(self.bn(self.conv1(x))))
        return self.fc(torch.relu(self.conv2(x)).mean((2, 3)))


def captured(tmp_path, method_of):
    torch.manual_seed(0)
    model, optimizer = make(Pooled())
    method = method_of(model, optimizer)
    x, y = batch()
    with Capture(model, tmp_path) as capture, capture.step():
        nn.functional.cross_entropy(model(x), y).backward()
    return method, open_trace(tmp_path)


@pytest.mark.parametrize(
    "method_of",
    [
        lambda m, o: QuantumFloat(m, o, lengths={"conv2.input": (2, 4), "conv1.weight": (1, 5)}),
        lambda m, o: BitPruning(m, o),
        lambda m, o: QuantumInteger(m, o),
        lambda m, o: LSQ(m, o),
        lambda m, o: Emulation(m, "bf16"),
        lambda m, o: BitWave(m),
    ],
    ids=["quantum", "bitpruning", "quantum-integer", "lsq", "emulation", "bitwave"],
)
def test_a_capture_has_the_tensors_that_are_there_without_a_method(tmp_path, method_of):
    """A value and its quantized form are one tensor, made by the layer that made the value."""
    _, plain = captured(tmp_path / "plain", lambda m, o: None)
    method, trace = captured(tmp_path / "method", method_of)

    def kinds(records):
        return sorted(
            (r.use, r.role, r.shape, r.parameter or "", r.producer or "", bool(r.order), r.users)
            for r in records
        )

    assert kinds(trace.records) == kinds(plain.records)
    assert [(op.name, len(op.reads), len(op.saves)) for op in trace.ops] == [
        (op.name, len(op.reads), len(op.saves)) for op in plain.ops
    ]
    assert not trace.incomplete_steps
    if isinstance(method, QuantumFloat):
        weight = next(r for r in trace.records if r.parameter == "conv1.weight")
        assert (weight.lengths.mantissa_bits, weight.lengths.exponent_bits) == (1, 5)
        stash = next(r for r in trace.records if r.producer == "pool" and "conv2" in r.users)
        assert (stash.lengths.mantissa_bits, stash.lengths.exponent_bits) == (2, 4)
        kept = torch.from_numpy(trace.values(stash).copy())
        assert torch.equal(kept, quantized(kept, 2, exponent_range(4)))
        for record in trace.records:
            if record.role in ("gradient", "optimizer") or record.use == "bias":
                assert record.lengths.mantissa_bits is None
    assert method.witness is None
