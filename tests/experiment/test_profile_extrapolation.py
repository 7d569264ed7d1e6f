"""A sampled step against the whole of the same step: sizes, time, and an honest error."""

import msgspec
import numpy as np
import pytest

from sfpsim.containers.registry import parse_container
from sfpsim.containers.sampled import store
from sfpsim.experiment.compare import replay
from sfpsim.trace.reader import open_trace
from sfpsim.trace.sampling import sampled_runs

CONTAINERS = ("gecko-bias", "gecko-delta", "sfp:m=3,exponent=gecko-bias")
SAMPLE = 16_384  # values of a tensor: 32 runs
RESAMPLES = 200


class Resampled:
    """A trace of which only runs are held, drawn as a capture draws them."""

    ordered = True

    def __init__(self, whole, seed):
        self.whole, self.ops, self.manifest = whole, whole.ops, whole.manifest
        self.label, self.path, self.incomplete_steps = "resampled", "resampled", []
        self.records = [
            msgspec.structs.replace(r, runs=sampled_runs(r.values, SAMPLE, seed * 1000 + i))
            for i, r in enumerate(whole.records)
        ]
        self.sources = {r.name: r for r in whole.records}
        self.steps = whole.steps

    def runs(self, record):
        x = np.asarray(self.whole.values(self.sources[record.name])).reshape(-1)
        return [x[begin : begin + count] for begin, count in record.runs]

    def values(self, record):
        return np.concatenate(self.runs(record))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A step of a small network in training, every value of it."""
    import torch
    from torch import nn

    import sfpsim

    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    path = tmp_path_factory.mktemp("whole") / "whole.trace"
    with sfpsim.Capture(model, path, every=12, optimizer=optimizer) as capture:
        for _ in range(13):
            labels = torch.randint(0, 10, (32,))
            waves = torch.linspace(0, 6, 32)[None, :] * (1 + labels[:, None])
            x = torch.sin(waves)[:, None, :, None] + 0.3 * torch.randn(32, 3, 32, 32)
            with capture.step():
                nn.functional.cross_entropy(model(x), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
    trace = open_trace(path)
    last = trace.steps[-1]
    trace.records = [r for r in trace.records if r.step == last]
    trace.ops = [op for op in trace.ops if op.step == last]
    return trace


@pytest.mark.parametrize("container", CONTAINERS)
def test_footprint_and_time_are_those_of_the_whole_step(whole, container):
    true = replay(whole, container).containers[0].totals
    found = replay(Resampled(whole, 1), container).containers[0].totals
    assert true.total_bits_se == 0
    assert found.total_bits_se > 0
    assert found.total_bits == pytest.approx(true.total_bits, rel=0.01)
    assert found.time_ns == pytest.approx(true.time_ns, rel=0.02)
    assert found.read_bytes == pytest.approx(true.read_bytes, rel=0.01)


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_standard_error_covers_the_truth_in_95_of_100_resamples(whole, container):
    """Two standard errors of the sum over a step's tensors, as the result carries it."""
    form = parse_container(container)
    learned = [r for r in whole.records if r.role == "activation" and r.values > 2 * SAMPLE]
    assert len(learned) >= 6
    values = {r.name: np.asarray(whole.values(r)).reshape(-1) for r in learned}
    truth = sum(
        store(form, [x], full_values=x.size, signed=None).sizes.total_bits for x in values.values()
    )
    covered = 0
    for seed in range(RESAMPLES):
        estimate, variance = 0, 0.0
        for i, r in enumerate(learned):
            runs = [
                values[r.name][begin : begin + count]
                for begin, count in sampled_runs(r.values, SAMPLE, 7919 * seed + i)
            ]
            found = store(form, runs, full_values=r.values, signed=r.any_sign)
            estimate += found.sizes.total_bits
            variance += found.total_bits_se**2
        covered += abs(estimate - truth) <= 2 * variance**0.5
    assert covered >= 0.95 * RESAMPLES
