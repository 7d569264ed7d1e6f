"""Laws 2, 3, 5 and 6 over the registry; law 1 is tests/contract, law 4 test_batching."""

from dataclasses import dataclass
from importlib import resources
from typing import ClassVar

import msgspec
import numpy as np
import pytest
import yaml

from hardware.machines import machine
from sfpsim.containers.base import CodecTiming
from sfpsim.containers.policy import ROLES, Policy, parse_policy, policy_of
from sfpsim.containers.raw import Plain
from sfpsim.containers.registry import parse_container
from sfpsim.energy.model import (
    LEVELS,
    ArithmeticTable,
    CodecTable,
    InterfaceTable,
    SramTable,
    load_table,
)
from sfpsim.errors import InputError
from sfpsim.experiment import compare as compare_module
from sfpsim.experiment.compare import compare
from sfpsim.experiment.step import StepSimulation
from sfpsim.experiment.tensors import Tensors
from sfpsim.formats import FP32
from sfpsim.hardware.dram.device import Device, decode_yaml, devices, load_device, presets
from sfpsim.hardware.dram.fit import fit, fit_of, one_channel
from sfpsim.hardware.machine import load_machine, machines
from sfpsim.testing.specs import ALL, PLAIN
from sfpsim.workload.training import plan_trace

ONE_OF_A_FAMILY = (
    "sfp:m=2,e=4", "sfp:m=4,exponent=gecko-bias", "sfp:m=3,exponent=gecko-delta", "crest",
    "float:e=4,m=2", "fp8-e4m3:scale=tensor", "mxfp8-e4m3", "mxint8", "nvfp4", "msfp12",
    "flexpoint", "int:n=5,range=64",
)  # fmt: skip
SPECS = [*PLAIN, "gecko-bias", "gecko-delta", *ONE_OF_A_FAMILY]
POLICIES = [*SPECS, "all=sfp:m=2,e=4", "weight=bf16;gradient=gecko-bias"]
RUNS = [("sfp-2024", spec) for spec in POLICIES]
RUNS += [("sfp-2024-stripe", spec) for spec in ("fp32", "gecko-delta", "sfp:m=2,e=4")]


