"""The rule checker: every rule is kept at its limit and broken a cycle earlier."""

import msgspec
import numpy as np
import pytest

from rules.device import DEVICE, DUAL, LONG, PER_BANK
from sfpsim.errors import InputError
from sfpsim.hardware.dram.simulate import COMMANDS as ENGINE_COMMANDS
from sfpsim.hardware.dram.simulate import CommandLog
from sfpsim.testing import rule_kernels, rules
from sfpsim.testing.rules import RuleChecker, check_commands, commands_of, parse_commands

OPEN = "0 ACT 0 0 0 5"
TWO = [OPEN, "10 ACT 0 1 0 5"]
FOUR = [f"{10 * i} ACT 0 {i % 2} {i // 2} 5" for i in range(4)]

# A rule, what comes before, and the last command at the first cycle that is allowed.
LIMITS = [
    ("tRCD", [OPEN], "21 RD 0 0 0 5"),
    ("tRCD", [OPEN], "17 WR 0 0 0 5"),
    ("tRAS", [OPEN], "52 PRE 0 0 0"),
    ("tRAS", [OPEN], "52 PREA 0 0 0"),
    ("tRP", [OPEN, "60 PRE 0 0 0"], "83 ACT 0 0 0 6"),
    ("tRP", [OPEN, "60 PREA 0 0 0"], "83 ACT 0 0 0 6"),
    ("tRP", [OPEN, "60 PRE 0 0 0"], "83 REF 0 0 0"),
    ("tRP", [OPEN, "60 PRE 0 0 0"], "83 REFPB 0 0 0"),
    ("tRP", [OPEN, "60 PRE 0 0 0"], "83 SRE 0 0 0"),
    ("tRP", [OPEN, "30 RDA 0 0 0 5"], "75 ACT 0 0 0 6"),
    ("tRP", [OPEN, "50 RDA 0 0 0 5"], "84 ACT 0 0 0 6"),
    ("tRP", [OPEN, "50 WRA 0 0 0 5"], "115 ACT 0 0 0 6"),
    ("tRRD_S", [OPEN], "4 ACT 0 1 0 5"),
    ("tRRD_L", [OPEN], "7 ACT 0 0 1 5"),
    ("tFAW", [OPEN, "4 ACT 0 1 0 5", "8 ACT 0 0 1 5", "12 ACT 0 1 1 5"], "33 ACT 0 0 2 5"),
    ("tCCD_S", [*TWO, "40 RD 0 0 0 5"], "44 RD 0 1 0 5"),
    ("tCCD_L", [OPEN, "40 RD 0 0 0 5"], "46 RD 0 0 0 5"),
    ("tCCD_S", [*TWO, "40 WR 0 0 0 5"], "44 WR 0 1 0 5"),
    ("tCCD_L", [OPEN, "40 WR 0 0 0 5"], "46 WR 0 0 0 5"),
    ("tRTW", [*TWO, "40 RD 0 0 0 5"], "53 WR 0 1 0 5"),
    ("tWTR_S", [*TWO, "40 WR 0 0 0 5"], "63 RD 0 1 0 5"),
    ("tWTR_L", [OPEN, "40 WR 0 0 0 5"], "67 RD 0 0 0 5"),
    ("tRTP", [OPEN, "50 RD 0 0 0 5"], "61 PRE 0 0 0"),
    ("tRTP", [OPEN, "50 RD 0 0 0 5"], "61 PREA 0 0 0"),
    ("tWR", [OPEN, "50 WR 0 0 0 5"], "92 PRE 0 0 0"),
    ("tPPD", [*TWO, "80 PRE 0 0 0"], "83 PRE 0 1 0"),
    ("tRFC", ["0 REF 0 0 0"], "200 ACT 0 0 0 5"),
    ("tRFC", ["0 REF 0 0 0"], "200 REF 0 0 0"),
    ("tRFC", ["0 REF 0 0 0"], "200 REFPB 0 1 2"),
    ("tRFC", ["0 REF 0 0 0"], "200 SRE 0 0 0"),
    ("tRFCpb", ["0 REFPB 0 1 2"], "90 ACT 0 1 2 5"),
    ("tRFCpb", ["0 REFPB 0 1 2"], "90 REF 0 0 0"),
    ("tpbR2pbR", ["0 REFPB 0 1 2"], "60 REFPB 0 0 0"),
    ("tXP", ["0 PDE 0 0 0", "20 PDX 0 0 0"], "28 ACT 0 0 0 5"),
    ("tRDPDEN", [OPEN, "30 RD 0 0 0 5"], "55 PDE 0 0 0"),
    ("tWRPDEN", [OPEN, "30 WR 0 0 0 5"], "72 PDE 0 0 0"),
    ("tCKE", ["0 PDE 0 0 0"], "6 PDX 0 0 0"),
    ("tXS", ["0 SRE 0 0 0", "20 SRX 0 0 0"], "230 ACT 0 0 0 5"),
    ("tCKESR", ["0 SRE 0 0 0"], "10 SRX 0 0 0"),
]


