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
# # The papers' claims on the table
#
# Schrödinger's FP (MLSys 2024) publishes mean bitlengths by network and claims how much less
# energy a training step then takes than in BF16 and in FP8; BitPruning publishes bits for
# inference. Here one network's step is simulated with the published bitlengths, the rest
# comes from the tables that `python docs/papers.py` writes (docs/papers.md says how it is
# modelled). `make notebooks` makes the `.ipynb` from this file and runs it.

# %%
import importlib.util
import sys
from importlib import resources
from pathlib import Path

import sfpsim

DOCS = next(
    p / "docs" for p in (Path.cwd(), *Path.cwd().parents) if (p / "docs/papers.py").exists()
)
spec = importlib.util.spec_from_file_location("papers", DOCS / "papers.py")
papers = importlib.util.module_from_spec(spec)
sys.modules["papers"] = papers
spec.loader.exec_module(papers)

profile = sfpsim.open_trace(resources.files("sfpsim") / "sample" / "resnet8")
found = papers.Results(papers.read_table())

# %% [markdown]
# ## 1. ResNet18 on the paper's machine, now
#
# Batch 8, 51.2 GB/s, windows instead of every burst. SFP_Q are the lengths that Quantum
# Mantissa and Quantum Exponent learn, SFP_BW those of BitWave, `+G` adds Gecko.

# %%
steps = {
    (s.base, s.method): s
    for s in papers.steps("resnet18", "sfp-2024", 8, profile, sample=0.05)
    if not s.everything
}
print("method      bits  speed-up  energy   against BF16, then FP8")
for method in ("SFP_Q", "SFP_Q+G", "SFP_BW", "SFP_BW+G"):
    cells = []
    for base in ("bf16", "fp8"):
        plain, mine = steps[base, ""], steps[base, method]
        cells.append(f"{plain.time_ns / mine.time_ns:8.2f} {plain.energy_pj / mine.energy_pj:7.2f}")
    print(f"{method:10} {steps['bf16', method].bits:5.2f}  {'   '.join(cells)}")

# %% [markdown]
# ## 2. Three networks, three bandwidths
#
# Batch 64, geometric means over ResNet18, ResNet50 and MobileNetV2. The channels' width is
# not published: 16, 32 and 64 bits a channel are 51.2, 102.4 and 204.8 GB/s.

# %%
for title, quantity in (("speed-up", "time_ns"), ("energy efficiency", "energy_pj")):
    print(title)
    print(papers.gains_table(found, quantity), end="\n\n")

# %% [markdown]
# Claimed, as means of 13 networks:

# %%
for (method, base), claim in papers.HEADLINES.items():
    ours = found.mean("energy_pj", method, base)
    print(f"{method:9} against {base.upper():4}: claimed {claim:.2f}, ours {ours:.2f}")

# %% [markdown]
# ## 3. What it would take
#
# Assumptions are added one at a time. Gradients and arithmetic are what a container of
# weights and activations does not change; without them the published footprint comes near
# the claim.

# %%
from functools import partial

from IPython.display import SVG, display

from sfpsim.report.figures import rendered, styled

print(papers.stages_table(found))
drawn = styled([partial(papers.figure, found)])[0]
display(SVG(data=rendered(drawn.figure, "svg").decode()))
for method in ("SFP_Q+G", "SFP_BW+G"):
    stages = found.stages(method)
    assert stages["as modelled"] < stages["and only DRAM energy counted"]

# %% [markdown]
# ## 4. Inference at BitPruning's bits
#
# On arrays whose time goes with the bits, times less than with 8 and with 16 bits.

# %%
print(papers.inference_table(papers.read_inferences()))