@pytest.fixture(scope="module")
def runs(one_step):
    """Every simulated step in both levels of detail, by (machine, policy, level)."""
    steps = {}
    for name in dict.fromkeys(name for name, _ in RUNS):
        chosen = load_machine(name)
        tensors = Tensors(one_step, chosen, parse_container(chosen.baseline))
        plans = plan_trace(one_step, lambda _, chosen=chosen: chosen.buffer.bytes // 4)[0]
        steps |= {
            (name, spec, detail): StepSimulation(tensors, parse_policy(spec), plans, detail).run()
            for on, spec in RUNS
            if on == name
            for detail in ("bandwidth", "detailed")
        }
    return steps


@pytest.mark.parametrize("detail", ["bandwidth", "detailed"])
@pytest.mark.parametrize(("on", "spec"), RUNS)
def test_conservation_every_burst_is_served_once(runs, on, spec, detail):
    step = runs[on, spec, detail]
    burst, counts = load_machine(on).device.burst_bytes, step.run.counts
    asked = sum(report.read_bytes for report in step.run.reports)
    written = sum(report.write_bytes for report in step.run.reports)
    assert asked == burst * int((counts.reads + counts.forwarded).sum())
    assert written == burst * int(counts.writes.sum())
    other = runs[on, spec, "detailed" if detail == "bandwidth" else "bandwidth"]
    assert [r.read_bytes for r in step.run.reports] == [r.read_bytes for r in other.run.reports]


@pytest.mark.parametrize("detail", ["bandwidth", "detailed"])
@pytest.mark.parametrize(("on", "spec"), RUNS)
def test_no_step_is_faster_than_its_bounds(runs, on, spec, detail):
    step, chosen = runs[on, spec, detail], load_machine(on)
    moved = sum(r.read_bytes + r.write_bytes for r in step.run.reports)
    assert step.run.end_ps >= moved / chosen.peak_gbps * 1000
    compute = sum(plan.macs for plan in step.plans) / chosen.compute.macs_per_cycle
    assert step.run.end_ps >= compute * 1_000_000 / chosen.compute.clock_mhz
    assert int(step.run.counts.busy_ps.max()) <= step.run.end_ps
    once = {}
    for plan in step.plans:
        for transfer in (*plan.reads, *plan.writes):
            once[transfer.record.name] = step.kept[transfer.record.name].bytes
    assert moved >= sum(once.values())


@pytest.mark.parametrize(("on", "spec"), RUNS)
def test_bandwidth_detail_is_near_detailed(runs, on, spec):
    quick, exact = (runs[on, spec, d].run.end_ps for d in ("bandwidth", "detailed"))
    assert abs(quick / exact - 1) < (0.05 if on == "sfp-2024" else 0.1)


@pytest.mark.parametrize(("on", "spec"), RUNS[-3:])
def test_activations_of_stripes_are_fitted_to_detailed(runs, on, spec):
    counts, fitted = runs[on, spec, "detailed"].run.counts, fit_of(load_machine(on))
    a_burst = counts.act.sum() / (counts.reads + counts.writes).sum()
    assert fitted.activations == pytest.approx(a_burst, rel=0.3)


@pytest.mark.parametrize("detail", ["bandwidth", "detailed"])
def test_stripes_spread_what_blocks_leave_uneven(runs, detail):
    for on, spec in RUNS[-3:]:
        striped, whole = (runs[m, spec, detail].run.counts for m in (on, "sfp-2024"))
        imbalance = [
            float((c.reads + c.writes).max() / (c.reads + c.writes).mean()) - 1
            for c in (striped, whole)
        ]
        assert imbalance[0] < imbalance[1] / 2


@dataclass(frozen=True, kw_only=True)
class RawThroughCodec(Plain):
    """FP32 words that pass through codec units which take no time."""

    timing: ClassVar[CodecTiming] = CodecTiming(
        encode_latency_cycles=0, decode_latency_cycles=0, source="a test"
    )


def test_a_codec_that_takes_no_time_changes_no_time(one_step):
    fast = machine(
        memory={"channels": 2},
        codec={
            "clock_mhz": 1_000_000, "compressors": 2, "decompressors": 2,
            "fifo_bytes": 32 * 32, "metadata_fifo_bytes": 64,
        },
    )  # fmt: skip
    everything = tuple((role, RawThroughCodec(fmt=FP32)) for role in ROLES)
    policy = Policy(spec="all", containers=everything)
    through, without = (
        compare(one_step, [p], machine=fast).containers[0].totals for p in (policy, "all=fp32")
    )
    assert through.read_bytes == without.read_bytes
    assert through.time_ns == pytest.approx(without.time_ns, rel=1e-3)


def test_the_same_input_gives_the_same_result_on_any_number_of_workers(one_step, monkeypatch):
    specs = ["bf16", "gecko-bias", "sfp:m=2,e=4"]
    first = msgspec.json.encode(compare(one_step, specs))
    assert msgspec.json.encode(compare(one_step, specs)) == first
    monkeypatch.setattr(compare_module.os, "cpu_count", lambda: 1)
    alone = compare(one_step, specs)
    assert msgspec.json.encode(alone) == first
    for spec, together in zip(specs, alone.containers, strict=True):
        assert compare(one_step, [spec]).containers[0] == together


def test_results_carry_version_configuration_and_its_hash(one_step):
    found = compare(one_step, ["bf16"])
    other = compare(one_step, ["bf16"], machine="sfp-2024-x32")
    assert found.sfpsim
    assert found.machine.memory_detail == "bandwidth"
    assert len({found.config_hash, other.config_hash}) == 2
    assert len({found.machine.hash, other.machine.hash}) == 2


def test_every_number_has_a_unit_and_a_source():
    for kind in (InterfaceTable, CodecTable, SramTable, ArithmeticTable):
        table = load_table(kind)
        assert table.unit.startswith("pJ/")
        assert all(entry.source for entry in table.entries)
    for _, summary, source in (*machines(), *devices()):
        assert summary
        assert source
    for name, _, _ in machines():
        chosen = load_machine(name)
        parts = [getattr(chosen, part) for part in ("compute", "buffer", "codec", "dma", "memory")]
        assert all(part.source for part in parts)
    for spec in ALL:
        container = parse_container(spec)
        assert container.source
        assert container.timing.source


@pytest.mark.parametrize("name", sorted(presets()))
def test_unknown_missing_and_impossible_device_keys_are_errors(name):
    text = presets()[name]
    data = yaml.safe_load(text)
    for change in (
        {"trcdd": 3}, {"banks": 0}, {"banks": 7}, {"tras": 1}, {"mapping": "row"}, {"cl": "x"}
    ):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(change))):
            decode_yaml(yaml.safe_dump(data | change), Device, "here")
    del data["trp"]
    with pytest.raises(InputError, match="trp"):
        decode_yaml(yaml.safe_dump(data), Device, "here")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("nonsense: 1", "nonsense"),
        ("baseline: fp33", "fp33"),
        ("compute: {clock_mhz: 300007}", "300007"),
        ("compute: {formats: [fp8]}", "fp8"),
        ("compute: {formats: []}", "formats"),
        ("codec: {compressors: 0}", "compressors"),
        ("memory: {device: ddr9}", "ddr9"),
        ("memory: {detail: exact}", "detail"),
        ("memory: {placement: random}", "placement"),
        ("memory: {placement: stripe}", "stripe_bytes=None.*power of two"),
        ("memory: {placement: stripe, stripe_bytes: 48}", "stripe_bytes=48.*power of two"),
        ("memory: {placement: stripe, stripe_bytes: 16}", "stripe_bytes=16.*32 bytes"),
        ("memory: {stripe_bytes: 64}", "stripe_bytes=64 goes with placement stripe"),
        ("base: nowhere", "nowhere"),
        ("[1, 2]", "mapping"),
        ("a: [", "YAML|expected|parsing"),
    ],
)
def test_machine_files_that_cannot_be(tmp_path, change, match):
    path = tmp_path / "machine.yaml"
    path.write_text(change if change.startswith(("base:", "[")) else f"base: sfp-2024\n{change}\n")
    with pytest.raises(InputError, match=match):
        load_machine(str(path))


