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
# # Containers that a training learns
#
# How many mantissa and exponent bits does each tensor of a training need? Schrödinger's FP
# (MLSys 2024) lets the loss decide. Here a small network learns its lengths now; the second
# half shows what larger trainings measured, from the tables that `models/experiments.py` and
# `models/figures.py` wrote (docs/learned.md has them beside the paper's). `make notebooks`
# makes the `.ipynb` from this file and runs it.

# %% [markdown]
# ## 1. Attach, train, capture
#
# One line attaches Quantum Mantissa and Quantum Exponent, one more adds their footprint to
# the loss. Every tensor gets real-valued lengths; each batch draws whole ones around them, so
# that the expected loss has a slope in the lengths. After the last epoch of learning they are
# rounded up and frozen.

# %%
import csv
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

import sfpsim
from sfpsim.precision import QuantumFloat

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
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
method = QuantumFloat(
    model, optimizer, gamma=0.02, learn_epochs=6, initial_mantissa_bits=7, length_lr=1.0
)
trace = Path(tempfile.mkdtemp()) / "moons.trace"
with sfpsim.Capture(model, trace, every=50, optimizer=optimizer) as capture:
    for epoch in range(8):
        method.epoch(epoch)
        for _ in range(50):
            x, y = moons(256)
            with capture.step(epoch=epoch):
                task = nn.functional.cross_entropy(model(x), y)
                method.loss(task).backward()
            optimizer.step()
            optimizer.zero_grad()
        bits = method.mean_bits()
        print(
            f"epoch {epoch}: loss {task.item():.3f}, mantissa {bits['mantissa']:.2f}, exponent "
            f"{bits['exponent']:.2f} bits{', frozen' if method.frozen else ''}"
        )

# %% [markdown]
# ## 2. What the lengths save
#
# The trace holds each tensor's lengths, so `sfp` without lengths of its own stores them as
# learned. Gecko then takes what is regular out of the exponents, without loss.

# %%
steps = sfpsim.open_trace(trace)
found = sfpsim.compare(
    steps.at_step(steps.steps[-1]), ["fp32", "bf16", "sfp", "sfp:exponent=gecko-bias"]
)
print("container                  bits a value   time, us   energy, uJ")
for c in found.containers:
    t = c.totals
    print(
        f"{c.container:26} {t.total_bits / t.values:12.2f} {t.time_ns / 1e3:10.1f} "
        f"{t.energy_pj.total / 1e6:12.1f}"
    )

# %% [markdown]
# ## 3. Larger trainings
#
# ResNet-18 at a quarter of its width on Fashion-MNIST, a GPT on Shakespeare, and ResNet-8 in
# every container, paired: the same weights and batches with the method and without.
# `models/experiments.py NAME` trains them; docs/learned.md says how many seeds each has.

# %%
DOCS = next(
    p / "docs" for p in (Path.cwd(), *Path.cwd().parents) if (p / "docs/learned.md").exists()
)


def table(name: str) -> list[dict[str, str]]:
    """Return the lines of one of the measured tables."""
    with (DOCS / "learned" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


for name in sorted(p.stem for p in (DOCS / "learned").glob("*-summary.csv")):
    lines = table(name)
    measure = next(key for key in lines[0] if key.startswith("test_"))
    print(f"\n{name.removesuffix('-summary')}: {measure.replace('_', ' ')}, difference to FP32")
    for line in lines:
        stored = line.get("stash_bits") or line.get("mean_bits_bits") or "nan"
        gecko = line.get("stash_bits_gecko") or "nan"
        half = float(line["interval_95"] or "nan")
        print(
            f"  {line['run']:20} {float(line[measure]):7.2f}  {float(line['difference']):+6.2f} "
            f"+- {half:4.2f}   {float(stored):6.2f} bits, with Gecko {float(gecko):6.2f}"
        )

# %% [markdown]
# ## 4. Which tensors need how many bits
#
# Mantissas of layer inputs end at one to three bits, exponents at two to four; weights, a few
# percent of the volume, are hardly pressed and keep more.

# %%
lines = table("resnet18-lengths")
last = max(int(x["epoch"]) for x in lines)
final = [x for x in lines if int(x["epoch"]) == last]
kinds = {
    "weights": [x for x in final if x["tensor"].endswith(".weight")],
    "layer inputs": [x for x in final if not x["tensor"].endswith(".weight")],
}
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharey=True)
for axis, (kind, mine) in zip(axes, kinds.items(), strict=True):
    for field in ("mantissa_bits", "exponent_bits"):
        axis.plot([float(x[field]) for x in mine], ".-", lw=0.6, label=field.replace("_", " "))
    axis.set(title=kind, xlabel="tensor, in order of the network", ylim=(0, None))
axes[0].set(ylabel="length, bits")
axes[0].legend(frameon=False)
plt.show()
