"""Leaving out what repeats itself changes nothing: the same state at every cut, by both ways."""

import msgspec
import numpy as np
import pytest

from sfpsim.hardware.dram import engine as e
from sfpsim.hardware.dram import periods
from sfpsim.hardware.dram.device import address_pieces, load_device, presets
from sfpsim.hardware.dram.patterns import row_hits
from sfpsim.hardware.dram.simulate import (
    COMMANDS,
    POLICIES,
    Memory,
    Requests,
    simulate_logged,
)

SLOTS = [
    e.B_HEAD, e.B_HEAD + 1, e.B_TAIL, e.B_TAIL + 1, e.B_HIT, e.B_HIT + 1, e.B_ACTIVE,
    e.B_HEAD + e.OWN, e.B_TAIL + e.OWN, e.B_MISS, e.B_MISS + 1,
]  # fmt: skip
# Not state: the batch's place, a place in the pool, scratch.
UNNAMED = [e.ST_NEXTIN, e.ST_WHICH, e.ST_LOG]


def queued(state):
    """All that wait, in the order of the queues that they wait in."""
    found = []
    walk = np.array([0, 0, -1])
    while (request := periods._next_queued(walk, state.bk, state.rq)) >= 0:
        found.append((walk[0], walk[1], state.rq[request, : e.Q_NEXT].tolist()))
    return found


def whole_state(state):
    """Everything that decides what comes, without the places that requests happen to have."""
    age = state.rq[:, e.Q_AGE]
    bk = state.bk.copy()
    named = np.where(bk[:, SLOTS[:7]] >= 0, age[bk[:, SLOTS[:7]]], -1)
    waiting = bk[:, [e.B_HEAD, e.B_HEAD + 1]] >= 0
    hits = named[:, 4:6]
    bk[:, SLOTS] = 0
    st = state.st.copy()
    st[UNNAMED] = 0
    if not st[e.ST_VALID]:
        st[[e.ST_BEST, e.ST_BESTAT]] = 0
    return {
        "st": st.tolist(),
        "bk": bk.tolist(),
        "hits": hits.tolist(),
        "heads": np.where(waiting, named[:, :2], -1).tolist(),
        "tails": np.where(waiting, named[:, 2:4], -1).tolist(),
        "active": named[:, 6].tolist(),
        "tm": state.tm[: e.KEYS].tolist(),
        "rk": state.rk.tolist(),
        "ft": np.flatnonzero(state.ft).tolist(),
        "ft_counts": state.ft[state.ft != 0].tolist(),
        "queued": queued(state),
    }


def parts_of(device):
    """The number of each field's values, and a way from fields to access numbers."""
    pieces, xored = address_pieces(device)
    bits = device.field_bits()

    def number(**fields):
        row = fields.get("ro", 0)
        if xored & 1:
            fields["ba"] = fields["ba"] ^ (row & ((1 << bits["ba"]) - 1))
        if xored & 2:
            shift = bits["ba"] if xored & 1 else 0
            fields["bg"] = fields["bg"] ^ ((row >> shift) & ((1 << bits["bg"]) - 1))
        total = np.zeros(np.shape(fields["co"]), np.int64)
        for piece in pieces:
            value = np.asarray(fields.get(piece.field, 0)) >> piece.to & ((1 << piece.bits) - 1)
            total = total + (value << piece.at)
        return total

    return bits, number


