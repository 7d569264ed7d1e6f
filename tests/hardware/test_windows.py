"""Sampled windows against the whole simulation: close, and their error honest."""

from importlib import resources

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpsim.errors import InputError
from sfpsim.experiment.network import simulate_network
from sfpsim.hardware.machine import load_machine
from sfpsim.hardware.windows import choose
from sfpsim.trace.reader import open_trace


@pytest.fixture(scope="module")
def profile():
    return open_trace(resources.files("sfpsim") / "sample" / "resnet8")


def small(name):
    """A machine with a sixteenth of the buffer and of its tiles, so that steps have many."""
    chip = load_machine(name)
    size = msgspec.structs.replace(
        chip.buffer, bytes=chip.buffer.bytes // 16, tile_bytes=chip.buffer.tile_bytes // 16
    )
    return msgspec.structs.replace(chip, buffer=size)


@given(st.integers(1, 600), st.integers(2, 9), st.floats(0, 1), st.integers(0, 10**6))
def test_windows_hold_the_first_tile_the_last_and_what_lies_between(tiles, least, share, seed):
    found = choose(tiles, least, share, seed)
    assert found[0] == 0
    assert found[-1] == tiles - 1
    assert len(found) == min(tiles, max(least, round(share * tiles)))
    assert (np.diff(found) > 0).all()
    assert (np.diff(found[1:-1]) == 1).all()
    assert (choose(tiles, least, share, seed) == found).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "batch", "container", "name"),
    [
        ("dlrm_mlperf", 512, "fp32", "sfp-2024"),
        ("dlrm_mlperf", 512, "sfp:m=1,e=4", "sfp-2024"),
        ("mobilenet_v3_small", 8, "bf16", "sfp-2024"),
        ("resnet18", 1, "sfp:m=2,e=4", "sfp-2024-one-unit"),
        ("dlrm_mlperf", 512, "bf16", "sfp-2024-stripe"),
    ],
)
def test_the_error_covers_what_the_whole_simulation_says(network, batch, container, name, profile):
    def run(sample=None):
        _, found = simulate_network(
            network, [container], batch=batch, profile=profile, machine=small(name),
            detail="detailed", sample=sample,
        )  # fmt: skip
        return found.containers[0], found

    (whole, _), (part, found) = run(), run(0.02)
    exact, t = whole.totals, part.totals
    assert exact.simulated_share == 1
    assert exact.time_error_ns == 0
    assert t.simulated_share < 0.9
    assert abs(t.time_ns - exact.time_ns) <= t.time_error_ns
    assert t.time_ns == pytest.approx(exact.time_ns, rel=0.03)
    assert t.read_bytes == pytest.approx(exact.read_bytes, rel=0.002)
    assert t.write_bytes == exact.write_bytes
    assert t.energy_pj.total == pytest.approx(exact.energy_pj.total, rel=0.02)
    assert t.energy_pj.dram.act == pytest.approx(exact.energy_pj.dram.act, rel=0.1)
    assert sum(x.time_ns for x in part.layers) == pytest.approx(t.time_ns, rel=1e-6)
    assert f"{t.simulated_share:.1%} of the bursts were simulated" in " ".join(found.notes)


def test_the_same_windows_give_the_same_result(profile):
    def run():
        return simulate_network(
            "dlrm_mlperf", ["bf16", "sfp:m=1,e=4"], batch=256, profile=profile,
            machine=small("sfp-2024"), sample=0.02,
        )  # fmt: skip

    assert run() == run()


@pytest.mark.parametrize("sample", [0, -0.1, 1, 2])
def test_shares_that_cannot_be(sample, profile):
    with pytest.raises(InputError, match="a share above 0 and below 1"):
        simulate_network("alexnet", ["bf16"], batch=1, profile=profile, sample=sample)


def test_a_timeline_takes_every_burst(profile):
    with pytest.raises(InputError, match="every burst"):
        simulate_network(
            "alexnet", ["bf16"], batch=1, profile=profile, sample=0.1, timeline={}
        )  # fmt: skip
