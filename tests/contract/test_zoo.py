"""The zoo's rounding containers: contract, naive references, outside oracles."""

import gfloat
import gfloat.formats as gf
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import naive
import naive_zoo
from sfpsim.containers.base import with_key
from sfpsim.containers.registry import parse_container
from sfpsim.formats import format_of
from sfpsim.testing import specs
from sfpsim.testing.contract import bits_equal, check_container
from sfpsim.testing.strategies import BLOCKS, bit_patterns, block_sizes, edge_cases

SPECS = specs.PACKED
QUICK = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
RNG = np.random.default_rng(11)
ALL_BF16 = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16)
RANDOM_FP32 = RNG.integers(0, 1 << 32, 200_000, np.uint64).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("spec", SPECS)
def test_contract_on_edge_cases(spec, block):
    container = parse_container(with_key(spec, "block", block))
    assert container.base_spec == spec
    for x in edge_cases(block).values():
        check_container(container, x)


@pytest.mark.parametrize("spec", SPECS)
@QUICK
@given(x=bit_patterns(), block=block_sizes())
def test_bytes_and_values_are_those_of_the_naive_reference(spec, x, block):
    container = parse_container(with_key(spec, "block", block))
    check_container(container, x)
    payload, metadata, values = naive_zoo.encode(spec, x)
    stored = container.encode(x)
    assert (stored.payload, stored.metadata, stored.index) == (payload, metadata, b"")
    fmt, back = format_of(x.dtype), naive.words(container.quantize(x))
    assert all(naive_zoo.same_value(w, v, fmt) for w, v in zip(back, values, strict=True))


@pytest.mark.parametrize("spec", specs.INTEGERS)
def test_ranges_that_end_at_a_zero_end_at_plus_zero(spec):
    for x in ([-0.0], [0.0, -0.0], [-0.0, 0.0, -1.0], [2.0, -0.0] * 9):
        values = np.array(x, np.float32)
        payload, metadata, _ = naive_zoo.encode(spec, values)
        stored = parse_container(spec).encode(values)
        assert (stored.payload, stored.metadata) == (payload, metadata)
        assert b"\x00\x00\x00\x80" not in stored.metadata


ML = {
    "float:e=5,m=10": np.float16,
    "float:e=8,m=7": ml_dtypes.bfloat16,
    "float:e=3,m=4": ml_dtypes.float8_e3m4,
    "float:e=4,m=3": ml_dtypes.float8_e4m3,
    "fp8-e4m3:overflow=special": ml_dtypes.float8_e4m3fn,
    "fp8-e5m2:overflow=special": ml_dtypes.float8_e5m2,
    "fp6-e3m2": ml_dtypes.float6_e3m2fn,
    "fp6-e2m3": ml_dtypes.float6_e2m3fn,
    "fp4-e2m1": ml_dtypes.float4_e2m1fn,
}
GFLOAT = {
    "float:e=5,m=10": (gf.format_info_binary16, False),
    "fp8-e4m3": (gf.format_info_ocp_e4m3, True),
    "fp8-e4m3:overflow=special": (gf.format_info_ocp_e4m3, False),
    "fp8-e5m2": (gf.format_info_ocp_e5m2, True),
    "fp8-e5m2:overflow=special": (gf.format_info_ocp_e5m2, False),
    "fp6-e3m2": (gf.format_info_ocp_e3m2, True),
    "fp6-e2m3": (gf.format_info_ocp_e2m3, True),
    "fp4-e2m1": (gf.format_info_ocp_e2m1, True),
}


def single(x):
    with np.errstate(all="ignore"):
        return x.astype(np.float32)


def around(x):
    """All values of a small dtype, their midpoints, and the floats next to each."""
    points = np.unique(x[np.isfinite(x)])
    middles = ((points[1:].astype(np.float64) + points[:-1]) / 2).astype(np.float32)
    every = np.concatenate([points, middles]).astype(np.float32)
    return np.concatenate([every, np.nextafter(every, np.inf), np.nextafter(every, -np.inf)])


def edges(spec):
    dtype = ML[spec if spec in ML else f"{spec}:overflow=special"]
    codes = np.arange(1 << min(8 * np.dtype(dtype).itemsize, 16))
    return around(single(codes.astype(f"u{np.dtype(dtype).itemsize}").view(dtype)))


