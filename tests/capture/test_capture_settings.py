"""Does Capture do what its arguments say?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from sfpsim.errors import InputError  # noqa: E402
from sfpsim.trace.capture import Capture  # noqa: E402
from sfpsim.trace.reader import Segment, open_trace  # noqa: E402
from sfpsim.trace.sampling import GROUP_VALUES, RUN_VALUES, sampled_runs  # noqa: E402
from sfpsim.trace.schema import Lengths  # noqa: E402


@given(st.integers(0, 10**7), st.integers(2 * RUN_VALUES, 10**5), st.integers(0, 2**32))
def test_the_law_of_sampled_runs(values, sample, seed):
    runs = sampled_runs(values, sample, seed)
    held = sum(length for _, length in runs)
    if held == values:
        assert runs == ((0, values),) or values == held
    else:
        assert len(runs) >= 2
        assert all(length >= RUN_VALUES and length % GROUP_VALUES == 0 for _, length in runs)
        assert all(at % GROUP_VALUES == 0 for at, _ in runs)
        assert sample - RUN_VALUES < held <= sample
    ends = [at + length for at, length in runs]
    assert all(end <= at for end, (at, _) in zip(ends, runs[1:], strict=False))
    assert ends[-1] <= values
    assert runs == sampled_runs(values, sample, seed)


def test_sampled_runs_hold_the_values_at_their_places(captured):
    model = nn.Linear(300, 200)
    x = torch.randn(50, 300)
    trace = captured(model, lambda: model(x).sum(), sample=2048)
    weight = next(r for r in trace.records if r.use == "weight")
    whole = model.weight.detach().numpy().reshape(-1)
    for (at, length), run in zip(weight.runs, trace.runs(weight), strict=True):
        assert np.array_equal(run, whole[at : at + length])
    assert weight.sampled_values == 2048


def train(path, count, optimizer=torch.optim.SGD, settings=None, **options):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    settings = {"lr": 0.1} | (settings or {})
    optimizer = optimizer(model.parameters(), **settings)
    with Capture(model, path, optimizer=optimizer, **options) as capture:
        for step in range(count):
            with capture.step(epoch=step // 4):
                model(torch.randn(2, 4)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    return open_trace(path)


def test_which_steps_are_captured(tmp_path):
    assert train(tmp_path / "a", 9, every=4).steps == [0, 4, 8]
    trace = train(tmp_path / "b", 9, steps={1, 7, 100})
    assert trace.steps == [1, 7]
    assert {(r.step, r.epoch) for r in trace.records} == {(1, 0), (7, 1)}


@pytest.mark.parametrize(
    ("optimizer", "settings", "state"),
    [
        (torch.optim.SGD, {}, set()),
        (torch.optim.SGD, {"momentum": 0.9}, {"momentum_buffer"}),
        (torch.optim.Adam, {}, {"exp_avg", "exp_avg_sq"}),
        (torch.optim.AdamW, {"amsgrad": True}, {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
    ],
)
def test_the_state_of_the_optimizer(tmp_path, optimizer, settings, state):
    trace = train(tmp_path / "t", 2, optimizer, settings, every=1)
    found = [r for r in trace.records if r.use == "optimizer_state"]
    assert {r.step for r in found} <= {1}  # there is none before the first step
    assert {r.name.rpartition(".")[2] for r in found} == state
    assert len(found) == 4 * len(state)
    assert {r.role for r in found} <= {"optimizer"}
    assert trace.manifest.optimizer == optimizer.__name__


def test_lengths_in_force_are_asked_for_by_layer_and_use(tmp_path):
    asked = []

    def lengths(layer, use):
        asked.append((layer, use))
        if use == "stash" and layer == "1":
            return Lengths(mantissa_bits=4, exponent_bits=5, mantissa_bits_real=3.6)
        return None

    trace = train(tmp_path / "t", 1, every=1, lengths=lengths)
    found = {(r.layer, r.use): r.lengths for r in trace.records}
    assert set(asked) == set(found)
    assert [key for key, value in found.items() if value] == [("1", "stash")]
    assert found["1", "stash"] == Lengths(mantissa_bits=4, exponent_bits=5, mantissa_bits_real=3.6)


@pytest.mark.parametrize("wrong", [{"every": 0}, {"sample": 1023}, {"sample": 0}])
def test_an_argument_out_of_range_is_refused(tmp_path, wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=name):
        Capture(nn.Linear(2, 2), tmp_path / "t", **wrong)
    assert not (tmp_path / "t").exists()


def captured_epochs(folder, epochs, **settings):
    torch.manual_seed(0)
    model = nn.Linear(40, 30)
    with Capture(model, folder, every=1, **settings) as capture:
        for epoch in epochs:
            with capture.step(epoch=epoch):
                model(torch.full((2, 40), float(epoch))).sum().backward()
            model.zero_grad()
    return capture


def test_a_stopped_capture_goes_on(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    captured_epochs(whole, (0, 1, 2))
    captured_epochs(parts, (0,), append=True)
    (parts / "index.jsonl").write_bytes((parts / "index.jsonl").read_bytes()[:-20])  # torn
    capture = captured_epochs(parts, (1, 2), append=True)
    assert capture.epochs == {0, 1, 2}
    assert capture.count == 3
    expected, found = open_trace(whole), open_trace(parts)
    found.verify()
    assert found.records == expected.records
    assert found.ops == expected.ops
    last = Segment(sorted(parts.glob("segment-*"))[-1])
    assert last.totals() == [len(found.records), len(found.ops)]  # what tells a torn index
    assert len((parts / "index.jsonl").read_bytes().splitlines()) == len(expected.records)
    for mine, other in zip(found.records, expected.records, strict=True):
        assert np.array_equal(found.values(mine), expected.values(other))
    last = found.at_step(2)
    assert last.steps == [2]
    assert {op.step for op in last.ops} == {2}
    with pytest.raises(InputError, match="step 3 is not in the trace, only 0, 1, 2"):
        found.at_step(3)


def test_a_trace_of_another_training_is_not_appended_to(tmp_path):
    captured_epochs(tmp_path / "trace", (0,), seed=1)
    before = sorted(p.name for p in (tmp_path / "trace").iterdir())
    with pytest.raises(InputError, match="differs in seed, batch_size; nothing is appended"):
        captured_epochs(tmp_path / "trace", (1,), seed=2, batch_size=4, append=True)
    assert sorted(p.name for p in (tmp_path / "trace").iterdir()) == before
    (tmp_path / "manifest.json").write_text('{"name": "of something else"}')
    with pytest.raises(InputError, match=r"manifest\.json"):
        captured_epochs(tmp_path, (0,), append=True)
    assert "something else" in (tmp_path / "manifest.json").read_text()


def test_a_capture_killed_before_its_first_step_begins_again(tmp_path):
    Capture(nn.Linear(4, 3), tmp_path)
    (tmp_path / ".tmp-segment-00000.safetensors").write_bytes(b"half")
    captured_epochs(tmp_path, (0,), append=True)
    assert open_trace(tmp_path).steps == [0]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        captured_epochs(tmp_path / "other", (0,), append=True)


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "x").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        Capture(nn.Linear(2, 2), tmp_path)


def test_the_sparse_gradient_of_an_embedding_is_its_rows(captured):
    model = nn.Embedding(50, 4, sparse=True)
    trace = captured(model, lambda: model(torch.tensor([3, 7, 9])).sum())
    (gradient,) = [r for r in trace.records if r.use == "weight_gradient"]
    assert gradient.shape == (3, 4)
