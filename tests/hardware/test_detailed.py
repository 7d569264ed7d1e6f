"""The detailed controller against the naive one that steps through every cycle."""

import msgspec
import numpy as np
import pytest
import simpy
import yaml

from hardware.machines import machine
from naive_memory import naive_controller
from sfpsim.errors import InputError
from sfpsim.hardware import kernels as k
from sfpsim.hardware.channel import Channels
from sfpsim.hardware.dram.device import load_device
from sfpsim.hardware.path import MemoryPath

SLOTS = 3


def as_jobs(kind, runs, burst):
    jobs = np.zeros((len(runs), k.JOB_COLUMNS), np.int64)
    jobs[:, k.J_CLASS] = kind
    jobs[:, k.J_PADDR] = [first * burst for first, _ in runs]
    jobs[:, k.J_PBURSTS] = [count for _, count in runs]
    jobs[:, k.J_ROWLEN] = 1
    return jobs


def run(small, reads, writes):
    env = simpy.Environment()
    none = np.zeros(0, np.uint16), np.zeros(0, np.uint8)
    channels = Channels(env, small, *none, "detailed", fit=None)
    burst = small.device.burst_bytes
    jobs = np.concatenate(
        [as_jobs(k.PLAIN_READ, reads, burst), as_jobs(k.PLAIN_WRITE, writes, burst)]
    )
    channels.submit(jobs, np.zeros(len(jobs), np.int64))
    env.run()
    end = channels.finish()
    return channels.counts(), end


def traffic(name):
    rng = np.random.default_rng(7)
    rows = 1 << 12
    cases = {
        "one burst": ([(5, 1)], []),
        "nothing but writes": ([], [(0, 900), (100_000, 900)]),
        "one stream": ([(0, 2500)], []),
        "copy": ([(0, 1500)], [(64 * 8 * 9, 1500)]),
        "one bank": ([(64 * 8 * i, 1) for i in range(0, 4000, 8)], []),
        "random reads": ([(int(rng.integers(rows) * 64), 1) for _ in range(900)], []),
        "random both": (
            [(int(n), 2) for n in rng.integers(0, 1 << 20, 400)],
            [(int(n), 3) for n in rng.integers(0, 1 << 20, 300)],
        ),
        "in place": ([(i * 40, 40) for i in range(40)], [(i * 40, 40) for i in range(40)]),
    }
    return cases[name]


def changed(tmp_path, name, **keys):
    """A machine with one channel of a device that is `name` but for `keys`."""
    device = msgspec.structs.replace(load_device(name), **keys)
    path = tmp_path / "device.yaml"
    path.write_text(yaml.safe_dump(msgspec.to_builtins(device)))
    return machine(
        memory={"channels": 1, "device": str(path)}, dma={"streams": SLOTS, "outstanding": 32}
    )


def agree(small, reads, writes, window):
    counts, end = run(small, reads, writes)
    commands, last = naive_controller(small.device, reads, writes, SLOTS, window)
    names = [name for _, name, _, _ in commands]
    assert counts.reads[0] == names.count("rd")
    assert counts.writes[0] == names.count("wr") == sum(n for _, n in writes)
    assert counts.forwarded[0] == names.count("forward")
    assert counts.reads[0] + counts.forwarded[0] == sum(n for _, n in reads)
    assert counts.act[0] == names.count("act")
    tck, den = small.device.tck_ps, small.device.tck_den
    assert end == max(last, commands[-1][0]) * tck // den
    assert counts.pre[0] == names.count("pre") + names.count("prea")
    assert counts.ref[0] == names.count("ref")


# Bank groups, ranks, both, and groups next to the columns.
OTHERS = {
    "groups": {},
    "groups interleaved": {"mapping": "ro ba co bg"},
    "ranks": {"ranks": 2, "mapping": "ro ra bg ba co", "trtrs": 2},
    "ranks interleaved": {"ranks": 2, "mapping": "ro ba co ra bg", "trtrs": 2},
}


@pytest.mark.parametrize("name", ["one stream", "copy", "random reads", "random both", "in place"])
@pytest.mark.parametrize("other", OTHERS)
def test_bank_groups_and_ranks(tmp_path, other, name):
    keys = {"mapping": "ro ba bg co", **OTHERS[other]}
    agree(changed(tmp_path, "ddr4-3200-x64", **keys), *traffic(name), 32)


@pytest.mark.parametrize("window", [4, 32])
@pytest.mark.parametrize(
    "name",
    ["one burst", "nothing but writes", "one stream", "copy", "one bank", "random reads",
     "random both", "in place"],
)  # fmt: skip
def test_every_command_is_that_of_the_naive_controller(name, window):
    reads, writes = traffic(name)
    small = machine(memory={"channels": 1}, dma={"streams": SLOTS, "outstanding": window})
    agree(small, reads, writes, window)


def asleep(tmp_path, power_down):
    controller = msgspec.structs.replace(
        load_device("lpddr4-3200-x16").controller, power_down=power_down
    )
    return changed(tmp_path, "lpddr4-3200-x16", controller=controller)


def test_ranks_sleep_between_jobs(tmp_path):
    """Cycles asleep are those of the pauses; a pause below the threshold leaves a rank awake."""
    pauses = {}
    for power_down in (40, 1 << 30):
        small = asleep(tmp_path, power_down)
        env = simpy.Environment()
        none = np.zeros(0, np.uint16), np.zeros(0, np.uint8)
        channels = Channels(env, small, *none, "detailed", fit=None)

        def steps(env=env, channels=channels, burst=small.device.burst_bytes):
            for i in range(5):
                yield env.timeout(3_000_000)
                jobs = as_jobs(k.PLAIN_READ, [(100 * i, 50)], burst)
                yield channels.submit(jobs, np.zeros(1, np.int64))

        env.process(steps())
        env.run()
        end = channels.finish()
        counts = channels.counts()
        cycles = end // 625
        pauses[power_down] = counts.slept_cycles[0].sum()
        assert counts.slept_cycles[0, 2] == 0
        assert counts.open_cycles[0] >= counts.slept_cycles[0, 0]
        assert cycles - counts.open_cycles[0] >= counts.slept_cycles[0, 1]
    # 4,800 cycles each, less the threshold and a refresh or none
    assert 5 * 3_500 < pauses[40] <= 5 * (4_800 - 40)
    assert pauses[1 << 30] == 0


def test_bandwidth_detail_knows_no_sleep(tmp_path):
    none = np.zeros(0, np.uint16), np.zeros(0, np.uint8)
    with pytest.raises(InputError, match="only detailed memory models"):
        MemoryPath(asleep(tmp_path, 40), *none, "bandwidth")
