"""Writes docs/papers.md: the papers' bitlengths on our machines, beside their claims.

``python docs/papers.py [--batch N]`` simulates the training step of three networks with the
bitlengths of Schrödinger's FP, Table 1 (docs/figures/papers.csv), and inference with those of
BitPruning (docs/figures/bitpruning.csv), and writes page and figure. ``--drawn`` takes the
numbers that are there, ``--inference`` simulates the second part only.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from math import exp, log
from pathlib import Path
from typing import Any

from sfpsim.experiment.network import simulate_network
from sfpsim.experiment.result import ContainerResult
from sfpsim.precision.published import Family, PublishedBits, published_bits
from sfpsim.report import palette
from sfpsim.report.figures import Figure, rendered, styled
from sfpsim.trace.reader import open_trace

DOCS = Path(__file__).parent
TABLE = DOCS / "figures" / "papers.csv"
INFERENCE = DOCS / "figures" / "bitpruning.csv"
BEGIN, END = "<!-- begin: written by docs/papers.py -->", "<!-- end: written by docs/papers.py -->"
NETWORKS = {"resnet18": "ResNet18", "resnet50": "ResNet50", "mobilenet_v2": "MobileNetV2"}
MACHINES = {"sfp-2024": 51.2, "sfp-2024-x32": 102.4, "sfp-2024-x64": 204.8}
LEARNED = ("weight", "activation")
OTHERS = ("gradient", "optimizer", "other")
BASES = {"bf16": ("bf16", "bf16"), "fp8": ("fp8-e4m3", "fp8-e5m2")}  # learned roles, others
CODES = {"": "sfp", "+G": "sfp:exponent=gecko-bias"}
FAMILIES: dict[str, Family] = {"SFP_Q": "quantum", "SFP_BW": "bitwave"}
HEADLINES = {  # energy efficiency, mean of 13 networks: MLSys 2024, section 5
    ("SFP_Q+G", "bf16"): 3.07, ("SFP_BW+G", "bf16"): 2.71,
    ("SFP_Q+G", "fp8"): 2.26, ("SFP_BW+G", "fp8"): 2.00,
}  # fmt: skip

BITPRUNING = {  # mean bits a layer: BitPruning, arXiv 2002.03090, abstract
    "alexnet": ("AlexNet", 4.13), "resnet18": ("ResNet18", 3.76),
    "mobilenet_v2": ("MobileNetV2", 4.36),
}  # fmt: skip
SERIAL = {"stripes-like": "activation", "loom-like": "both", "bit-fusion-like": "both, in 2, 4, 8"}
INTEGERS = ("int:n=16", "int8", "int")


@dataclass(frozen=True, kw_only=True)
class Inference:
    """One sample through a network on a machine whose time goes with the bits."""

    network: str
    machine: str
    container: str
    time_ns: float
    compute_ns: float
    traffic_bytes: int
    energy_pj: float
    sqnr_db: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """A simulated training step: what is stored how, and what it costs.

    `method` is empty for the base itself; with `everything` gradients and optimizer state
    are compressed too, otherwise they stay in the type of `base`. `bits` are those of a
    stashed or weight value.
    """

    network: str
    batch: int
    machine: str
    base: str
    method: str
    everything: bool
    bits: float
    time_ns: float
    traffic_bytes: int
    energy_pj: float
    energy_low_pj: float
    energy_high_pj: float
    dram_pj: float


def policy(learned: str, others: str) -> str:
    """Return a policy: `learned` for weights and activations, `others` for the rest."""
    return ";".join([*(f"{r}={learned}" for r in LEARNED), *(f"{r}={others}" for r in OTHERS)])


def table_row(network: str, family: Family) -> PublishedBits:
    """Return the row of Table 1."""
    return next(
        r for r in published_bits() if r.network == NETWORKS[network] and r.family == family
    )


def steps(
    network: str, machine: str, batch: int, profile: Any, sample: float | None = None
) -> Iterator[Step]:
    """Simulate one network on one machine under every policy; `sample` as `compare`'s."""

    def run(
        keys: Sequence[tuple[str, str, bool]], policies: Sequence[str],
        lengths: tuple[float, float] | None,
    ) -> Iterator[Step]:  # fmt: skip
        _, found = simulate_network(
            network, policies, batch=batch, profile=profile, machine=machine, lengths=lengths,
            sample=sample,
        )  # fmt: skip
        for (base, method, everything), result in zip(keys, found.containers, strict=True):
            t = result.totals
            yield Step(
                network=network, batch=batch, machine=machine, base=base, method=method,
                everything=everything, bits=learned_bits(result), time_ns=t.time_ns,
                traffic_bytes=t.read_bytes + t.write_bytes, energy_pj=t.energy_pj.total,
                energy_low_pj=t.energy_low_pj.total, energy_high_pj=t.energy_high_pj.total,
                dram_pj=t.energy_pj.dram.total,
            )  # fmt: skip

    yield from run([(b, "", False) for b in BASES], [policy(*BASES[b]) for b in BASES], None)
    for name, family in FAMILIES.items():
        row = table_row(network, family)
        keys, policies = [], []
        for suffix, code in CODES.items():
            for base, (_, others) in BASES.items():
                keys.append((base, name + suffix, False))
                policies.append(policy(code, others))
        keys.append(("bf16", f"{name}+G", True))
        policies.append(policy(CODES["+G"], CODES["+G"]))
        yield from run(keys, policies, (row.mantissa, row.exponent))


