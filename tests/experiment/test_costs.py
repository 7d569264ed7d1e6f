"""The band of times at other mapping utilisations, worked out by hand."""

import pytest

from sfpsim.experiment.costs import BAND, band_of
from sfpsim.experiment.result import Limits
from sfpsim.hardware.array import compute_ps
from sfpsim.hardware.machine import load_machine

MACHINE = load_machine("sfp-2024")
MACS = 32_768 * 1000  # 1,000 cycles of 2 ns at full use


def limits(compute, dram):
    return Limits(compute=compute, dram=dram, decoder=0, encoder=0, metadata=0, dependency=0)


@pytest.mark.parametrize("share", BAND)
@pytest.mark.parametrize("dram", [100.0, 2500.0, 9000.0])
@pytest.mark.parametrize("waiting", [-50.0, 0.0, 300.0])
def test_at_the_simulated_utilisation_the_band_is_the_simulated_time(share, dram, waiting):
    compute = compute_ps(MACS, share, MACHINE.compute) / 1000
    time = max(compute, max(compute, dram) + waiting)
    band = band_of(time, limits(compute, dram), MACS, MACHINE)
    assert dict(zip(BAND, (band.u100, band.u70, band.u50), strict=True))[share] == time


def test_a_pass_that_computes_grows_and_one_that_loads_does_not():
    band = band_of(2000.0, limits(2000.0, 500.0), MACS, MACHINE)
    assert (band.u100, band.u50) == (2000.0, 4000.0)
    assert band.u70 == pytest.approx(2000 / 0.7, abs=2)
    band = band_of(9300.0, limits(2000.0, 9000.0), MACS, MACHINE)
    assert (band.u100, band.u70, band.u50) == (9300.0, 9300.0, 9300.0)
    # DRAM limits at 1.0, the array at 0.5: 300 ns of waiting stay.
    band = band_of(3300.0, limits(2000.0, 3000.0), MACS, MACHINE)
    assert (band.u100, band.u70, band.u50) == (3300.0, 3300.0, 4300.0)


def test_overlap_with_other_passes_never_makes_a_pass_shorter_than_its_computation():
    band = band_of(100.0, limits(2000.0, 500.0), MACS, MACHINE)
    assert (band.u100, band.u50) == (2000.0, 4000.0)
