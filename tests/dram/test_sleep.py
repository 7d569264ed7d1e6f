"""Power-down and self-refresh: what the standard asks for is kept, cycles and energy by hand."""

import msgspec
import numpy as np
import pytest

from sfpsim.errors import InputError
from sfpsim.hardware.dram.device import load_device
from sfpsim.hardware.dram.simulate import COMMANDS, Requests, simulate, simulate_logged
from sfpsim.testing.rules import check_commands, commands_of

DDR4 = load_device("ddr4-3200-x64")
TIMELESS = {"wall_s": 0.0, "cpu_s": 0.0}
VARIANTS = {
    "power-down": {"power_down": 50},
    "power-down at once": {"power_down": 1},
    "self-refresh": {"self_refresh": 300},
    "both": {"power_down": 50, "self_refresh": 300},
    "self-refresh late": {"power_down": 1, "self_refresh": 5000},
    "two ranks": {"power_down": 50, "ranks": 2, "mapping": "ro ba^ro co ra bg", "rows": 1 << 15},
    "closed page": {"power_down": 40, "self_refresh": 400, "page": "closed"},
    "time-out": {"power_down": 200, "self_refresh": 700, "page": "time-out", "page_timeout": 100},
    "bank by bank": {"power_down": 50, "self_refresh": 500, "refresh": "per-bank", "trfcpb": 200},
    "two channels": {"power_down": 60, "self_refresh": 700, "channels": 2,
                     "mapping": "ro ba co ch bg"},
}  # fmt: skip


def sleeping(device=DDR4, power_down=0, self_refresh=0, **changes):
    controller = msgspec.structs.replace(
        device.controller, power_down=power_down, self_refresh=self_refresh
    )
    return msgspec.structs.replace(device, controller=controller, **changes)