def found(lines, device=DEVICE, **more):
    return check_commands(parse_commands(lines), device, **more)


def earlier(line, cycles=1):
    cycle, rest = line.split(" ", 1)
    return f"{int(cycle) - cycles} {rest}"


@pytest.mark.parametrize(("rule", "before", "last"), LIMITS)
def test_limits(rule, before, last):
    assert found([*before, last]) == []
    (violation,) = [v for v in found([*before, earlier(last)]) if v.rule == rule]
    assert violation.wanted - violation.found == 1
    assert violation.now == len(before)
    assert violation.now_cycle == int(last.split()[0]) - 1
    assert violation.now_command == last.split()[1]
    assert f"at least {violation.wanted}" in str(violation)


def test_every_interval_has_a_limit_of_its_own():
    names = {r.name for r in rules.intervals(DEVICE)}
    assert names - {rule for rule, _, _ in LIMITS} == {"tRC", "t32AW"}


def test_trc_follows_from_its_parts():
    lines = [OPEN, "51 PRE 0 0 0", "74 ACT 0 0 0 6"]
    assert [v.rule for v in found(lines)] == ["tRAS", "tRC"]


def test_32_activates():
    lines, at = [], 0
    for i in range(33):
        bank = f"0 {i % 2} {i // 2 % 4}"
        if i >= 8:
            lines.append(f"{at - 25} PRE {bank}")
        lines.append(f"{at} ACT {bank} 5")
        at += 12
    lines.sort(key=lambda line: int(line.split()[0]))
    (violation,) = found(lines)
    assert (violation.rule, violation.wanted, violation.found) == ("t32AW", 400, 384)
    moved = [*lines[:-1], "400 ACT 0 0 0 5"]
    assert found(moved) == []


STATES = [
    ("column to a closed row", [], "50 RD 0 0 0 5"),
    ("column to a closed row", [OPEN, "52 PRE 0 0 0"], "90 WR 0 0 0 5"),
    ("column to a closed row", [OPEN, "40 RDA 0 0 0 5"], "90 RD 0 0 0 5"),
    ("column to another row", [OPEN], "40 RD 0 0 0 6"),
    ("activate of an open bank", [OPEN], "90 ACT 0 0 0 6"),
    ("refresh with an open bank", [OPEN], "90 REF 0 0 0"),
    ("refresh with an open bank", [OPEN], "90 REFPB 0 0 0"),
    ("refresh with an open bank", [OPEN], "90 SRE 0 0 0"),
    ("command in power-down", ["0 PDE 0 0 0"], "50 ACT 0 0 0 5"),
    ("command in power-down", ["0 SRE 0 0 0"], "50 REF 0 0 0"),
    ("exit without power-down", [], "50 PDX 0 0 0"),
    ("self-refresh again without a refresh", ["0 SRE 0 0 0", "20 SRX 0 0 0"], "300 SRE 0 0 0"),
]


@pytest.mark.parametrize(("rule", "before", "last"), STATES)
def test_states(rule, before, last):
    assert found(before) == []
    (violation,) = found([*before, last])
    assert violation.rule == rule
    assert violation.now == len(before)
    assert violation.now_command in str(violation)


def test_self_refresh_again_after_a_refresh():
    before = ["0 SRE 0 0 0", "20 SRX 0 0 0", "230 REF 0 0 0", "430 SRE 0 0 0"]
    assert found(before) == []


def test_a_column_without_its_row_is_not_compared():
    assert found([OPEN, "40 RD 0 0 0"]) == []