def learned_bits(result: ContainerResult) -> float:
    """Return bits a value of weights and activations together."""
    mine = [r for r in result.roles if r.role in LEARNED]
    return sum(r.total_bits for r in mine) / sum(r.values for r in mine)


def simulate(batch: int) -> list[Step]:
    """Simulate every network on every machine."""
    from importlib import resources

    profile = open_trace(resources.files("sfpsim") / "sample" / "resnet8")
    out = []
    for network in NETWORKS:
        for machine in MACHINES:
            print(f"{network} on {machine}", flush=True)
            out += steps(network, machine, batch, profile)
    return out


def infer() -> list[Inference]:
    """Simulate one image through every network on every machine in every integer."""
    from importlib import resources

    profile = open_trace(resources.files("sfpsim") / "sample" / "resnet8")
    out = []
    for network, (_, bits) in BITPRUNING.items():
        for machine in SERIAL:
            result, found = simulate_network(
                network, INTEGERS, batch=1, profile=profile, machine=machine, lengths=(bits,),
                mode="inference",
            )  # fmt: skip
            for one, whole in zip(result.containers, found.containers, strict=True):
                out.append(
                    Inference(
                        network=network, machine=machine, container=one.container,
                        time_ns=one.time_ns, energy_pj=one.energy_pj.total,
                        compute_ns=sum(x.limits_ns.compute for x in one.layers),
                        traffic_bytes=one.traffic_bytes, sqnr_db=whole.totals.sqnr_db or 0.0,
                    )
                )  # fmt: skip
    return out


def write_table(found: Sequence[Any], path: Path = TABLE) -> None:
    """Write steps, or inferences, as CSV."""
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, [f.name for f in fields(found[0])], lineterminator="\n")
        out.writeheader()
        out.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(s).items()}
            for s in found
        )


