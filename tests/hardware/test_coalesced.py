"""Many bursts at a time: the same results as burst by burst, to the picosecond."""

from importlib import resources

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfpsim.containers.registry import parse_container
from sfpsim.containers.sampled import store
from sfpsim.experiment.network import simulate_network
from sfpsim.hardware import path as path_module
from sfpsim.hardware.coalesced import never_starves
from sfpsim.hardware.machine import load_machine
from sfpsim.hardware.path import MemoryPath, Move, Task
from sfpsim.hardware.placement import place
from sfpsim.trace.reader import open_trace
from sfpsim.workload.layers import StepOptions

EMPTY = np.zeros(0, np.uint16), np.zeros(0, np.uint8)


def machine(tile=1 << 16, channels=4, streams=2):
    base = load_machine("sfp-2024")
    small = msgspec.structs.replace(base.buffer, bytes=1 << 20, tile_bytes=tile)
    memory = msgspec.structs.replace(base.memory, channels=channels)
    dma = msgspec.structs.replace(base.dma, streams=streams)
    return msgspec.structs.replace(base, buffer=small, memory=memory, dma=dma)


def tensors(chip, sizes):
    """Place plain tensors of so many values, one behind the other."""
    out, top, first = [], 0, 0
    for number, values in enumerate(sizes):
        container = parse_container(
            ("bf16", "fp32", "bf16:block=64", "fp32:block=1088")[number % 4]
        )
        stored = store(container, [np.ones(64, np.float32)], full_values=values, signed=False)
        base = np.full((3, chip.memory.channels), top, np.int64)
        out.append(
            place(f"t{number}", stored, container, chip, first_group=first, row_base=0, base=base)
        )
        first = (first + out[-1].blocks) % chip.memory.channels
        top += 1 << 24
    return out


def both(chip, tasks):
    """Run tasks in both ways and return what they found."""
    found = []
    for tiles in (False, True):
        run = MemoryPath(chip, *EMPTY, "bandwidth", None, tiles).run(tasks)
        assert bool(run.slices) == tiles  # the second way went tile by tile
        reports = [
            (r.end_ps, r.read_bytes, r.write_bytes, r.wait_ps, r.busy["dram"].tolist(),
             r.busy["metadata"].tolist(), r.codec_values)
            for r in run.reports
        ]  # fmt: skip
        counts = [getattr(run.counts, f).tolist() for f in ("reads", "writes", "busy_ps", "act")]
        found.append((run.end_ps, reports, counts))
    return found


MOVES = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3), st.booleans()), max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([64, 1000, 16_384, 16_448, 70_000, 300_000]), min_size=5, max_size=5),
    st.lists(
        st.tuples(MOVES, st.lists(st.integers(0, 4), max_size=2, unique=True),
                  st.sampled_from([0, 1, 500_000, 40_000_000, 900_000_000]),
                  st.integers(1, 40)), min_size=1, max_size=5),
    st.sampled_from([1, 3, 4]), st.integers(1, 3),
)  # fmt: skip
def test_any_tasks_of_plain_streams(sizes, plans, channels, streams):
    chip = machine(channels=channels, streams=streams)
    placed = tensors(chip, sizes)
    tasks = [
        Task(
            name=f"task{i}",
            reads=tuple(
                Move(tensor=placed[n], times=1 if resident else times, resident=resident)
                for n, times, resident in {r[0]: r for r in reads}.values()
            ),
            writes=tuple(Move(tensor=placed[n]) for n in writes),
            compute_ps=compute, onchip_bytes=tiles << 16,
        )
        for i, (reads, writes, compute, tiles) in enumerate(plans)
    ]  # fmt: skip
    fast, slow = both(chip, tasks)
    assert fast == slow


@pytest.fixture(scope="module")
def profile():
    return open_trace(resources.files("sfpsim") / "sample" / "resnet8")


@pytest.mark.parametrize(
    ("network", "batch", "name", "policy", "options"),
    [
        ("dlrm_mlperf", 64, "sfp-2024", "fp32", StepOptions()),
        ("mobilenet_v3_small", 1, "tpu-v2-like", "all=bf16", StepOptions(fusion="none")),
        ("resnet18", 1, "sfp-2024-x32", "bf16", StepOptions(optimizer="adam", stash="autograd")),
        ("mobilenet_v2", 1, "hbm3-training", "bf16", StepOptions(recompute="full")),
    ],
)
def test_whole_steps(network, batch, name, policy, options, profile, monkeypatch):
    def run():
        return simulate_network(
            network, [policy], batch=batch, profile=profile, machine=name, options=options
        )  # fmt: skip

    called = []
    inner = path_module.run_tasks
    monkeypatch.setattr(path_module, "run_tasks", lambda *a: called.append(1) or inner(*a))
    fast = run()
    assert called
    monkeypatch.setattr(path_module, "exact", lambda *a: False)
    assert run() == fast
    assert len(called) == 1


def test_streams_through_codec_units_and_shallow_windows_go_burst_by_burst(profile, monkeypatch):
    monkeypatch.setattr(path_module, "run_tasks", None)
    simulate_network("dlrm_mlperf", ["gecko-bias"], batch=4, profile=profile)
    chip = load_machine("sfp-2024")
    shallow = msgspec.structs.replace(chip, dma=msgspec.structs.replace(chip.dma, outstanding=4))
    simulate_network("dlrm_mlperf", ["bf16"], batch=4, profile=profile, machine=shallow)
    with pytest.raises(TypeError):  # else it would be called
        simulate_network("dlrm_mlperf", ["bf16"], batch=4, profile=profile)


@pytest.mark.parametrize("name", ["sfp-2024", "sfp-2024-x64", "tpu-v2-like", "hbm3-training"])
def test_the_windows_of_the_presets_are_deep_enough(name):
    from sfpsim.hardware.channel import parameters
    from sfpsim.hardware.dram.fit import fit_of

    chip = load_machine(name)
    assert never_starves(parameters(chip, fit_of(chip)))
