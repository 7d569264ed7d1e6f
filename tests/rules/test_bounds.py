"""No kernel reads or writes past its arrays: run once with numba's bounds checks, which are slow.

A process of its own, since numba decides when it is imported; with a cache of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
PROGRAM = """
import msgspec, numpy as np, simpy
from hardware.machines import machine
from rules.test_engine import DDR4, NOT_THERE, POLICIES, VARIANTS, Traffic
from sfpsim.hardware import kernels as k
from sfpsim.hardware.channel import Channels
from sfpsim.hardware.dram.simulate import simulate_logged

for policy in POLICIES:
    for variant, change in VARIANTS.items():
        if (variant, policy) != NOT_THERE:
            device = msgspec.structs.replace(DDR4, **change)
            for pause in (0, 3000):
                simulate_logged(Traffic(seed=1, pause=pause).on(device), device, policy)

rng = np.random.default_rng(0)
rows_p, rows_m = rng.integers(0, 90, 5000).astype(np.uint16), np.full(5000, 3, np.uint8)
for memory in ({}, {"placement": "stripe", "stripe_bytes": 64}):
    small = machine(memory={"channels": 3, **memory}, codec={"fifo_bytes": 64})
    for detail in ("bandwidth", "detailed"):
        channels = Channels(simpy.Environment(), small, rows_p, rows_m, detail, None)
        jobs = np.zeros((60, k.JOB_COLUMNS), np.int64)
        jobs[:, k.J_CLASS] = np.arange(60) % k.CLASSES
        plain = jobs[:, k.J_CLASS] % 2 == 1
        jobs[:, k.J_ROWS] = jobs[:, k.J_ROWLEN] = np.where(plain, 0, 2000)
        jobs[:, k.J_ROWLEN] += plain
        jobs[:, k.J_PACE] = np.arange(60) % 3 + 1
        bits = (int(rows[:2000].sum(dtype=np.int64)) for rows in (rows_p, rows_m))
        jobs[:, k.J_PBURSTS], jobs[:, k.J_MBURSTS] = (-(-b // 256) for b in bits)
        jobs[:, k.J_IBURSTS] = 1
        for column in (k.J_PADDR, k.J_MADDR, k.J_IADDR):
            jobs[:, column] = rng.integers(0, 1 << 15, 60) * 32
        done = channels.submit(jobs, np.arange(60) % small.memory.groups)
        channels.env.run(until=done)
        channels.finish()
        counts = channels.counts()
        bursts = jobs[:, [k.J_PBURSTS, k.J_MBURSTS, k.J_IBURSTS]].sum()
        assert (counts.reads + counts.writes + counts.forwarded).sum() == bursts
print("within bounds")
"""


def test_no_kernel_leaves_its_arrays(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=TESTS, check=False,
        env=os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert found.stdout == "within bounds\n", found.stderr[-2000:]