def read_inferences() -> list[Inference]:
    """Read docs/figures/bitpruning.csv."""
    texts = ("network", "machine", "container")
    with INFERENCE.open(newline="") as file:
        return [
            Inference(
                **{k: v if k in texts else int(v) if k == "traffic_bytes" else float(v)
                   for k, v in row.items()}  # type: ignore[arg-type]
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def read_table() -> list[Step]:
    """Read docs/figures/papers.csv."""
    kinds: dict[str, Any] = {"batch": int, "traffic_bytes": int, "everything": "True".__eq__}
    texts = ("network", "machine", "base", "method")
    with TABLE.open(newline="") as file:
        return [
            Step(**{k: v if k in texts else kinds.get(k, float)(v) for k, v in row.items()})
            for row in csv.DictReader(file)
        ]


class Results:
    """The steps, and geometric means over the networks of one step over another."""

    def __init__(self, found: Sequence[Step]) -> None:
        self.steps = {(s.network, s.machine, s.base, s.method, s.everything): s for s in found}
        self.batch = found[0].batch

    def mean(
        self, quantity: str, method: str, base: str, machine: str = "sfp-2024",
        everything: bool = False,
    ) -> float:  # fmt: skip
        """Return the base's `quantity` over the method's, geometric mean over networks."""
        found = []
        for network in NETWORKS:
            plain = self.steps[network, machine, base, "", False]
            mine = self.steps[network, machine, base, method, everything]
            found.append(log(getattr(plain, quantity) / getattr(mine, quantity)))
        return exp(sum(found) / len(found))

    def published(self, method: str, base_bits: int) -> float:
        """Return the footprint ratio that Table 1 says, geometric mean over networks."""
        family = FAMILIES[method.removesuffix("+G")]
        rows = [table_row(n, family) for n in NETWORKS]
        bits = [r.total_gecko if method.endswith("+G") else r.total for r in rows]
        return exp(sum(log(base_bits / b) for b in bits) / len(bits))

    def stages(self, method: str) -> dict[str, float]:
        """Return energy efficiency against BF16 as assumptions are added, one at a time."""
        return {
            "as modelled": self.mean("energy_pj", method, "bf16"),
            "gradients and state compressed too": self.mean(
                "energy_pj", method, "bf16", everything=True
            ),
            "and only DRAM energy counted": self.mean("dram_pj", method, "bf16", everything=True),
            "traffic of that": self.mean("traffic_bytes", method, "bf16", everything=True),
            "published footprint": self.published(method, 16),
        }


def _markdown(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    head, *rest = rows
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rest))


def footprint_table(found: Results) -> str:
    """Return published and simulated bits a value."""
    rows = [["network", "method", "mantissa, exponent", "published", "ours", "published with "
             "Gecko", "ours with Gecko"]]  # fmt: skip
    for network, title in NETWORKS.items():
        for name, family in FAMILIES.items():
            row = table_row(network, family)
            ours = [found.steps[network, "sfp-2024", "bf16", name + s, False].bits for s in CODES]
            rows.append(
                [title, name, f"{row.mantissa:.2f}, {row.exponent:.2f}", f"{row.total:.2f}",
                 f"{ours[0]:.2f}", f"{row.total_gecko:.2f}", f"{ours[1]:.2f}"]
            )  # fmt: skip
    return _markdown(rows, 2)


def gains_table(found: Results, quantity: str) -> str:
    """Return gains against BF16 and FP8 at each bandwidth."""
    head = [f"{b.upper()}, {gbps} GB/s" for b in BASES for gbps in MACHINES.values()]
    rows = [["method", *head]]
    for name in (f + s for f in FAMILIES for s in CODES):
        rows.append(
            [name, *(f"{found.mean(quantity, name, b, m):.2f}" for b in BASES for m in MACHINES)]
        )
    return _markdown(rows)


def stages_table(found: Results) -> str:
    """Return the decomposition against BF16, with the paper's claim."""
    methods = [f"{name}+G" for name in FAMILIES]
    columns = [found.stages(m) for m in methods]
    rows = [["assumption", *methods]]
    rows += [[stage, *(f"{c[stage]:.2f}" for c in columns)] for stage in columns[0]]
    rows.append(["claimed energy efficiency", *(f"{HEADLINES[m, 'bf16']:.2f}" for m in methods)])
    return _markdown(rows)


def inference_table(found: Sequence[Inference]) -> str:
    """Return what the published bits gain over 8 and over 16, a row a network and machine."""
    by_key = {(f.network, f.machine, f.container): f for f in found}
    rows = [["network", "machine", "mean bits", "time of the array, against 8 bits", "against 16",
             "time, against 8", "against 16", "traffic, against 8", "energy, against 8",
             "against 16"]]  # fmt: skip
    quantities = (("compute_ns", 2), ("time_ns", 2), ("traffic_bytes", 1), ("energy_pj", 2))
    for network, (title, bits) in BITPRUNING.items():
        for machine in SERIAL:
            sixteen, eight, mine = (by_key[network, machine, c] for c in INTEGERS)
            cells = [
                f"{getattr(base, name) / getattr(mine, name):.2f}"
                for name, count in quantities for base in (eight, sixteen)[:count]
            ]  # fmt: skip
            rows.append([title, f"`{machine}`", f"{bits:.2f}", *cells])
    return _markdown(rows, 2)


def figure(found: Results) -> Figure:
    """Draw the decomposition beside the claim."""
    from matplotlib.figure import Figure as Canvas

    methods = [f"{name}+G" for name in FAMILIES]
    canvas = Canvas(figsize=(7.4, 2.9), layout="constrained")
    axes = canvas.subplots(1, len(methods), sharey=True, sharex=True)
    for axis, method in zip(axes, methods, strict=True):
        stages = found.stages(method)
        colours = [palette.CONTAINERS[0]] * (len(stages) - 1) + [palette.CONTAINERS[-2]]
        at = range(len(stages))
        axis.barh(at, stages.values(), color=colours, height=0.62)
        for y, value in zip(at, stages.values(), strict=True):
            axis.text(value - 0.06, y, f"{value:.2f}", va="center", ha="right", fontsize=8,
                      color="white")  # fmt: skip
        claim = HEADLINES[method, "bf16"]
        axis.axvline(claim, color=palette.CONTAINERS[1], linewidth=1.4)
        axis.text(claim - 0.06, -0.62, f"claimed: {claim:.2f}", color=palette.CONTAINERS[1],
                  fontsize=8, ha="right", va="center")  # fmt: skip
        axis.set_yticks(at, list(stages))
        axis.set_ylim(len(stages) - 0.5, -1)
        axis.set_xlim(0, 4)
        axis.grid(visible=False, axis="y")
        axis.tick_params(axis="y", length=0)
        axis.set_title(method, loc="left")
        axis.set_xlabel("times less than BF16")
    return Figure(name="papers", title="", caption="", figure=canvas, rows=[])


def block(found: Results, inferences: Sequence[Inference]) -> str:
    """Return the generated part of the page."""
    low, high = (
        {m: found.mean(f"energy_{level}_pj", m, "bf16") for m in ("SFP_Q+G", "SFP_BW+G")}
        for level in ("low", "high")
    )
    spread = ", ".join(f"{m} {low[m]:.2f} and {high[m]:.2f}" for m in low)
    claims = "; ".join(f"{m} against {b.upper()} {v:.2f}" for (m, b), v in HEADLINES.items())
    return "\n\n".join(
        [
            f"Batch {found.batch}, geometric means over {', '.join(NETWORKS.values())}.",
            "## Footprint: bits of a stashed or weight value", footprint_table(found),
            "## Speed-up", gains_table(found, "time_ns"),
            "## Energy efficiency", gains_table(found, "energy_pj"),
            f"Claimed, as a mean of 13 networks: {claims}. With the low and the high energy "
            f"tables instead of the middle ones ours at 51.2 GB/s against BF16 are {spread}.",
            "## What it would take", stages_table(found),
            "![Energy efficiency against BF16 as assumptions are added](figures/papers.svg)",
            "## Inference at BitPruning's bits",
            "Times less than with 8 and with 16 bits everywhere, one image.",
            inference_table(inferences),
        ]
    )  # fmt: skip


def main() -> None:
    """Simulate, and write table, figure and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64, help="samples a step")
    parser.add_argument("--drawn", action="store_true", help="take the numbers that are there")
    parser.add_argument("--inference", action="store_true", help="simulate inference only")
    given = parser.parse_args()
    if not given.drawn:
        write_table(infer(), INFERENCE)
        if not given.inference:
            write_table(simulate(given.batch))
    found = Results(read_table())
    picture = rendered(styled([partial(figure, found)])[0].figure, "svg")
    (DOCS / "figures" / "papers.svg").write_bytes(picture)
    page = DOCS / "papers.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{block(found, read_inferences())}\n{END}{after}")


if __name__ == "__main__":
    main()
