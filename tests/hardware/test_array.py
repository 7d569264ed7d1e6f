"""Cycles of the compute arrays: SCALE-Sim's published run, and arrays stepped through."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfpsim.errors import InputError
from sfpsim.hardware.array import peak_macs, utilisation, work_of
from sfpsim.hardware.machine import load_machine

SCALE_SIM = {  # ResNet-18, its own table (no padding), 32 x 32, weight stationary
    "conv1": ((110 * 110, 64, 3 * 49, 1), 121_939),
    "conv2_x": ((54 * 54, 64, 64 * 9, 1), 108_359),
    "conv3_1a": ((28 * 28, 128, 64 * 9, 1), 63_215),
    "conv3_x": ((26 * 26, 128, 128 * 9, 1), 110_879),
    "conv4_1a": ((14 * 14, 256, 128 * 9, 1), 83_519),
    "conv4_x": ((12 * 12, 256, 256 * 9, 1), 137_087),
    "conv5_1a": ((7 * 7, 512, 256 * 9, 1), 164_735),
    "conv5_x": ((5 * 5, 512, 512 * 9, 1), 274_175),
    "fc": ((1, 1000, 512, 1), 48_639),
}


def array(kind, rows, columns, macs_per_unit=1, bits=16):
    return msgspec.structs.replace(
        load_machine("stripes-like").compute, kind=kind, rows=rows, columns=columns,
        macs_per_unit=macs_per_unit, bits=bits,
    )  # fmt: skip


def cycles(gemm, compute, bits=(0, 0)):
    m, n, k, groups = gemm
    return work_of(gemm, m * n * k * groups, compute, bits).cycles


@pytest.mark.parametrize("layer", SCALE_SIM)
def test_a_weight_stationary_array_takes_scale_sims_cycles(layer):
    gemm, expected = SCALE_SIM[layer]
    assert cycles(gemm, load_machine("systolic-32").compute) == expected


def stepped(m, n, k, rows, columns):
    """The last cycle of a fold by fold run: load a row a cycle, then skewed inputs."""
    clock = 0
    for _ in range(0, k, rows):
        for _ in range(0, n, columns):
            clock += rows  # weights move down a row a cycle
            last = max(i + r + c for i in range(m) for r in range(rows) for c in range(columns))
            clock += last + 1
    return clock - 1


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4),
       st.integers(1, 4))  # fmt: skip
def test_a_systolic_array_stepped_through(m, n, k, rows, columns):
    assert cycles((m, n, k, 1), array("systolic", rows, columns)) == stepped(m, n, k, rows, columns)


@pytest.mark.parametrize("bits", [1, 3, 4, 8, 16])
def test_stripes_goes_with_activation_bits_and_loom_with_both(bits):
    conv, fc = (784, 512, 1152, 1), (1, 4096, 4096, 1)
    stripes, loom = (load_machine(f"{x}-like").compute for x in ("stripes", "loom"))
    assert cycles(conv, stripes, (bits, 5)) * 16 == cycles(conv, stripes, (16, 16)) * bits
    assert cycles(conv, loom, (bits, 5)) * 256 == cycles(conv, loom, (16, 16)) * bits * 5
    # One sample through a fully connected layer: Loom gains what its weights save, Stripes none.
    assert cycles(fc, stripes, (bits, bits)) == cycles(fc, stripes, (16, 16))
    assert cycles(fc, loom, (bits, bits)) * 16 == cycles(fc, loom, (16, 16)) * bits


def test_at_16_bits_stripes_has_the_rate_of_4096_whole_macs():
    gemm = (16 * 100, 256 * 2, 16 * 8, 1)
    assert cycles(gemm, load_machine("stripes-like").compute) == 1600 * 512 * 128 // 4096


@pytest.mark.parametrize(
    ("bits", "products"), [((2, 2), 16), ((1, 2), 16), ((4, 2), 8), ((3, 4), 4), ((8, 8), 1),
                           ((5, 8), 1), ((8, 16), 0.5), ((16, 16), 0.25)]
)  # fmt: skip
def test_a_fusion_unit_makes_as_many_products_as_its_bricks_allow(bits, products):
    fused = array("bit-fusion", 8, 8)
    assert peak_macs(fused, bits) == 64 * products
    # Long enough that filling the array does not count.
    long = cycles((10**6, 8, 8 * 16, 1), fused, bits)
    assert long == pytest.approx(10**6 * 16 / products, rel=1e-3)


@given(
    st.sampled_from(["stripes", "loom", "systolic", "bit-fusion", "mapped"]),
    st.tuples(*[st.integers(1, 3000)] * 3, st.integers(1, 5)),
    st.tuples(st.integers(0, 16), st.integers(0, 16)),
)
def test_no_product_beats_the_peak(kind, gemm, bits):
    lanes = 4 if kind in ("stripes", "loom", "mapped") else 1
    compute = array(kind, 8, 4, lanes)
    m, n, k, groups = gemm
    found = work_of(gemm, m * n * k * groups, compute, bits)
    assert 0 < found.share <= 1 + 1e-12
    assert found.cycles * peak_macs(compute, bits) >= m * n * k * groups * (1 - 1e-12)
    if kind == "mapped":
        assert found.share == utilisation(gemm, compute)


def changed(name, part, **values):
    machine = load_machine(name)
    inner = msgspec.structs.replace(getattr(machine, part), **values)
    return msgspec.structs.replace(machine, **{part: inner})


@pytest.mark.parametrize(
    ("part", "values", "match"),
    [
        ("buffer", {"tile_bytes": 1 << 20, "bytes": (1 << 22) - 1}, "do not hold one"),
        ("compute", {"formats": ("int8", "fp32")}, "mixes integers and floats"),
        ("compute", {"kind": "loom"}, "takes integers"),
        ("compute", {"kind": "systolic"}, "one unit a place"),
        ("compute", {"formats": ("int3",)}, "allowed are"),
    ],
)
def test_machines_that_cannot_be(part, values, match):
    with pytest.raises(InputError, match=match):
        changed("sfp-2024", part, **values)


def test_an_array_that_says_nothing_of_its_kind_keeps_its_hash():
    text = msgspec.json.encode(load_machine("sfp-2024").compute)
    assert b"kind" not in text
    assert b"bits" not in text