@pytest.mark.parametrize("spec", ML)
@pytest.mark.parametrize("source", ["bf16", "fp32", "edges"])
def test_rounding_is_that_of_ml_dtypes(spec, source):
    x = {"bf16": ALL_BF16, "fp32": RANDOM_FP32, "edges": edges(spec)}[source]
    container = parse_container(spec)
    if "fp6" in spec or "fp4" in spec:
        x = x[~np.isnan(single(x))]  # no NaN there; each library has its own answer
    ours = single(container.quantize(x))
    with np.errstate(all="ignore"):
        theirs = single(x.astype(ML[spec]))
    same = (ours.view(np.uint32) == theirs.view(np.uint32)) | (np.isnan(ours) & np.isnan(theirs))
    assert same.all(), x[~same][:5]


@pytest.mark.parametrize("spec", GFLOAT)
@pytest.mark.parametrize("source", ["bf16", "fp32", "edges"])
def test_rounding_is_that_of_gfloat(spec, source):
    x = {"bf16": ALL_BF16, "fp32": RANDOM_FP32, "edges": edges(spec)}[source]
    info, saturate = GFLOAT[spec]
    x = x[~np.isnan(single(x))]
    ours = single(parse_container(spec).quantize(x))
    theirs = gfloat.round_ndarray(info, single(x).astype(np.float64), sat=saturate)
    theirs = theirs.astype(np.float32)
    same = (ours.view(np.uint32) == theirs.view(np.uint32)) | (np.isnan(ours) & np.isnan(theirs))
    assert same.all(), x[~same][:5]


def of_gfloat(exponent_bits, mantissa_bits):
    """An IEEE-like format of gfloat; precision counts the hidden one."""
    return gfloat.FormatInfo(
        f"1-{exponent_bits}-{mantissa_bits}", 1 + exponent_bits + mantissa_bits,
        mantissa_bits + 1, bias=2 ** (exponent_bits - 1) - 1, is_signed=True,
        domain=gfloat.Domain.Extended, has_nz=True, num_high_nans=2**mantissa_bits - 1,
        has_subnormals=True, is_twos_complement=False,
    )  # fmt: skip


OTHER = [(2, 1), (2, 3), (3, 2), (4, 1), (5, 2), (5, 10), (6, 9), (8, 1), (8, 3), (8, 7), (8, 16)]


@pytest.mark.parametrize(
    ("spec", "exponent_bits", "mantissa_bits", "saturate"),
    [
        *((f"float:e={e},m={m}", e, m, False) for e, m in OTHER),
        *((f"float:e={e},m={m},overflow=saturate", e, m, True) for e, m in OTHER),
        ("tf32", 8, 10, False),
    ],
)
@pytest.mark.parametrize("source", ["bf16", "fp32", "edges"])
def test_any_float_is_rounded_as_by_gfloat(spec, exponent_bits, mantissa_bits, saturate, source):
    container = parse_container(spec)
    x = {"bf16": ALL_BF16, "fp32": RANDOM_FP32}.get(source)
    if x is None:
        x = around(np.unique(container.quantize(RANDOM_FP32[:20_000])))
    x = x[~np.isnan(single(x))]
    mode = gfloat.RoundMode.TiesToAway if spec == "tf32" else gfloat.RoundMode.TiesToEven
    theirs = gfloat.round_ndarray(
        of_gfloat(exponent_bits, mantissa_bits), single(x).astype(np.float64), mode, saturate
    ).astype(np.float32)
    if x.dtype != np.float32:  # the source is rounded to again when it is given back
        theirs = single(theirs.astype(x.dtype))
    ours = single(container.quantize(x))
    same = ours.view(np.uint32) == theirs.view(np.uint32)
    assert same.all(), (x[~same][:5], ours[~same][:5], theirs[~same][:5])


@pytest.mark.parametrize(
    ("spec", "numbers"),
    [  # OFP8 1.0, tables 1 and 2; MX 1.0, tables 2 to 6: largest, least normal, subnormals
        ("fp8-e4m3", {0x7E: 448, 0x08: 2**-6, 0x07: 0.875 * 2**-6, 0x01: 2**-9}),
        ("fp8-e5m2", {0x7B: 57344, 0x04: 2**-14, 0x03: 0.75 * 2**-14, 0x01: 2**-16}),
        ("fp6-e3m2", {0x1F: 28, 0x04: 0.25, 0x03: 0.1875, 0x01: 0.0625}),
        ("fp6-e2m3", {0x1F: 7.5, 0x08: 1, 0x07: 0.875, 0x01: 0.125}),
        ("fp4-e2m1", {0x7: 6, 0x6: 4, 0x5: 3, 0x4: 2, 0x3: 1.5, 0x2: 1, 0x1: 0.5}),
        ("mxint8", {0x7F: 1 + 63 / 64, 0x40: 1, 0x01: 1 / 64}),
    ],
)
def test_codes_stand_for_the_published_numbers(spec, numbers):
    container = parse_container(spec)
    for code, value in numbers.items():
        x = np.array([value, -value, 1.0], np.float32)
        stored = container.encode(x)
        bits = int.from_bytes(stored.payload, "little")
        width = container.fields(format_of(x.dtype)).bits
        negative = (1 << width) - code if spec == "mxint8" else code | 1 << (width - 1)
        assert (bits % (1 << width), (bits >> width) % (1 << width)) == (code, negative)
        assert bits_equal(container.decode(stored), x)


