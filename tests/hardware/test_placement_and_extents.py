"""Where blocks lie, what moving them costs in bursts, and how much memory is in use."""

import numpy as np
import pytest

from hardware.machines import machine
from sfpsim.containers.base import Rows
from sfpsim.containers.registry import parse_container
from sfpsim.containers.sampled import store
from sfpsim.hardware import kernels as k
from sfpsim.hardware.array import compute_ps, utilisation
from sfpsim.hardware.channel import parameters
from sfpsim.hardware.extents import Life, usage
from sfpsim.hardware.placement import (
    IndexCache,
    bursts_by_channel,
    extent_bytes,
    place,
    read_jobs,
    write_jobs,
)
from sfpsim.hardware.rows import RowStore

BURST = 32


def placed(spec, values, channels=3, first=1):
    small = machine(memory={"channels": channels})
    container = parse_container(spec)
    x = np.random.default_rng(0).standard_normal(values, dtype=np.float32)
    stored = store(container, [x], full_values=values, signed=None)
    base = np.arange(3 * channels).reshape(3, channels) * (1 << 20)
    return place(
        "t", stored, container, small, first_group=first, row_base=0, base=base
    ), stored  # fmt: skip


def byte_ranges(tensor):
    """Every block's byte range in each stream, by channel, written out by hand."""
    out = []
    for stream in (tensor.payload, tensor.metadata, tensor.index):
        tops = {}
        for block, channel in enumerate(tensor.group.tolist()):
            start = tops.get(channel, 0)
            length = int(stream.length[block])
            out.append((id(stream), channel, block, start, start + length))
            tops[channel] = start + length
    return out


@pytest.mark.parametrize("spec", ["fp32", "bf16", "gecko-bias", "sfp:m=1,e=4"])
def test_a_block_lies_whole_in_one_channel_behind_the_one_before(spec):
    tensor, stored = placed(spec, 120_001)
    assert tensor.group.tolist() == [(1 + i) % 3 for i in range(8)]
    assert tensor.bytes * 8 == stored.sizes.total_bits
    sizes = extent_bytes(stored, 1, 3)
    for row, stream in enumerate((tensor.payload, tensor.metadata, tensor.index)):
        for channel in range(3):
            mine = tensor.group == channel
            assert stream.length[mine].sum() == sizes[row, channel]
            starts, lengths = stream.start[mine], stream.length[mine]
            assert starts.tolist() == (np.cumsum(lengths) - lengths).tolist()


