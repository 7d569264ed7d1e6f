"""The detailed controller against the naive one that steps through every cycle."""

import numpy as np
import pytest
import simpy

from hardware.machines import machine
from naive_memory import naive_controller
from sfpsim.hardware import kernels as k
from sfpsim.hardware.channel import Channels

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
    channels = Channels(env, small, np.zeros(0, np.uint16), np.zeros(0, np.uint8), "detailed")
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


@pytest.mark.parametrize("window", [4, 32])
@pytest.mark.parametrize(
    "name",
    ["one burst", "nothing but writes", "one stream", "copy", "one bank", "random reads",
     "random both", "in place"],
)  # fmt: skip
def test_every_command_is_that_of_the_naive_controller(name, window):
    reads, writes = traffic(name)
    small = machine(memory={"channels": 1}, dma={"streams": SLOTS, "outstanding": window})
    counts, end = run(small, reads, writes)
    commands, last = naive_controller(small.device, reads, writes, SLOTS, window)
    names = [name for _, name, _, _ in commands]
    assert counts.reads[0] == names.count("rd")
    assert counts.writes[0] == names.count("wr") == sum(n for _, n in writes)
    assert counts.forwarded[0] == names.count("forward")
    assert counts.reads[0] + counts.forwarded[0] == sum(n for _, n in reads)
    assert counts.act[0] == names.count("act")
    assert end == max(last, commands[-1][0]) * small.device.tck_ps
    assert counts.pre[0] == names.count("pre") + names.count("prea")
    assert counts.ref[0] == names.count("ref")
