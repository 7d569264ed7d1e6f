# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first replay
#
# What would a training run cost if its tensors lay in memory in another container? Four
# steps: train a small network, capture a few of its steps, look at what was captured, and
# replay it in several containers. `make notebooks` makes the `.ipynb` from this file and
# runs it.

# %% [markdown]
# ## 1. Train and capture
#
# Two moons, a small network, two hundred steps. `Capture` wraps the loop and keeps one step
# in fifty: the weights, what autograd stashes for the backward pass, the gradients and the
# optimizer's state.

# %%
import tempfile
from pathlib import Path

import torch
from torch import nn

import sfpsim

torch.manual_seed(0)
torch.set_num_threads(1)


def moons(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `count` noisy points of two half circles, and which one each belongs to."""
    angle = torch.rand(count) * torch.pi
    label = torch.randint(0, 2, (count,))
    x = torch.stack([torch.cos(angle), torch.sin(angle)], 1)
    x[label == 1] = torch.tensor([1.0, 0.5]) - x[label == 1]
    return x + 0.1 * torch.randn_like(x), label


model = nn.Sequential(
    nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
criterion = nn.CrossEntropyLoss()

folder = Path(tempfile.mkdtemp())
losses = []
with sfpsim.Capture(model, folder / "moons.trace", every=50, optimizer=optimizer) as capture:
    for _ in range(200):
        x, y = moons(512)
        with capture.step():
            loss = criterion(model(x), y)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}")

# %% [markdown]
# ## 2. What is in the trace
#
# The entropy of the exponent field says how far an exponent code could go: eight bits are
# stored, two or three would do.

# %%
trace = sfpsim.open_trace(folder / "moons.trace")
info = sfpsim.trace_info(trace)
print(f"{info['tensors']} tensors of steps {info['steps']}, {info['bytes'] / 1e6:.1f} MB")
for role, entropy in info["exponent_entropy_bits"].items():
    zeros = info["zeros"][role]
    print(f"{role:>10}: {zeros:4.0%} zeros, {entropy:.2f} bits of information in the exponent")

# %% [markdown]
# ## 3. One tensor, bit for bit
#
# Gecko keeps every bit and shortens exponents; `sfp` also cuts mantissas. `measure` counts
# exactly what `encode` would write.

# %%
record = max((r for r in trace.records if r.role == "activation"), key=lambda r: r.values)
values = trace.values(record)
for name in ("fp32", "gecko-bias", "gecko-delta", "sfp:m=4,exponent=gecko-bias"):
    container = sfpsim.parse_container(name)
    sizes = container.measure(values)
    stored = container.encode(values)
    assert 8 * len(stored) == sizes.total_bits
    assert (container.decode(stored) == container.quantize(values)).all()
    print(f"{name:>28}: {sizes.total_bits / sizes.values:5.2f} bits per value")

# %% [markdown]
# ## 4. The whole run in several containers
#
# The replay moves every tensor through the memory path of a machine. Each pass is limited by
# something; this network is so small that everything stays on chip within a layer.

# %%
containers = ["fp32", "bf16", "gecko-bias", "sfp:m=4,exponent=gecko-bias"]
result = sfpsim.compare(trace, containers, machine="sfp-2024")
first = result.containers[0].totals
for c in result.containers:
    t = c.totals
    print(
        f"{c.container:>32}: ratio {t.ratio:5.2f}, {(t.read_bytes + t.write_bytes) / 1e6:6.2f} MB, "
        f"{first.time_ns / t.time_ns:4.2f} times as fast, limited by {t.limiter}"
    )

# %% [markdown]
# ## 5. Why
#
# `explain` goes from one result to another in steps that add up exactly.

# %%
why = sfpsim.explain(result, result, container_a="fp32")
for waterfall in why.waterfalls:
    assert waterfall.a + sum(c.change for c in waterfall.changes) == waterfall.b
    if waterfall.by == "pass" and waterfall.quantity == "time":
        print(f"{'fp32':>32} {waterfall.a / 1e6:9.2f} µs")
        for c in waterfall.changes:
            print(f"{c.label:>32} {c.change / 1e6:+9.2f} µs")
        print(f"{why.b.container:>32} {waterfall.b / 1e6:9.2f} µs")

# %% [markdown]
# ## 6. Figures
#
# `write_report` writes all of them, and one HTML file that opens offline.

# %%
from IPython.display import SVG, display

written = sfpsim.write_report(result, folder / "report")
print(f"{len(written)} files, report {folder / 'report' / 'report.html'}")
display(SVG(filename=str(folder / "report" / "bits.svg")))