def stretch(device, rng):
    """A stretch of requests: access numbers, kinds and distances in cycles."""
    bits, number = parts_of(device)
    size = 1 << sum(bits.values())
    count = int(rng.integers(100, 1500))
    i = np.arange(count)
    sort = rng.integers(0, 8)
    write = np.full(count, rng.integers(0, 2))
    if sort == 0:
        at = rng.integers(0, size, count)
        write = (rng.random(count) < 0.4).astype(np.int64)
    elif sort <= 2:  # a stream
        at = int(rng.integers(0, size)) + i
    elif sort == 3:  # the same columns again and again, or one alone
        columns = int(rng.choice([1, 3, 40, 1 << bits["co"]]))
        at = number(co=i % columns, bg=0 * i, ba=0 * i, ra=0 * i, ro=0 * i + rng.integers(0, 4))
    elif sort == 4:  # round the banks
        banks = 1 << int(rng.integers(0, bits["bg"] + bits["ba"] + 1))
        b = i % banks
        at = number(
            co=i // banks % (1 << bits["co"]), bg=b & ((1 << bits["bg"]) - 1), ba=b >> bits["bg"],
            ra=i // 700 % (1 << bits["ra"]), ro=0 * i + rng.integers(0, 4),
        )  # fmt: skip
        if rng.random() < 0.5:  # one that hits go past
            at[50] = number(
                co=0, bg=0, ba=0, ra=rng.integers(0, 1 << bits["ra"]), ro=rng.integers(4, 8)
            )  # fmt: skip
    elif sort == 5:  # two or three streams, one written
        streams = int(rng.integers(2, 4))
        base = rng.integers(0, size, streams)
        at = base[i % streams] + i // streams
        write = (i % streams == 0).astype(np.int64)
    elif sort == 6:  # reads follow writes closely
        behind = int(rng.integers(1, 30))
        at = int(rng.integers(0, size)) + np.where(i % 2, i // 2, i // 2 - behind)
        write = i % 2
    else:  # stride
        at = int(rng.integers(0, size)) + i * int(rng.integers(2, 40))
    gaps = np.full(count, rng.integers(0, 3 * device.burst_cycles))
    if rng.random() < 0.2:
        gaps = rng.integers(0, 8 * device.burst_cycles, count)
    gaps[0] += rng.choice([0, 0, 50, 3 * min(device.trefi, 1 << 16)])
    return at % size, write, gaps


def varied(device, policy, rng):
    """The device, with one or two ranks and other bounds in its controller."""
    if policy == "ramulator" and device.refresh == "per-bank":
        device = msgspec.structs.replace(device, refresh="all-bank")
    if rng.random() < 0.5 and device.ranks == 1:
        device = msgspec.structs.replace(device, ranks=2, mapping=f"ra {device.mapping}")
    bounds = {"hit_cap": int(rng.choice([4, 16, 100])), "turn": int(rng.choice([1, 16, 60]))}
    controller = msgspec.structs.replace(device.controller, **bounds)
    return msgspec.structs.replace(device, controller=controller)


def traffic(device, rng, timed, stretches=24):
    parts = [stretch(device, rng) for _ in range(stretches)]
    at, write, gaps = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Requests(
        address=(at * device.access_bytes).astype(np.uint64),
        is_write=write.astype(np.uint8),
        cycle=np.cumsum(gaps).astype(np.uint64) if timed else None,
    )


def both_ways(batch, device, policy, rng, cuts=(1, 90, 300, 700, 2500, 9000)):
    """Run a trace both ways, cut at random places; returns the requests left out."""
    with_it, without = (Memory(device, policy, shortcut=x) for x in (True, False))
    at = 0
    while at < len(batch.address):
        part = slice(at, at + int(rng.choice(cuts)))
        at = part.stop
        cycle = None if batch.cycle is None else batch.cycle[part]
        cut = Requests(address=batch.address[part], is_write=batch.is_write[part], cycle=cycle)
        for memory in (with_it, without):
            memory.send(cut)
        for one, other in zip(with_it.channels, without.channels, strict=True):
            mine, its = whole_state(one), whole_state(other)
            assert mine == its, [key for key in mine if mine[key] != its[key]]
    timeless = {"wall_s": 0.0, "cpu_s": 0.0}
    results = [msgspec.structs.replace(m.finish(), **timeless) for m in (with_it, without)]
    assert results[0] == results[1]
    return sum(int(c.kept[periods.H_LEFTOUT]) for c in with_it.channels)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", list(presets()))
def test_the_same_state_at_every_cut(name, policy):
    rng = np.random.default_rng([list(presets()).index(name), POLICIES.index(policy)])
    for timed in (False, True):
        device = varied(load_device(name), policy, rng)
        both_ways(traffic(device, rng, timed), device, policy, rng)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_time_to_come_is_waited_for(policy):
    """Hits in one rank repeat themselves while the other is refreshed and a request waits for it.

    Its activate cannot go yet, which nothing in the hits tells.
    """
    device = load_device("ddr4-3200-x64")
    device = msgspec.structs.replace(device, ranks=2, mapping="ra ro ba co bg", trfc=2000)
    number = np.arange(1500) % 512
    number[0] = 1 << 27  # the other rank
    cycle = np.full(1500, device.trefi + 40)
    batch = Requests(
        address=(number * device.access_bytes).astype(np.uint64),
        is_write=np.zeros(1500, np.uint8),
        cycle=cycle.astype(np.uint64),
    )
    assert both_ways(batch, device, policy, np.random.default_rng(1), (1500,)) > 0


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("writes", [0, 1])
def test_hits_on_open_rows_are_left_out(policy, writes):
    """Were the shortcut never taken, the test above would pass, too."""
    for name in ("ddr4-3200-x64", "lpddr5-6400-x16", "gddr6-14000-x16"):
        device = load_device(name)
        batch = row_hits(device, 20000, bool(writes))
        rng = np.random.default_rng(1)
        assert both_ways(batch, device, policy, rng, (20000,)) > 0.75 * 20000


def test_a_log_has_every_command():
    """Where a log is kept the shortcut is not taken, nor where a timer closes rows or sleeps."""
    device = load_device("ddr4-3200-x64")
    number = np.arange(8000) % 512
    batch = Requests(
        address=(number * device.access_bytes).astype(np.uint64),
        is_write=np.zeros(len(number), np.uint8),
    )
    for policy in POLICIES:
        result, logs = simulate_logged(batch, device, policy)
        commands = logs[0].command.tolist()
        assert commands.count(COMMANDS.index("read")) == result.counts.rd
    timed_out = msgspec.structs.replace(device, page_timeout=60)
    rng = np.random.default_rng(1)
    assert both_ways(batch, timed_out, "default", rng) == 0
    controller = msgspec.structs.replace(device.controller, power_down=40)
    asleep = msgspec.structs.replace(device, controller=controller)
    assert both_ways(batch, asleep, "default", rng) == 0
    assert both_ways(batch, device, "default", rng) > 0


def rounds(device, count, banks=4):
    """Access numbers of hits that go round the banks; the pattern repeats every `banks`."""
    bits, number = parts_of(device)
    i = np.arange(count)
    bank = i % banks
    return number(
        co=i // banks % (1 << bits["co"]), bg=bank & ((1 << bits["bg"]) - 1),
        ba=bank >> bits["bg"], ro=0 * i,
    )  # fmt: skip


def requests_of(device, at, write, cycle=None):
    return Requests(
        address=(at * device.access_bytes).astype(np.uint64),
        is_write=np.broadcast_to(write, at.shape).astype(np.uint8),
        cycle=None if cycle is None else cycle.astype(np.uint64),
    )


def all_at_once(device, policy, at, write, cycle=None):
    batch = requests_of(device, at, write, cycle)
    return both_ways(batch, device, policy, np.random.default_rng(1), (len(at),))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("sort", ["row", "kind", "address", "late", "early"])
def test_a_pattern_that_breaks_late(policy, sort):
    """One request does not fit, at every place in a period."""
    device = load_device("ddr4-3200-x64")
    for broken in range(1200, 1220):
        at, write = rounds(device, 1400), np.zeros(1400, np.int64)
        cycle = np.arange(1400) * 9
        if sort == "row":
            at[broken] += 1 << 20
        elif sort == "kind":
            write[broken] = 1
        elif sort == "address":  # of the one before, and of one that may still wait
            at[broken], write[broken - 4 :] = at[broken - 4], 1
        else:
            cycle[broken:] += 300 if sort == "late" else -5
        timed = cycle if sort in ("late", "early") else None
        assert all_at_once(device, policy, at, write, timed) > 0


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("writes", [0, 1])
def test_a_batch_ends_in_the_middle_of_a_period(policy, writes):
    device = load_device("lpddr5-6400-x16")
    for count in range(900, 926):
        assert all_at_once(device, policy, rounds(device, count, 8), writes) > 0


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("timed", [False, True])
def test_a_refresh_falls_due_anywhere_in_a_period(policy, timed):
    device = load_device("ddr4-3200-x64")
    for trefi in range(2400, 2424):
        often = msgspec.structs.replace(device, trefi=trefi, trfc=60)
        at = rounds(often, 1500)
        assert all_at_once(often, policy, at, 0, np.arange(1500) * 7 if timed else None) > 0


@pytest.mark.parametrize("cap", range(500, 508))
@pytest.mark.parametrize("policy", POLICIES)
def test_hits_go_past_an_older_request_up_to_the_bound(policy, cap):
    device = load_device("ddr4-3200-x64")
    controller = msgspec.structs.replace(device.controller, hit_cap=cap)
    device = msgspec.structs.replace(device, controller=controller)
    at = rounds(device, 2000, 1)
    at[40] += 1 << 20
    all_at_once(device, policy, at, 0)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("behind", [1, 5, 20, 33, 60, 200])
def test_reads_of_what_was_written(policy, behind):
    """Reads follow the writes of their addresses, so that some are answered from the queue."""
    device = load_device("ddr4-3200-x64")
    i = np.arange(1600)
    at = 512 + np.where(i % 2, i // 2, i // 2 - behind)
    all_at_once(device, policy, at % 1024, i % 2)
    spread = rounds(device, 1600)
    again = np.where(i % 8 == 7, np.roll(spread, behind), spread)
    all_at_once(device, policy, again, i % 8 != 7)


@pytest.mark.parametrize("policy", POLICIES)
def test_arrays_of_another_shape_are_an_error(policy):
    memory = Memory(load_device("ddr4-3200-x64"), policy)
    memory.channels[0].bk = memory.channels[0].bk[:, :-1].copy()
    with pytest.raises(ValueError, match="are not those that ChannelState makes"):
        memory.send(requests_of(memory.device, np.arange(200), 0))