def test_other_banks_and_ranks_are_not_touched():
    assert found([OPEN, "1 ACT 1 0 0 7", "52 PRE 0 0 0", "75 REFPB 0 0 0", "76 RD 1 0 0 7"]) == []
    assert found(["0 REF 0 0 0", "1 ACT 1 0 0 5"]) == []


def test_the_data_bus():
    both = [OPEN, "1 ACT 1 0 0 5"]
    assert found([*both, "40 RD 0 0 0 5", "46 RD 1 0 0 5"]) == []
    (turn,) = found([*both, "40 RD 0 0 0 5", "45 RD 1 0 0 5"])
    assert (turn.rule, turn.wanted, turn.found) == ("data bus", 6, 5)
    assert found([*both, "40 WR 0 0 0 5", "44 WR 1 0 0 5"]) == []
    (overlap,) = found([*both, "40 WR 0 0 0 5", "43 WR 1 0 0 5"])
    assert (overlap.rule, overlap.wanted, overlap.found) == ("data bus", 4, 3)
    # data of a write may come before that of a read issued earlier, if it fits
    assert [v.rule for v in found([*both, "40 RD 0 0 0 5", "41 WR 1 0 0 5"])] == ["data bus"]
    assert found([*both, "40 RD 0 0 0 5", "52 WR 1 0 0 5"]) == []


def test_the_command_bus():
    assert [v.rule for v in found([OPEN, "0 ACT 1 0 0 5"])] == ["command bus"]
    (held,) = found([OPEN, "3 PRE 1 0 0 5"], LONG)
    assert (held.wanted, held.found) == (4, 3)
    assert found([OPEN, "4 ACT 1 0 0 5", "8 PRE 1 1 0", "10 PRE 1 1 1"], LONG)[0].rule == "tPPD"
    lines = [OPEN, "4 ACT 1 0 0 5", "8 PRE 1 1 0", "11 PRE 1 1 1"]
    assert found(lines, LONG) == []
    for at in (1, 2, 3):
        broken = found([*lines[:at], earlier(lines[at])], LONG)
        assert "command bus" in {v.rule for v in broken} or at == 3
    columns = [OPEN, "1 ACT 1 0 0 5", "40 RD 0 0 0 5", "40 ACT 0 1 0 5"]
    assert [v.rule for v in found(columns)] == ["command bus"]
    assert found(columns, DUAL) == []
    assert [v.rule for v in found([*columns, "40 ACT 0 1 1 5"], DUAL)][:1] == ["command bus"]


def test_edges_of_long_commands():
    lines = [OPEN, "54 PRE 0 0 0", "75 ACT 0 0 0 6"]
    assert found(lines, LONG, edge="last") == []
    assert [v.rule for v in found(lines, LONG)] == ["tRP"]
    assert {v.rule for v in found([OPEN, "53 PRE 0 0 0"], LONG, edge="last")} == {"tRAS"}
    assert found([OPEN, "53 PRE 0 0 0"], LONG) == []


def refreshed(every, count, kind="REF", banks=((0, 0),)):
    return [f"{every * i + 100 * j} {kind} {rank} {g} {b}"
            for i in range(1, count + 1)
            for j, (rank, g, b) in enumerate((r, *gb) for r in (0, 1) for gb in banks)]  # fmt: skip


def test_refreshes_may_be_put_off_eight_times():
    assert found(refreshed(10000, 30)) == []
    assert found([], end_cycle=89999) == []
    late = found([], end_cycle=90000)
    assert [(v.rule, v.wanted, v.found) for v in late] == [("refresh overdue", 8, 9)] * 2
    assert "9 put off, at most 8" in str(late[0])
    assert found([], end_cycle=90000, postponed=9) == []
    slow = found(refreshed(11000, 120))
    assert {v.rule for v in slow} == {"refresh overdue"}
    assert found([], msgspec.structs.replace(DEVICE, refresh="none"), end_cycle=10**9) == []


def test_every_bank_is_refreshed():
    banks = [(g, b) for g in range(2) for b in range(4)]
    assert found(refreshed(10000, 12, "REFPB", banks), PER_BANK, end_cycle=120000) == []
    left_out = found(refreshed(10000, 12, "REFPB", banks[:-1]), PER_BANK, end_cycle=120000)
    assert {v.rule for v in left_out} == {"refresh overdue"}
    assert len(left_out) == 2