@pytest.mark.parametrize("spec", ["bf16", "gecko-bias", "sfp:m=1,e=4"])
def test_bursts_are_those_that_the_bytes_touch(spec):
    tensor, _ = placed(spec, 120_001)
    blocks = np.arange(tensor.blocks)
    caches = [IndexCache(16, 64) for _ in range(3)]
    reads = read_jobs(tensor, blocks, caches, BURST)
    writes, extra = write_jobs(tensor, blocks, BURST)
    touched = set()
    wanted = 0
    for stream, channel, _, start, end in byte_ranges(tensor):
        if end > start:
            mine = range(start // BURST, -(-end // BURST))
            wanted += len(mine)
            touched |= {(stream, channel, burst) for burst in mine}
    columns = [k.J_PBURSTS, k.J_MBURSTS]
    index_lines = reads[:, k.J_IBURSTS].sum() * BURST
    index_ranges = [r for r in byte_ranges(tensor) if r[0] == id(tensor.index) and r[4] > r[3]]
    index_bursts = sum(-(-e // BURST) - s // BURST for _, _, _, s, e in index_ranges)
    assert reads[:, columns].sum() == wanted - index_bursts
    assert index_lines >= tensor.index.length.sum()
    # Shared bursts are combined: what is written is every touched burst once.
    assert writes[:, [*columns, k.J_IBURSTS]].sum() == len(touched)
    partial = sum(
        1
        for stream in (tensor.payload, tensor.metadata, tensor.index)
        for channel in range(3)
        if stream.length[tensor.group == channel].sum() % BURST
    )
    assert len(extra) == partial
    assert (extra[:, k.J_PBURSTS] == 1).all()


@pytest.mark.parametrize("stripe_bytes", [32, 64, 256])
def test_bursts_by_channel_are_those_whose_stripe_lies_there(stripe_bytes):
    striped = machine(
        memory={"channels": 3, "placement": "stripe", "stripe_bytes": stripe_bytes}
    )  # fmt: skip
    rng = np.random.default_rng(stripe_bytes)
    jobs = np.zeros((40, k.JOB_COLUMNS), np.int64)
    for address, count in ((k.J_PADDR, k.J_PBURSTS), (k.J_MADDR, k.J_MBURSTS)):
        jobs[:, address] = rng.integers(0, 1000, len(jobs)) * BURST
        jobs[:, count] = rng.integers(0, 70, len(jobs))
    found = bursts_by_channel(jobs, np.zeros(len(jobs), np.int64), striped)
    for i, (payload, metadata) in enumerate(
        zip(jobs[:, [k.J_PADDR, k.J_PBURSTS]], jobs[:, [k.J_MADDR, k.J_MBURSTS]], strict=True)
    ):
        for stream, (address, count) in enumerate((payload, metadata)):
            places = address + BURST * np.arange(count)
            by_hand = np.bincount(places // stripe_bytes % 3, minlength=3)
            assert found[stream, i].tolist() == by_hand.tolist()
    assert not found[2].any()


@pytest.mark.parametrize(("channels", "stripe_bytes"), [(1, 32), (3, 32), (8, 256), (5, 64)])
def test_stripes_fill_every_channel_without_a_gap(channels, stripe_bytes):
    """In the order of addresses each channel's next burst is the one after its last."""
    striped = machine(
        memory={"channels": channels, "placement": "stripe", "stripe_bytes": stripe_bytes}
    )
    par, used = parameters(striped, None), [0] * channels
    for burst in range(40 * channels):
        channel, within = k._stripe(burst, par)
        assert (channel, within) == (burst * BURST // stripe_bytes % channels, used[channel])
        used[channel] += 1


def test_the_index_cache_fetches_ahead_and_makes_a_jump_wait():
    cache = IndexCache(lines=3, line_bytes=64)
    assert cache.look_up(0) == (2, True)
    assert cache.look_up(8) == (0, False)
    assert cache.look_up(64) == (1, False)
    assert cache.look_up(128) == (1, False)
    assert cache.look_up(0) == (1, True)  # line 0 was dropped, line 1 was not


def test_live_and_reserved_bytes_by_hand():
    lives = [
        Life(name="w", bytes=10, worst_bytes=20, first=-1, last=4, stacked=False),
        Life(name="a", bytes=3000, worst_bytes=5000, first=0, last=3, stacked=True),
        Life(name="b", bytes=100, worst_bytes=900, first=1, last=2, stacked=True),
        Life(name="g", bytes=7, worst_bytes=7, first=2, last=2, stacked=False),
    ]
    live = [(3000, 10), (3100, 10), (3100, 17), (3000, 10)]
    for how, reserved in (
        ("stack", [3000 + 27, 3100 + 27, 3100 + 27, 3000 + 27]),
        ("worst-case", [5027, 5927, 5927, 5027]),
        ("paged", [8192, 12288, 16384, 8192]),
    ):
        found = usage(lives, 4, how)
        assert [(u.stash_bytes, u.other_bytes) for u in found] == live
        assert [u.reserved_bytes for u in found] == reserved


def test_the_stack_keeps_what_lies_below_a_tensor_that_lives():
    lives = [
        Life(name="a", bytes=5, worst_bytes=5, first=0, last=1, stacked=True),
        Life(name="b", bytes=6, worst_bytes=6, first=1, last=3, stacked=True),
    ]
    found = usage(lives, 5, "stack")
    assert [u.reserved_bytes for u in found] == [5, 11, 11, 11, 0]
    assert [u.stash_bytes for u in found] == [5, 11, 6, 6, 0]


@pytest.mark.parametrize(
    ("gemm", "share"),
    [
        ((128, 64, 4, 1), 1.0),
        ((129, 64, 4, 1), 129 / 256),
        ((64, 128, 4, 1), 1.0),
        ((1, 1, 4, 1), 4 / (128 * 64 * 4)),
        ((0, 5, 5, 1), 1.0),
    ],
)
def test_mapping_utilisation(gemm, share):
    assert utilisation(gemm, machine().compute) == pytest.approx(share, rel=0.01)


def test_compute_time_is_in_whole_cycles():
    compute = machine().compute
    assert compute_ps(0, 1.0, compute) == 0
    assert compute_ps(1, 1.0, compute) == 2000
    assert compute_ps(32768, 1.0, compute) == 2000
    assert compute_ps(32769, 1.0, compute) == 4000
    assert compute_ps(32768, 0.5, compute) == 4000


def rows_of(count):
    """A tensor's rows, in two parts."""
    payload = np.arange(count, dtype=np.uint16)
    metadata = (payload % 7).astype(np.uint8)
    for part in (slice(0, count // 2), slice(count // 2, None)):
        yield Rows(payload_bits=payload[part], metadata_bits=metadata[part])


def test_the_row_store_spills_to_a_file_and_stays_the_same(monkeypatch):
    from sfpsim.hardware import rows as rows_module

    def filled(most):
        monkeypatch.setattr(rows_module, "MOST_IN_MEMORY", most)
        rows_store = RowStore()
        begins = [rows_store.add(rows_of(n)) for n in (5, 0, 100, 3)]
        return begins, rows_store, rows_store.arrays()

    begins, kept, (payload, metadata) = filled(1 << 20)
    spilled_begins, spilled, (payload_file, metadata_file) = filled(100)
    assert kept.files is None
    assert spilled.files is not None
    assert begins == spilled_begins == [0, 5, 5, 105]
    np.testing.assert_array_equal(payload, payload_file)
    np.testing.assert_array_equal(metadata, metadata_file)
