import pytest

from sfpsim.energy.model import (
    LEVELS,
    ArithmeticTable,
    CodecTable,
    DramCounts,
    DramTiming,
    IddCurrents,
    InterfaceTable,
    SramTable,
    codec_pj,
    dram_core_pj,
    dram_interface_pj_per_bit,
    load_table,
    mac_pj,
    onchip_pj,
)
from sfpsim.errors import InputError

# DRAMsim3 lpddr4_3200_x32: its device file's currents and timings.
IDD = IddCurrents(vdd=1.2, idd0=80, idd2n=34, idd3n=47, idd4r=243, idd4w=228, idd5ab=280)
TIMING = DramTiming(tck_ns=0.625, tras=68, trp=29, trfc=448, burst_cycles=8, devices=2)


# DRAMsim3 runs lpddr4_3200_x32 copy21 and seq_wr, energies in pJ.
@pytest.mark.parametrize(
    ("counts", "act", "rd", "wr", "ref"),
    [
        ((3847, 133248, 66624, 287), 20646800.0, 313399000.0, 144707000.0, 44937300.0),
        ((3763, 0, 200000, 280), 20196000.0, 0.0, 434400000.0, 43841300.0),
    ],
)
def test_commands_agree_with_dramsim3(counts, act, rd, wr, ref):
    acts, rds, wrs, refs = counts
    got = dram_core_pj(
        DramCounts(act=acts, rd=rds, wr=wrs, ref=refs, active_cycles=1000, precharge_cycles=100),
        IDD,
        TIMING,
    )
    assert got.act == pytest.approx(act, rel=1e-4)
    assert got.rd == pytest.approx(rd, rel=1e-4)
    assert got.wr == pytest.approx(wr, rel=1e-4)
    assert got.ref == pytest.approx(ref, rel=1e-4)
    assert got.active_standby == pytest.approx(1000 * 1.2 * 47 * 0.625 * 2)
    assert got.precharge_standby == pytest.approx(100 * 1.2 * 34 * 0.625 * 2)


def test_every_number_has_a_source():
    for kind in (InterfaceTable, CodecTable, SramTable, ArithmeticTable):
        table = load_table(kind)
        assert table.unit.startswith("pJ/")
        assert all(entry.source for entry in table.entries)


def test_levels_are_ordered():
    for energy in (
        lambda level: dram_interface_pj_per_bit("lpddr4", level),
        lambda level: codec_pj(10, level),
        lambda level: onchip_pj(100, 50, level, 1 << 18, 65),
        lambda level: mac_pj("bf16", level, 65),
    ):
        low, middle, high = (energy(level) for level in LEVELS)
        assert 0 < low <= middle <= high


def test_table_points_are_met():
    # CACTI rows at 65 nm and 32 KiB: 0.0298418 nJ a 256-bit read, 0.5661 pJ/byte by 64 bytes.
    assert onchip_pj(1, 0, "low", 32768, 65) == pytest.approx(0.5661)
    assert onchip_pj(1, 0, "high", 32768, 65) == pytest.approx(29.8418 / 32, rel=1e-4)
    assert mac_pj("fp32", "middle", 45) == pytest.approx(4.6)
    assert mac_pj("fp16", "low", 7) == pytest.approx(0.5)
    assert dram_interface_pj_per_bit("hbm2") == 0.8


@pytest.mark.parametrize(
    "call",
    [
        lambda: dram_interface_pj_per_bit("core", "low"),
        lambda: codec_pj(1, "median"),
        lambda: mac_pj("int8"),
        lambda: mac_pj("fp32", "low", 0),
        lambda: onchip_pj(1, 1, "low", 0),
    ],
)
def test_unknown_is_an_input_error(call):
    with pytest.raises(InputError):
        call()