def test_self_refresh_refreshes():
    lines = ["100 SRE 0 0 0", "110 SRE 1 0 0"]
    assert found(lines, end_cycle=10**8) == []
    awake = [*lines, f"{10**7} SRX 0 0 0", f"{10**7 + 9} SRX 1 0 0"]
    assert found(awake, end_cycle=10**7 + 80000) == []
    assert len(found(awake, end_cycle=10**7 + 90000)) == 2


def test_batches_do_not_show():
    lines = [line for _, before, last in LIMITS for line in (*before, earlier(last))]
    at, shifted = 0, []
    for line in lines:
        cycle, rest = line.split(" ", 1)
        at += 1 + int(cycle) % 7
        shifted.append(f"{at} {rest}")
    whole = found(shifted)
    checker, parts = RuleChecker(DEVICE), []
    for i in range(0, len(shifted), 5):
        parts += checker.check(parse_commands(shifted[i : i + 5]))
    parts += checker.finish()
    assert len(whole) > 60
    assert [(v.rule, v.now, v.before, v.wanted, v.found) for v in parts] == [
        (v.rule, v.now, v.before, v.wanted, v.found) for v in whole
    ]


def test_more_violations_than_expected_are_all_there():
    lines = [f"{i} RD 0 0 0 5" for i in range(0, 3000, 6)]
    assert [v.rule for v in found(lines)] == ["column to a closed row"] * 500
    lines = [f"{i} RD 0 0 0 5" for i in range(2000)]
    assert len(found(lines)) > 6000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("5 READ 0 0 0 5", "ACT, RD"),
        ("x RD 0 0 0 5", "line 2"),
        ("5", "line 2"),
        ("5 RD 0 0", "line 2"),
        ("5 RD 0 0 0 5 6", "line 2"),
        ("5 RD 2 0 0 5", "rank 2: allowed are 0 to 1"),
        ("5 RD 0 2 0 5", "bank group 2"),
        ("5 RD 0 0 4 5", "bank 4"),
        ("5 RD 0 -1 0 5", "bank group -1"),
        ("-5 RD 0 0 0 5", "before the last one"),
    ],
)
def test_what_is_no_command(line, said):
    with pytest.raises(InputError, match=said):
        found(["# cycle command rank group bank row", line])


def test_the_engines_log_is_understood():
    names = ("activate", "read", "precharge_all", "refresh")
    numbers = np.array([ENGINE_COMMANDS.index(n) for n in names], np.int64)
    none = np.array([0, 0, -1, -1], np.int64)
    log = CommandLog(
        cycle=np.array([0, 21, 60, 82]), command=numbers, rank=np.zeros(4, np.int64),
        bank_group=none, bank=none, row=np.array([5, 5, -1, -1]), column=none,
    )  # fmt: skip
    assert set(rules.LOGGED) >= set(ENGINE_COMMANDS)
    assert [v.rule for v in check_commands(commands_of(log), DEVICE)] == ["tRP"]


def test_the_kernel_says_the_same_uncompiled(monkeypatch):
    lines = [*FOUR, "33 ACT 0 0 2 5", "35 RD 0 0 0 5", "36 PREA 0 0 0", "50 REF 0 0 0"]
    expected = found(lines)
    for name in [n for n in vars(rule_kernels) if hasattr(getattr(rule_kernels, n), "py_func")]:
        monkeypatch.setattr(rule_kernels, name, getattr(rule_kernels, name).py_func)
    assert found(lines) == expected
    assert expected


def test_a_million_commands_are_checked():
    n = 1_000_000
    step = np.arange(n, dtype=np.int64)
    from sfpsim.testing.rules import Commands

    kind = np.full(n, rules.COMMANDS.index("RD"))
    kind[0] = rules.COMMANDS.index("ACT")
    none = np.zeros(n, np.int64)
    device = msgspec.structs.replace(DEVICE, refresh="none")
    commands = Commands(cycle=100 + 6 * step, kind=kind, rank=none, group=none, bank=none, row=none)
    violations = check_commands(commands, device)
    assert {v.rule for v in violations} == {"tRCD"}