def test_a_row_that_no_fifo_holds_is_an_error(one_step):
    tiny = machine(codec={"fifo_bytes": 64})
    with pytest.raises(InputError, match="FIFO"):
        compare(one_step, [policy_of(WideRows(fmt=FP32))], machine=tiny)


@dataclass(frozen=True, kw_only=True)
class WideRows(RawThroughCodec):
    """Rows of 400 bits."""

    def rows(self, x, *, signed=None):
        found = super().rows(x, signed=signed)
        return type(found)(
            payload_bits=np.full_like(found.payload_bits, 400), metadata_bits=found.metadata_bits
        )


@pytest.mark.parametrize("name", sorted(presets()))
def test_committed_fits_are_those_of_the_fit_program(name):
    found, committed = fit(one_channel(name)), load_device(name).fit
    assert committed is not None
    for field in ("read", "write", "mixed", "activations"):
        assert getattr(found, field) == pytest.approx(getattr(committed, field), rel=1e-3)
    assert found.latency_ps == committed.latency_ps
    assert found.residual == pytest.approx(committed.residual, abs=1e-3)


def test_energy_levels_are_ordered(one_step):
    totals = compare(one_step, ["bf16"]).containers[0].totals
    assert LEVELS == ("low", "middle", "high")
    low, middle, high = (
        getattr(totals, key).total for key in ("energy_low_pj", "energy_pj", "energy_high_pj")
    )
    assert low < middle < high


def test_sample_resources_are_in_the_package():
    assert (resources.files("sfpsim") / "sample" / "resnet8" / "manifest.json").is_file()
