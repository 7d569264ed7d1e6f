"""What is shown of a network's step: tables, figures, LaTeX, gains worked out by hand."""

import csv
import io
import re
from importlib import resources

import msgspec
import pytest
from rich.console import Console

from sfpsim.experiment.network import BASES, NetworkResult, simulate_network
from sfpsim.hardware.machine import load_machine
from sfpsim.report.latex import escaped, network_latex
from sfpsim.report.network import gains_table, step_table, traffic_table
from sfpsim.report.network_figures import FIGURES, _rows_of, bandwidths, modelled_ns, write_network
from sfpsim.trace.reader import open_trace

MACHINE = load_machine("sfp-2024")


@pytest.fixture(scope="module")
def result():
    profile = open_trace(resources.files("sfpsim") / "sample" / "resnet8")
    return simulate_network(
        "mobilenet_v3_small", ["bf16", "all=sfp:m=2,e=4"], batch=1, profile=profile,
        against=["fp32", "bf16"],
    )  # fmt: skip


def shown(table):
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_gains_are_the_bases_over_the_containers(result):
    step, comparison = result
    profile = open_trace(resources.files("sfpsim") / "sample" / "resnet8")
    _, alone = simulate_network("mobilenet_v3_small", list(BASES.values())[:2], batch=1,
                                profile=profile)  # fmt: skip
    assert [c.container for c in comparison.containers] == ["bf16", "all=sfp:m=2,e=4"]
    for mine, c in zip(comparison.containers, step.containers, strict=True):
        assert [g.base for g in c.gains] == ["fp32", "bf16"]
        for base, g in zip(alone.containers, c.gains, strict=True):
            a, b = base.totals, mine.totals
            assert g.policy == base.container
            assert g.speed_up == pytest.approx(a.time_ns / b.time_ns)
            assert g.speed_up_error == 0  # plain bases in bandwidth detail run whole
            assert g.speed_up_band.u50 == pytest.approx(a.time_band_ns.u50 / b.time_band_ns.u50)
            assert g.energy_high == pytest.approx(a.energy_high_pj.total / b.energy_high_pj.total)
            assert g.traffic == pytest.approx(
                (a.read_bytes + a.write_bytes) / (b.read_bytes + b.write_bytes)
            )


def test_tables_say_what_moves_and_what_limits(result):
    step, _ = result
    text = shown(traffic_table(step))
    assert "(compulsory)" in text
    assert "<- simulated" in text
    text = shown(gains_table(step))
    assert re.search(r"all=sfp:m=2,e=4\s+fp32", text)
    assert f"{step.containers[1].gains[0].speed_up:.2f}" in text
    rows = shown(step_table(step.containers[1]))
    for name in ("features.0.0", "classifier.3"):
        assert name in rows
    assert rows.count("weight_gradient") == sum(
        x.pass_ == "weight_gradient" for x in step.containers[1].layers
    )


def test_the_figures_hold_the_results_numbers(result, tmp_path):
    step, _ = result
    written = {p.name for p in write_network(step, "sfp-2024", tmp_path)}
    names = ("roofline", "layers", "energies", "bandwidths")
    assert written == {f"{n}.{e}" for n in names for e in ("svg", "pdf", "csv")} | {
        "network.json", "network.tex",
    }  # fmt: skip
    back = msgspec.json.decode((tmp_path / "network.json").read_bytes(), type=NetworkResult)
    assert back == step
    rows = list(csv.DictReader((tmp_path / "layers.csv").open()))
    for c in step.containers:
        total = sum(float(r["time_ns"]) for r in rows if r["container"] == c.container)
        assert total == pytest.approx(sum(x.time_ns for x in c.layers))
    rows = list(csv.DictReader((tmp_path / "energies.csv").open()))
    found = sum(float(v) for k, v in rows[0].items() if k.endswith("_pj"))
    assert rows[0]["tables"] == "low"
    assert found == pytest.approx(step.containers[0].energy_low_pj.total)


def test_no_dot_lies_above_its_roofs(result):
    step, _ = result
    peak = MACHINE.compute.macs_per_cycle * MACHINE.compute.clock_mhz / 1e6
    rows = FIGURES[0](step, MACHINE).rows[1:]
    assert rows
    for *_, macs_a_byte, tmacs in rows:
        assert tmacs <= peak * (1 + 1e-9)
        assert tmacs <= macs_a_byte * MACHINE.peak_gbps / 1e3 * (1 + 1e-9)


def test_gains_over_bandwidth_end_where_the_array_limits(result):
    step, _ = result
    rows = bandwidths(step, MACHINE).rows[1:]
    for share in (1.0, 0.7, 0.5):
        gains = [y for _, _, s, y in rows if s == share]
        assert gains[0] > 1.5
        fastest = [modelled_ns(c, MACHINE, 1e9, share) for c in step.containers]
        assert fastest[0] == pytest.approx(fastest[1])
    least = sum(max(x.limits_ns.dram, x.limits_ns.metadata, x.limits_ns.decoder,
                    x.limits_ns.encoder) for x in step.containers[0].layers)  # fmt: skip
    assert modelled_ns(step.containers[0], MACHINE, 1e-6, 1.0) == pytest.approx(least * 1e6)


def test_many_layers_are_grouped_by_block_and_none_is_lost(result):
    step, _ = result
    layers = step.containers[0].layers
    groups = _rows_of(layers)
    assert len(groups) <= 26
    assert sum(len(mine) for mine in groups.values()) == len(layers)
    assert "features.1" in groups


def test_latex_carries_the_hash_and_escapes(result):
    step, comparison = result
    text = network_latex(step)
    assert f"configuration {comparison.config_hash}" in text.splitlines()[0]
    assert r"all=sfp:m=2,e=4" in text
    assert text.count(r"\\") == 3
    assert escaped("a_b & 5 % {x}") == r"a\_b \& 5 \% \{x\}"


def test_a_base_that_goes_through_codec_units_is_sampled_where_that_is_cheaper():
    profile = open_trace(resources.files("sfpsim") / "sample" / "resnet8")
    step, _ = simulate_network(
        "alexnet", ["all=bf16"], batch=256, profile=profile, against=["fp8"]
    )  # fmt: skip
    gain = step.containers[0].gains[0]
    assert gain.policy == BASES["fp8"]
    assert 0 < gain.speed_up_error < 0.03
    assert gain.traffic == pytest.approx(0.5, rel=0.02)
