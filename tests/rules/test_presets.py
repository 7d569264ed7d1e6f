"""The devices in the package: what their names say, and numbers that can be."""

import msgspec
import pytest

from sfpsim.energy.model import DramCounts, dram_core_pj, dram_interface_pj_per_bit
from sfpsim.hardware.dram.device import load_device, presets
from sfpsim.testing.rules import intervals

DEVICES = [load_device(name) for name in presets()]
# Transfers a second, millions; those of HBM and GDDR6 are in the name as they are.
NEEDED = {
    "ddr4-2400", "ddr4-3200", "ddr5-4800", "ddr5-6400", "lpddr4-3200", "lpddr4-4266",
    "lpddr5-6400", "lpddr5x-8533", "hbm2-2000", "hbm2e-3600", "hbm3-6400", "gddr6-14000",
}  # fmt: skip
# ns: row cycle and refresh interval of each kind, wide enough for every speed and size.
RANGES = {
    "ddr4": ((44, 48), 7800), "ddr5": ((48, 50), 3900), "lpddr4": ((60, 62), 3904),
    "lpddr5": ((60, 62), 3906), "lpddr5x": ((60, 62), 3906), "hbm2": ((42, 50), 3900),
    "hbm2e": ((42, 50), 3900), "hbm3": ((42, 50), 3900), "gddr6": ((42, 50), 1905),
}  # fmt: skip

every = pytest.mark.parametrize("device", DEVICES, ids=lambda d: d.name)


def test_every_standard_is_there():
    assert {d.name.rpartition("-")[0] for d in DEVICES} == NEEDED


@every
def test_the_name_says_the_peak(device):
    kind, rate, width = device.name.split("-")
    assert device.kind == kind
    assert device.bus_bits == int(width[1:])
    assert device.peak_gbps == pytest.approx(int(rate) * device.bus_bits / 8000, rel=1e-3)
    assert f"{device.peak_gbps:.1f} GB/s" in device.summary


@every
def test_what_is_recalled_or_derived_says_so(device):
    assert len(device.source) > 40
    assert device.controller.source.startswith("a choice")


@every
def test_times_are_those_of_the_standard(device):
    (least, most), refresh = RANGES[device.kind]
    period = device.tck_ps / device.tck_den / 1000
    assert least <= (device.tras + device.trp) * period <= most
    assert device.trefi * period == pytest.approx(refresh, rel=2e-3)
    assert device.trtw + device.cwl >= device.cl + device.burst_cycles
    assert 2 * device.tfaw >= device.trrd_s * 4
    assert {r.name for r in intervals(device)} >= {"tRCD", "tFAW", "tWTR_L", "tRFC"}


@every
def test_energy_is_positive_and_of_the_right_size(device):
    counts = DramCounts(act=1, rd=1, wr=1, ref=1, active_cycles=1, precharge_cycles=1)
    energy = dram_core_pj(counts, device.currents, device.energy_timing)
    bits = device.access_bytes * 8
    assert 0.5 < energy.rd / bits < 12
    assert 0.5 < energy.wr / bits < 12
    assert 0.3 < energy.act / device.row_bytes < 3
    assert energy.ref > energy.act
    assert energy.active_standby > energy.precharge_standby > 0
    assert 0 < dram_interface_pj_per_bit(device.kind) < 20


@every
def test_a_rank_can_sleep(device):
    """Low-power timings and currents are there, so that a controller may ask for them."""
    controller = msgspec.structs.replace(device.controller, power_down=100, self_refresh=1000)
    asleep = msgspec.structs.replace(device, controller=controller)
    assert asleep.sleeps
    assert not device.sleeps
    assert 0 < device.idd.idd6 < device.idd.idd3n
    assert device.idd.idd2p < device.idd.idd2n
    assert device.txs >= device.trfc
