"""The checker against one that looks at every pair of commands."""

import numpy as np
import pytest

from rules.device import DEVICE, DUAL, LONG
from sfpsim.testing import rule_kernels as k
from sfpsim.testing.rules import COMMANDS, Commands, RuleChecker, intervals

IN_GROUP = DEVICE.banks // DEVICE.bank_groups
WHOLE_RANK = ("PREA", "REF", "PDE", "PDX", "SRE", "SRX")


def touches(a, b, place):
    """Whether commands `a` and `b` meet in `place`; one to a whole rank meets all its banks."""
    if a["rank"] != b["rank"]:
        return False
    if place == k.SAME_RANK or a["name"] in WHOLE_RANK or b["name"] in WHOLE_RANK:
        return True
    if a["group"] != b["group"]:
        return False
    return place == k.SAME_GROUP or a["bank"] == b["bank"]


def kind(command):
    return COMMANDS.index({"PREA": "PRE"}.get(command["name"], command["name"]))


def naive(commands, device):
    """(rule, number of the command) of every violation, pair by pair."""
    out = set()
    lengths = device.command_cycles
    held = {"ACT": lengths.act, "RD": lengths.column, "WR": lengths.column}
    for n, b in enumerate(commands):
        before = commands[:n]
        for rule in intervals(device):
            mine = [a for a in before if kind(a) == rule.first and touches(a, b, rule.place)]
            late = len(mine) >= rule.window and kind(b) == rule.then
            if late and b["cycle"] - mine[-rule.window]["cycle"] < rule.cycles:
                out.add((rule.name, n))
        out |= {("command bus", n) for a in before if b["name"] not in WHOLE_RANK[2:]
                and a["name"] not in WHOLE_RANK[2:]
                and not (device.dual_command and (a["name"] in "RD WR") != (b["name"] in "RD WR"))
                and b["cycle"] < a["cycle"] + held.get(a["name"], lengths.pre)}  # fmt: skip
        out |= {("data bus", n) for a in before if bursts_meet(a, b, device)}
        out |= {(rule, n) for rule in states(before, b)}
    return out


def bursts_meet(a, b, device):
    latency = {"RD": device.cl, "WR": device.cwl}
    if a["name"] not in latency or b["name"] not in latency:
        return False
    turn = a["rank"] != b["rank"] and "RD" in (a["name"], b["name"])
    apart = device.burst_cycles + (device.trtrs if turn else 0)
    return abs(b["cycle"] + latency[b["name"]] - a["cycle"] - latency[a["name"]]) < apart


def states(before, b):
    """Replay the rank from the start to see which rows are open, and whether it sleeps."""
    rows, asleep = {}, False
    for a in before:
        if a["rank"] != b["rank"]:
            continue
        bank = a["group"], a["bank"]
        if a["name"] == "ACT":
            rows[bank] = a["row"]
        elif a["name"] == "PRE":
            rows.pop(bank, None)
        elif a["name"] == "PREA":
            rows.clear()
        elif a["name"] in ("PDE", "SRE", "PDX", "SRX"):
            asleep = a["name"] in ("PDE", "SRE")
    if asleep and b["name"] not in ("PDX", "SRX"):
        yield "command in power-down"
    if not asleep and b["name"] in ("PDX", "SRX"):
        yield "exit without power-down"
    row = rows.get((b["group"], b["bank"]))
    if b["name"] in ("RD", "WR") and row is None:
        yield "column to a closed row"
    elif b["name"] in ("RD", "WR") and row != b["row"]:
        yield "column to another row"
    elif (b["name"] == "ACT" or b["name"] == "REFPB") and row is not None:
        yield "activate of an open bank" if b["name"] == "ACT" else "refresh with an open bank"
    elif b["name"] in ("REF", "SRE") and rows:
        yield "refresh with an open bank"


def random_commands(seed, device, count=120):
    """Commands that are neither all legal nor all wrong; a sleeping rank mostly stays asleep."""
    rng = np.random.default_rng(seed)
    weights = {"ACT": 8, "RD": 8, "WR": 8, "PRE": 6, "PREA": 1, "REF": 1, "REFPB": 2, "PDE": 0.3,
               "PDX": 0.6, "SRE": 0.2, "SRX": 0.4}  # fmt: skip
    names = rng.choice(
        list(weights), count, p=np.array(list(weights.values())) / sum(weights.values())
    )
    cycle = np.cumsum(rng.choice([0, 1, 3, 6, 12, 25], count))
    return [
        {"cycle": int(c), "name": str(name), "rank": int(rng.integers(device.ranks)),
         "group": int(rng.integers(device.bank_groups)), "bank": int(rng.integers(2)),
         "row": int(rng.integers(2))}
        for c, name in zip(cycle, names, strict=True)
    ]  # fmt: skip


def checked(commands, device):
    def column(key):
        return np.array([c[key] for c in commands], np.int64)

    kinds = np.array([COMMANDS.index(c["name"]) for c in commands], np.int64)
    keys = ("cycle", "rank", "group", "bank", "row")
    batch = Commands(kind=kinds, **{key: column(key) for key in keys})
    found = RuleChecker(device).check(batch)
    return {(v.rule, v.now) for v in found if v.rule != "refresh overdue"}


@pytest.mark.parametrize("device", [DEVICE, LONG, DUAL], ids=["plain", "long", "dual"])
def test_every_pair(device):
    seen = set()
    for seed in range(12):
        commands = random_commands(seed, device)
        expected = naive(commands, device)
        assert checked(commands, device) == expected
        seen |= {rule for rule, _ in expected}
    assert len(seen) > 25