def mx_blocks():
    """Random blocks; maxima just below, at and just above powers of two; tiny blocks."""
    x = RNG.standard_normal((1500, 32)).astype(np.float32)
    x *= np.exp2(RNG.integers(-40, 40, (1500, 1))).astype(np.float32)
    power = np.exp2(RNG.integers(-30, 30, 1500)).astype(np.float32)
    near = np.stack([np.nextafter(power, np.float32(0)), power, np.nextafter(power, np.inf)])
    x[:900, 0] = near.T.reshape(-1)[:900]
    x[:900, 1:] = np.clip(x[:900, 1:], -x[:900, :1], x[:900, :1])
    return x


@pytest.mark.parametrize(
    ("spec", "info"),
    [
        ("mxfp8-e4m3", gf.format_info_mxfp8_e4m3),
        ("mxfp8-e5m2", gf.format_info_mxfp8_e5m2),
        ("mxfp6-e3m2", gf.format_info_mxfp6_e3m2),
        ("mxfp6-e2m3", gf.format_info_mxfp6_e2m3),
        ("mxfp4", gf.format_info_mxfp4_e2m1),
        ("mxint8", gf.format_info_mxint8),
    ],
)
def test_mx_blocks_are_those_of_gfloat(spec, info):
    x = mx_blocks()
    ours = parse_container(spec).quantize(x)
    for row, mine in zip(x, ours, strict=True):
        theirs = gfloat.quantize_block(
            info, row.astype(np.float64), gfloat.compute_scale_amax
        ).astype(np.float32)
        if spec == "mxint8":  # we do not use the byte of -2.0
            clipped = theirs == -2 * np.exp2(np.floor(np.log2(np.abs(theirs).max())) - 1)
            theirs = np.where(clipped & (theirs != mine), mine, theirs)
        np.testing.assert_array_equal(mine, theirs)


def test_a_maximum_just_below_a_power_of_two_has_the_lower_scale():
    x = np.full(32, np.nextafter(np.float32(1), np.float32(0)))
    stored = parse_container("mxfp8-e4m3").encode(x)
    assert stored.metadata == bytes([127 - 1 - 8])


def test_nvfp4_scales_and_elements_are_those_of_gfloat():
    x = mx_blocks()[:300]
    x *= np.exp2(-np.floor(np.log2(np.abs(x).max(axis=1, keepdims=True))))
    stored = parse_container("nvfp4").encode(x)
    tensor = np.float64(np.float32(np.abs(x).max() / (6 * 448)))
    most = np.abs(x.reshape(-1, 16)).max(axis=1).astype(np.float64)
    scales = gfloat.round_ndarray(gf.format_info_ocp_e4m3, most / (6 * tensor), sat=True)
    codes = np.frombuffer(stored.metadata[4:], ml_dtypes.float8_e4m3fn).astype(np.float64)
    np.testing.assert_array_equal(codes, scales)
    scaled = np.where(scales > 0, scales * tensor, np.inf)[:, None]
    elements = x.reshape(-1, 16).astype(np.float64) / scaled
    rounded = gfloat.round_ndarray(gf.format_info_ocp_e2m1, elements, sat=True)
    expected = (rounded * (scales * tensor)[:, None]).astype(np.float32).reshape(x.shape)
    np.testing.assert_array_equal(parse_container("nvfp4").quantize(x), expected)


def test_exact_values_stay():
    for spec, dtype in ML.items():
        if np.dtype(dtype).itemsize == 1:
            values = single(np.arange(256, dtype=np.uint8).view(dtype))
            values = values[np.isfinite(values)]
            assert bits_equal(parse_container(spec).quantize(values), values)
