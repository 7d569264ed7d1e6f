"""The engine against the rule checker: random traffic breaks no rule, a seeded fault is found."""

from dataclasses import dataclass
from itertools import product

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfpsim.errors import InputError
from sfpsim.hardware.dram.device import CommandCycles, load_device, presets
from sfpsim.hardware.dram.simulate import KERNELS, Requests, simulate_logged
from sfpsim.testing.rules import check_commands, commands_of

POLICIES = tuple(KERNELS)
SHORT = CommandCycles(act=1, column=1, pre=1)
DDR4 = load_device("ddr4-3200-x64")


@dataclass(frozen=True)
class Traffic:
    """Random requests: of `hot` rows in `banks` banks, the rest anywhere; bursts and pauses."""

    seed: int
    requests: int = 2000
    hot: float = 0.5
    writes: float = 0.4
    pause: int = 0

    def on(self, device):
        rng = np.random.default_rng(self.seed)
        n = self.requests
        accesses = device.capacity_bytes * device.channels // device.access_bytes
        number = rng.integers(0, accesses, n)
        start = rng.integers(0, accesses - n)
        number = np.where(rng.random(n) < self.hot, start + np.arange(n) // 2, number)
        cycle = np.cumsum(rng.integers(0, self.pause + 1, n) * (rng.random(n) < 0.1))
        return Requests(
            address=(number * device.access_bytes).astype(np.uint64),
            is_write=(rng.random(n) < self.writes).astype(np.uint8),
            cycle=cycle.astype(np.uint64),
        )


def violations(traffic, device, policy, true=None):
    """What the checker says of the engine's commands on `device`, by the numbers of `true`."""
    result, logs = simulate_logged(traffic.on(device), device, policy)
    checked = [
        check_commands(commands_of(log), true or device, end_cycle=result.cycles) for log in logs
    ]
    if policy not in ("dramsim3", "ramulator"):  # which make one of queued writes of an address
        counts = result.counts
        assert counts.rd + counts.wr + counts.forwarded == result.requests
    return [v for found in checked for v in found]


def as_run(device, policy):
    """The device that the policy's reference sees: in DRAMsim3 every command takes a cycle."""
    return msgspec.structs.replace(device, command_cycles=SHORT) if policy == "dramsim3" else device


traffic = st.builds(
    Traffic, seed=st.integers(0, 1 << 30), requests=st.sampled_from([1, 40, 1500]),
    hot=st.sampled_from([0.0, 0.5, 1.0]), writes=st.sampled_from([0.0, 0.3, 1.0]),
    pause=st.sampled_from([0, 30, 3000]),
)  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", presets())
@settings(max_examples=12)
@given(traffic=traffic)
def test_random_traffic_breaks_no_rule(name, policy, traffic):
    assert violations(traffic, as_run(load_device(name), policy), policy) == []


VARIANTS = {
    "two ranks": {"ranks": 2, "mapping": "ro ba^ro co ra bg", "rows": DDR4.rows // 2},
    "per-bank refresh": {"refresh": "per-bank", "trfcpb": 200},
    "closed page": {"page": "closed"},
    "time-out": {"page": "time-out", "page_timeout": 100},
    "no refresh": {"refresh": "none"},
    "32 activates": {"t32aw": 400},
    "two channels": {"channels": 2, "mapping": "ro ba co ch bg"},
    "one bank group": {"bank_groups": 1, "mapping": "ro ba co", "trrd_l": DDR4.trrd_s,
                       "tccd_l": DDR4.tccd_s, "twtr_l": DDR4.twtr_s},
    "two buses": {"dual_command": True},
}  # fmt: skip


NOT_THERE = ("per-bank refresh", "ramulator")


@pytest.mark.parametrize(
    ("variant", "policy"), [x for x in product(VARIANTS, POLICIES) if x != NOT_THERE]
)
def test_every_feature_breaks_no_rule(variant, policy):
    if (variant, policy) == ("per-bank refresh", "dramsim3"):
        pytest.xfail("tRFCpb of the refreshed bank is not kept")
    device = msgspec.structs.replace(DDR4, **VARIANTS[variant])
    for seed, pause in ((1, 0), (2, 3000)):
        assert violations(Traffic(seed=seed, pause=pause), device, policy) == []


def test_a_controller_that_refreshes_whole_ranks_takes_no_device_that_does_not():
    device = msgspec.structs.replace(DDR4, **VARIANTS[NOT_THERE[0]])
    with pytest.raises(InputError, match="refreshes all banks of a rank at once"):
        violations(Traffic(seed=1), device, NOT_THERE[1])


FAULTS = {
    "trcd": "tRCD", "trp": "tRP", "tras": "tRAS", "trrd_s": "tRRD_S", "trrd_l": "tRRD_L",
    "tfaw": "tFAW", "twtr_s": "tWTR_S", "twtr_l": "tWTR_L", "twr": "tWR", "trtp": "tRTP",
    "tccd_l": "tCCD_L", "trtw": "tRTW", "trfc": "tRFC",
}  # fmt: skip
# Bank groups in the high bits, so that columns of one group follow each other.
GROUPED = msgspec.structs.replace(DDR4, mapping="ro bg ba co", trcd_wr=DDR4.trcd)


@pytest.mark.parametrize("less", [1, 2, 3])
@pytest.mark.parametrize("timing", FAULTS)
def test_seeded_faults_are_found(timing, less):
    changed = {timing: getattr(GROUPED, timing) - less}
    if timing == "trcd":
        changed["trcd_wr"] = changed["trcd"]
    wrong = msgspec.structs.replace(GROUPED, **changed)
    rules = set()
    for hot, writes in ((0.0, 0.0), (0.0, 0.5), (0.7, 0.3), (1.0, 0.5)):
        load = Traffic(seed=3, requests=4000, hot=hot, writes=writes)
        rules |= {v.rule for v in violations(load, wrong, "default", true=GROUPED)}
    assert FAULTS[timing] in rules


def test_a_longer_refresh_interval_is_found():
    wrong = msgspec.structs.replace(DDR4, trefi=DDR4.trefi * 3 // 2)
    load = Traffic(seed=1, requests=40000, pause=1000)
    assert {v.rule for v in violations(load, wrong, "default", true=DDR4)} == {"refresh overdue"}


@pytest.mark.parametrize(
    ("field", "rule"), [("act", "command bus"), ("column", "command bus"), ("pre", "command bus")]
)
def test_a_shorter_command_is_found(field, rule):
    true = load_device("lpddr4-3200-x16")
    cycles = msgspec.structs.replace(
        true.command_cycles, **{field: getattr(true.command_cycles, field) - 1}
    )
    wrong = msgspec.structs.replace(true, command_cycles=cycles)
    found = {v.rule for v in violations(Traffic(seed=1), wrong, "default", true=true)}
    assert rule in found


@pytest.mark.slow
@pytest.mark.parametrize("name", presets())
def test_ten_million_commands(name):
    device = load_device(name)
    commands, seed = 0, 0
    while commands < 10_000_000:
        load = Traffic(seed=seed, requests=1_000_000, hot=seed % 3 / 2, writes=seed % 4 / 4)
        result, logs = simulate_logged(load.on(device), device, "default")
        for log in logs:
            commands += len(log.cycle)
            assert check_commands(commands_of(log), device, end_cycle=result.cycles) == []
        seed += 1