def traffic(device, seed, pause, count=3000):
    """Runs of hits and random accesses with pauses of up to `pause` cycles."""
    rng = np.random.default_rng(seed)
    accesses = device.capacity_bytes * device.channels // device.access_bytes
    number = rng.integers(0, accesses, count)
    number = np.where(rng.random(count) < 0.5, number[0] // 2 + np.arange(count) // 2, number)
    cycle = np.cumsum(rng.integers(0, pause + 1, count) * (rng.random(count) < 0.1))
    return Requests(
        address=(number * device.access_bytes).astype(np.uint64),
        is_write=(rng.random(count) < 0.4).astype(np.uint8),
        cycle=cycle.astype(np.uint64),
    )


def at_cycles(cycles, device=DDR4, writes=None):
    """Accesses to one row at the given cycles."""
    step = device.access_bytes * device.bank_groups  # the group lies in the lowest bits
    return Requests(
        address=(np.arange(len(cycles)) * step).astype(np.uint64),
        is_write=np.array(writes or [0] * len(cycles), np.uint8),
        cycle=np.array(cycles, np.uint64),
    )


def commands(log):
    return [(COMMANDS[c], int(at)) for at, c in zip(log.cycle, log.command, strict=True)]


@pytest.mark.parametrize("policy", ["default", "dramsys"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_rule_is_broken_and_no_cycle_lost(variant, policy):
    device = sleeping(**VARIANTS[variant])
    entered = 0
    for seed, pause in ((1, 300), (2, 3000), (3, 30000)):
        result, logs = simulate_logged(traffic(device, seed, pause), device, policy)
        for log in logs:
            assert check_commands(commands_of(log), device, end_cycle=result.cycles) == []
            entered += sum(COMMANDS[c].endswith("_entry") for c in log.command)
        energy = result.energy_pj
        idd, scale = device.idd, device.idd.vdd * device.tck_ps / 1000 * device.devices
        cycles = sum(
            getattr(energy, state) / scale / getattr(idd, current)
            for state, current in (
                ("active_standby", "idd3n"), ("precharge_standby", "idd2n"),
                ("active_powerdown", "idd3p"), ("precharge_powerdown", "idd2p"),
                ("self_refresh", "idd6"),
            )
        )  # fmt: skip
        assert cycles == pytest.approx(result.cycles * device.channels * device.ranks)
    assert entered > 100


@pytest.mark.parametrize("variant", VARIANTS)
def test_where_a_trace_is_cut_does_not_show(variant):
    device = sleeping(**VARIANTS[variant])
    whole = traffic(device, 4, 2000, 800)
    rng = np.random.default_rng(5)
    ends = np.unique(np.append(rng.integers(1, 800, 150), 800))
    parts = [
        Requests(
            address=whole.address[a:b], is_write=whole.is_write[a:b], cycle=whole.cycle[a:b]
        )
        for a, b in zip(np.append(0, ends[:-1]), ends, strict=True)
    ]  # fmt: skip
    found = [msgspec.structs.replace(simulate(x, device), **TIMELESS) for x in (parts, whole)]
    assert found[0] == found[1]


def test_power_down_by_hand():
    """A read, a pause, a read of the same row: asleep between them, with the row open."""
    device = sleeping(power_down=50)
    result, (log,) = simulate_logged(at_cycles([100, 8000]), device)
    activate = 100 + DDR4.txp
    first = activate + DDR4.trcd
    second = 8000 + DDR4.txp
    assert commands(log) == [
        ("power_down_entry", 50), ("power_down_exit", 100), ("activate", activate),
        ("read", first), ("power_down_entry", first + 50), ("power_down_exit", 8000),
        ("read", second),
    ]  # fmt: skip
    assert result.cycles == second + DDR4.cl + DDR4.burst_cycles
    scale = DDR4.idd.vdd * DDR4.tck_ps / 1000 * DDR4.devices
    energy = result.energy_pj
    assert energy.precharge_powerdown == pytest.approx(scale * DDR4.idd.idd2p * 50)
    open_asleep = 8000 - (first + 50)
    assert energy.active_powerdown == pytest.approx(scale * DDR4.idd.idd3p * open_asleep)
    open_awake = result.cycles - activate - open_asleep
    assert energy.active_standby == pytest.approx(scale * DDR4.idd.idd3n * open_awake)
    assert energy.self_refresh == 0


def test_an_entry_waits_for_what_was_written():
    device = sleeping(power_down=1)
    _, (log,) = simulate_logged(at_cycles([0, 4000], writes=[1, 0]), device)
    kinds = dict(reversed(commands(log)))
    quiet = kinds["write"] + DDR4.cwl + DDR4.burst_cycles + DDR4.twr + 1
    assert ("power_down_entry", quiet) in commands(log)


def test_refreshes_wake_a_rank_from_power_down():
    device = sleeping(power_down=50)
    _, (log,) = simulate_logged(at_cycles([0, 3 * DDR4.trefi + 5000]), device)
    found = commands(log)
    for n in range(1, 4):
        due = n * DDR4.trefi
        assert ("power_down_exit", due) in found
        opened = n == 1  # the row that was read
        refresh = due + DDR4.txp + (DDR4.trp if opened else 0)
        assert ("refresh", refresh) in found
        assert ("power_down_entry", refresh + 50) in found


def test_self_refresh_by_hand():
    """No refresh is sent to a rank that refreshes itself, one before it does so again."""
    device = sleeping(self_refresh=1000)
    pause = 4 * DDR4.trefi
    result, (log,) = simulate_logged(at_cycles([2, pause, 2 * pause]), device)
    start = 2 + DDR4.trcd
    close = start + 1000
    entry = close + DDR4.trp
    second = pause + DDR4.txs + DDR4.trcd
    assert commands(log)[:7] == [
        ("activate", 2), ("read", start), ("precharge_all", close),
        ("self_refresh_entry", entry), ("self_refresh_exit", pause),
        ("activate", pause + DDR4.txs), ("read", second),
    ]  # fmt: skip
    again = second + 1000 + DDR4.trp
    assert commands(log)[7:11] == [
        ("precharge_all", second + 1000), ("refresh", again),
        ("self_refresh_entry", again + DDR4.trfc), ("self_refresh_exit", 2 * pause),
    ]  # fmt: skip
    assert result.counts.ref == 1
    scale = DDR4.idd.vdd * DDR4.tck_ps / 1000 * DDR4.devices
    asleep = (pause - entry) + (2 * pause - again - DDR4.trfc)
    assert result.energy_pj.self_refresh == pytest.approx(scale * DDR4.idd.idd6 * asleep)


@pytest.mark.parametrize("woken", ["closing", "refreshing"])
def test_a_request_on_the_way_to_self_refresh(woken):
    """Rows that were closed, and a refresh that was begun, hold a request up by no more."""
    device = sleeping(self_refresh=1000)
    late = 30000
    entry = 2 + DDR4.trcd + 1000
    if woken == "closing":
        _, (log,) = simulate_logged(at_cycles([2, entry + 5]), device)
        assert commands(log)[2:4] == [("precharge_all", entry), ("activate", entry + DDR4.trp)]
    else:
        close = late + DDR4.txs + DDR4.trcd + 1000
        _, (log,) = simulate_logged(at_cycles([2, late, close + DDR4.trp + 5]), device)
        begun = close + DDR4.trp
        assert commands(log)[7:10] == [
            ("precharge_all", close), ("refresh", begun), ("activate", begun + DDR4.trfc),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("timing", "rule"),
    [("txp", "tXP"), ("tcke", "tCKE"), ("txs", "tXS"), ("tckesr", "tCKESR"), ("twr", "tWRPDEN"),
     ("cl", "tRDPDEN")],
)  # fmt: skip
def test_seeded_faults_are_found(timing, rule):
    device = sleeping(power_down=1, self_refresh=2000, tcke=40, tckesr=4000)
    wrong = msgspec.structs.replace(device, **{timing: getattr(device, timing) - 2})
    found = set()
    for pause in (300, 3000, 30000):
        _, (log,) = simulate_logged(traffic(device, 7, pause), wrong)
        found |= {v.rule for v in check_commands(commands_of(log), device)}
    assert rule in found


def test_a_device_that_never_sleeps_has_no_such_energy():
    energy = simulate(at_cycles([0, 4000]), DDR4).energy_pj
    assert energy.active_powerdown is energy.precharge_powerdown is energy.self_refresh is None


def test_sleep_saves_energy_and_costs_time():
    batch = traffic(DDR4, 8, 3000)
    awake = simulate(batch, DDR4)
    asleep = simulate(batch, sleeping(power_down=50))
    assert asleep.energy_pj.total < 0.9 * awake.energy_pj.total
    assert asleep.avg_read_latency_ns > awake.avg_read_latency_ns
    never = simulate(batch, sleeping(power_down=1 << 30))
    assert (never.cycles, never.counts) == (awake.cycles, awake.counts)


@pytest.mark.parametrize("policy", ["dramsim3", "ramulator"])
def test_a_policy_whose_reference_does_not_sleep_refuses(policy):
    with pytest.raises(InputError, match=r"lets no rank power down.*allowed are default"):
        simulate(at_cycles([0]), sleeping(power_down=50), policy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"power_down": 50, "txp": 0}, "power_down=50 needs txp"),
        ({"self_refresh": 50, "txs": 0, "tckesr": 0}, "self_refresh=50 needs txs, tckesr"),
        ({"power_down": -1}, "power_down=-1 must be from 0"),
        ({"power_down": 100, "page": "time-out", "page_timeout": 100}, "above page_timeout=100"),
        ({"self_refresh": 500, "ranks": 2, "mapping": "ro ra ba co bg"}, "needs one rank, not 2"),
    ],
)
def test_a_device_that_cannot_sleep_so_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        sleeping(**changes)


def test_a_missing_current_is_named():
    idd = msgspec.structs.replace(DDR4.idd, idd2p=None)
    with pytest.raises(InputError, match="power_down=9 needs idd2p"):
        sleeping(power_down=9, idd=idd)
