"""The DRAM engine on traces: nothing lost, cuts and channels invisible, no deadlock."""

import msgspec
import numpy as np
import pytest

from sfpsim.errors import InputError
from sfpsim.hardware.dram.device import load_device
from sfpsim.hardware.dram.simulate import POLICIES, Memory, Requests, simulate, simulate_logged

DEVICES = ("lpddr4-3200-x16", "ddr4-3200-x64", "hbm2-2000-x64", "lpddr5-6400-x16")


def requests(device, seed=1, count=3000, writes=0.4, span=1 << 22, gap=0):
    rng = np.random.default_rng(seed)
    runs = rng.integers(0, span // device.access_bytes, count // 8)
    number = (runs[:, None] + np.arange(8)).ravel()[:count]
    return Requests(
        address=(number * device.access_bytes).astype(np.uint64),
        is_write=(rng.random(len(number)) < writes).astype(np.uint8),
        cycle=np.cumsum(rng.integers(0, gap + 1, len(number))).astype(np.uint64) if gap else None,
    )


def check_served(result):
    """Every request is answered, written or merged, and no read is lost."""
    counts = result.counts
    assert counts.rd + counts.forwarded <= result.reads
    assert counts.wr + counts.unissued_writes <= result.writes
    assert result.reads == 0 or result.avg_read_latency_ns > 0
    if result.policy != "dramsim3":
        assert counts.unissued_writes == 0
    parts = msgspec.structs.asdict(result.energy_pj)
    total = parts.pop("total")
    assert total == pytest.approx(sum(x for x in parts.values() if x is not None))
    assert all(x >= 0 for x in parts.values() if x is not None)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", DEVICES)
def test_every_request_is_served(name, policy):
    device = load_device(name)
    for gap in (0, 40):
        check_served(simulate(requests(device, gap=gap), device, policy))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("gap", [0, 20])
def test_where_a_trace_is_cut_does_not_show(policy, gap):
    device = load_device("ddr4-3200-x64")
    whole = requests(device, gap=gap)
    result = simulate(whole, device, policy)

    def batches():
        rng = np.random.default_rng(3)
        at = 0
        while at < len(whole.address):
            part = slice(at, at + int(rng.integers(1, 40)))
            at = part.stop
            cycle = None if whole.cycle is None else whole.cycle[part]
            yield Requests(address=whole.address[part], is_write=whole.is_write[part], cycle=cycle)

    cut = simulate(batches(), device, policy)
    timeless = {"wall_s": 0.0, "cpu_s": 0.0}
    assert msgspec.structs.replace(cut, **timeless) == msgspec.structs.replace(result, **timeless)


@pytest.mark.parametrize("policy", POLICIES)
def test_channels_and_threads(policy):
    one = load_device("ddr4-3200-x64")
    two = msgspec.structs.replace(one, channels=2, mapping="ro ba co ch bg")
    batch = requests(two, count=4000)
    result = simulate(batch, two, policy)
    threaded = simulate(batch, two, policy, threads=2)
    assert (threaded.cycles, threaded.counts) == (result.cycles, result.counts)
    check_served(result)
    channel = (batch.address // np.uint64(two.access_bytes) >> np.uint64(2)) & np.uint64(1)
    alone = []
    for c in range(2):
        mine = channel == c
        part = Requests(address=batch.address[mine], is_write=batch.is_write[mine])
        memory = Memory(two, policy)
        memory.send(part)
        alone.append(memory.finish())
    assert result.cycles == max(r.cycles for r in alone)
    assert result.counts.act == sum(r.counts.act for r in alone)


@pytest.mark.parametrize("policy", POLICIES)
def test_in_place_updates_with_full_buffers_end(policy):
    """Reads and writes of the same few addresses: DRAMsim3 itself stops for good here."""
    device = load_device("lpddr4-3200-x16")
    number = np.repeat(np.arange(400) % 50, 2)
    for writes_first in (0, 1):
        batch = Requests(
            address=(number * device.access_bytes).astype(np.uint64),
            is_write=((np.arange(len(number)) + writes_first) % 2).astype(np.uint8),
        )
        check_served(simulate(batch, device, policy))
    rng = np.random.default_rng(5)
    number = rng.integers(0, 40, 4000) * 2048
    batch = Requests(
        address=(number * device.access_bytes).astype(np.uint64) % (1 << 28),
        is_write=(rng.random(4000) < 0.6).astype(np.uint8),
    )
    check_served(simulate(batch, device, policy))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("writes", [0.0, 0.5, 1.0])
def test_one_bank(policy, writes):
    device = load_device("ddr4-3200-x64")
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 1000, 600) * (device.row_bytes * device.banks)
    batch = Requests(
        address=rows.astype(np.uint64),
        is_write=(rng.random(600) < writes).astype(np.uint8),
    )
    check_served(simulate(batch, device, policy))


@pytest.mark.parametrize("policy", POLICIES)
def test_one_request_and_none(policy):
    device = load_device("ddr4-3200-x64")
    none = simulate(Requests(address=np.zeros(0, np.uint64), is_write=np.zeros(0, np.uint8)), device, policy)  # fmt: skip # noqa: E501
    assert none.requests == none.cycles == none.counts.act == 0
    assert none.avg_read_latency_ns is None
    one = Requests(address=np.zeros(1, np.uint64), is_write=np.zeros(1, np.uint8))
    result, logs = simulate_logged(one, device, policy)
    cycles = device.trcd + device.cl + device.burst_cycles
    assert cycles <= result.cycles <= cycles + 2
    assert logs[0].command.tolist() == [2, 0]


@pytest.mark.parametrize("policy", ["default", "ramulator", "dramsys"])
def test_no_request_starves(policy):
    """A stream of hits does not keep an older miss of its bank waiting for ever.

    DRAMsim3's does: each read puts the precharge off by tRTP, and the next comes before.
    """
    device = load_device("ddr4-3200-x64")
    row = device.row_bytes * device.banks
    hits = np.arange(6000) % (device.row_bytes // device.access_bytes) * device.access_bytes
    hits[10] = 5 * row
    batch = Requests(address=hits.astype(np.uint64), is_write=np.zeros(6000, np.uint8))
    result, logs = simulate_logged(batch, device, policy)
    miss = np.flatnonzero((logs[0].row == 5) & (logs[0].command == 0))
    assert logs[0].cycle[miss[0]] < result.cycles / 4


def test_a_refresh_every_trefi_even_where_idle():
    device = load_device("ddr4-3200-x64")
    batch = Requests(
        address=np.zeros(2, np.uint64),
        is_write=np.zeros(2, np.uint8),
        cycle=np.array([0, 20 * device.trefi], np.uint64),
    )
    for policy in POLICIES:
        assert simulate(batch, device, policy).counts.ref == 20


def test_interface_energy_only_where_the_reference_has_it():
    device = load_device("lpddr4-3200-x16")
    batch = requests(device)
    assert simulate(batch, device, "dramsim3").energy_pj.interface is None
    assert simulate(batch, device).energy_pj.interface > 0


def test_bad_input_is_said():
    device = load_device("ddr4-3200-x64")
    beyond = np.array([0, device.capacity_bytes], np.uint64)
    with pytest.raises(InputError, match="request 1: address 0x"):
        simulate(Requests(address=beyond, is_write=np.zeros(2, np.uint8)), device)
    with pytest.raises(InputError, match="one entry a request"):
        simulate(Requests(address=beyond[:1], is_write=np.zeros(2, np.uint8)), device)
    with pytest.raises(InputError, match="allowed are default"):
        simulate(requests(device), device, "fifo")


INI = """
[dram_structure]
protocol = DDR4
bankgroups = 2
banks_per_group = 2
rows = 1024
columns = 1024
device_width = 8
BL = 8
[timing]
tCK = 0.63
CL = 22
CWL = 16
tRCD = 22
tRP = 22
tRAS = 52
tRFC = 560
tREFI = 12480
tRRD_S = 4
tRRD_L = 8
tWTR_S = 4
tWTR_L = 12
tFAW = 34
tWR = 24
tCCD_S = 4
tCCD_L = 8
[power]
VDD = 1.2
IDD0 = 57
IDD2N = 37
IDD3N = 52
IDD4W = 150
IDD4R = 168
IDD5AB = 250
[system]
channel_size = 64
bus_width = 64
address_mapping = rochrababgco
"""


def test_a_dramsim3_file_is_read(tmp_path):
    path = tmp_path / "small.ini"
    path.write_text(INI)
    device = load_device(str(path))
    assert (device.ranks, device.banks, device.bank_groups) == (2, 4, 2)
    assert (device.tck_ps, device.access_bytes, device.row_bytes) == (630, 64, 8192)
    assert device.trtw == 22 + 4 - 16 + 2
    assert "tRTRS=2" in device.source
    check_served(simulate(requests(device), device, "dramsim3"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("CL = 22\nCWL", "CWL", "CL is missing"),
        ("tRAS = 52", "tRAS = 12", "tras=12 must not be below trcd=22"),
        ("bankgroups = 2", "bankgroups = 0", "bankgroups=0 must be positive"),
        ("tRP = 22", "tRP = many", "must be a whole number"),
        ("tRP = 22", "tRP = 22\ntRPX = 3", "unknown key 'tRPX'"),
        ("rochrababgco", "rochrababg", "does not cover the address"),
        ("rochrababgco", "roxxrababgco", "is no field"),
        ("protocol = DDR4", "protocol = HMC", "supported are"),
        ("[power]", "power", "power"),
    ],
)
def test_impossible_dramsim3_files(tmp_path, old, new, said):
    path = tmp_path / "small.ini"
    path.write_text(INI.replace(old, new))
    with pytest.raises(InputError, match=said):
        load_device(str(path))
