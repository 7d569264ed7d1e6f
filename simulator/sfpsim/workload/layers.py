"""What moves between the products of a network's step: stash, recomputation, fusion.

`StepPlanner` fuses everything between two products into them. `weave` takes its passes and
moves what is not fused: outputs of products, what normalisations, activations and poolings
read and write, their gradients, what autograd saves for them, and what is computed again.
A residual addition of the CNNs has no row in their tables and moves nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from sfpsim.trace.schema import TensorRecord
from sfpsim.workload.networks import Layer, Network
from sfpsim.workload.training import PassPlan, Transfer

Optimizer = Literal["sgd", "momentum", "adam"]
Stash = Literal["paper", "autograd"]
Recompute = Literal["none", "normalisation", "full"]
Fusion = Literal["none", "producer", "full"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
STASHES: tuple[Stash, ...] = get_args(Stash)
RECOMPUTES: tuple[Recompute, ...] = get_args(Recompute)
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
STATES: dict[Optimizer, tuple[str, ...]] = {
    "sgd": (), "momentum": ("momentum",), "adam": ("first_moment", "second_moment"),
}  # fmt: skip
NORMS = ("bn", "layernorm")
# What PyTorch's autograd keeps for the backward pass of a layer that is no product: its input
# or its output (derivatives.yaml); a mean and a deviation beside a normalisation's.
# (a few values) and an embedding's indices are left out.
SAVES_INPUT = ("bn", "layernorm", "gelu", "hardswish", "hardsigmoid", "silu", "relu6",
               "maxpool", "adaptivepool")  # fmt: skip
SAVES_OUTPUT = ("relu", "sigmoid", "tanh", "softmax")
SAVES_MASK = {"maxpool": "int64", "dropout": "bool"}  # an index or a bit of every output
Use = Literal["stash", "operand", "output_gradient", "buffer"]
BLOCK = re.compile(r"^(\w+\.\d+)\..")
Make = Callable[[str, str, int, Use, str], TensorRecord]


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How a training step is done.

    Attributes
    ----------
    optimizer
        Whose state is read and written by the update.
    master
        Whether an FP32 master copy (role optimizer) is updated, which the products do not
        read: they read a copy of role weight that the update writes.
    stash
        ``paper``: the inputs of products; ``autograd``: all that PyTorch saves.
    recompute
        ``normalisation``: normalisation and activation are computed again from the stashed
        input of the normalisation; ``full``: a block of the network is computed again from
        its input.
    fusion
        ``none``: every layer reads and writes memory; ``producer``: all but normalisations
        are done by the layer before; ``full``: nothing but the stash moves.
    """

    optimizer: Optimizer = "momentum"
    master: bool = False
    stash: Stash = "paper"
    recompute: Recompute = "none"
    fusion: Fusion = "full"

    @property
    def plain(self) -> bool:
        """Whether the passes are those of `StepPlanner` alone."""
        return (self.stash, self.recompute, self.fusion) == ("paper", "none", "full")


@dataclass(kw_only=True)
class Chain:
    """A product (None: the network's beginning) and the layers up to the next product.

    `tensors` are the outputs of the product and of each layer, None where nothing moves
    them; `last` is what the planner stashes of the last one.
    """

    product: Layer | None
    layers: list[Layer] = field(default_factory=list)
    number: int = 0
    tensors: list[TensorRecord | None] = field(default_factory=list)
    last: list[TensorRecord] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The product's name, or that of the network's input."""
        return self.product.name if self.product is not None else "input"


def chains(network: Network) -> list[Chain]:
    """Return the network's products, each with the layers behind it."""
    out = [Chain(product=None)]
    for layer in network.layers:
        if layer.is_product:
            out.append(Chain(product=layer, number=len(out)))
        else:
            out[-1].layers.append(layer)
    return out


def own_passes(layers: list[Layer], fusion: Fusion) -> tuple[int, list[tuple[int, int]]]:
    """Return how many layers the product takes in, and the ranges that are passes of their own."""
    if fusion == "full":
        return len(layers), []
    begins = [i for i, x in enumerate(layers) if fusion == "none" or x.kind in NORMS]
    if not begins:
        return len(layers), []
    ends = [*begins[1:], len(layers)]
    return begins[0], list(zip(begins, ends, strict=True))


def saved_outputs(layers: list[Layer]) -> set[int]:
    """Return which outputs autograd saves: 0 the product's, i that of layer i - 1."""
    out = set()
    for i, layer in enumerate(layers):
        if layer.kind in SAVES_INPUT:
            out.add(i)
        elif layer.kind in SAVES_OUTPUT:
            out.add(i + 1)
    return out


def _once(record: TensorRecord, times: int = 1) -> Transfer:
    return Transfer(record=record, times=times, used=record.values)


class Weaver:
    """Weaves what is not fused into the passes of one step.

    Parameters
    ----------
    network, batch, options
        What is trained how.
    make
        Returns the tensor of a name, layer, number of values, use and dtype ("" for the
        profile's), the same one for the same name.
    """

    def __init__(self, network: Network, batch: int, options: StepOptions, make: Make) -> None:
        self.network, self.batch, self.options, self.make = network, batch, options, make
        self.chains = chains(network)

    def weave(self, plans: list[PassPlan]) -> list[PassPlan]:
        """Return the passes of the step; `plans` are those with everything fused."""
        forward = {p.layer: p for p in plans if p.pass_ == "forward"}
        self.backward = [p for p in plans if p.pass_ not in ("forward", "update")]
        ahead: list[PassPlan] = []
        for chain in self.chains:
            ahead += self._forward(chain, forward.get(chain.name))
        if self.backward:
            for chain in reversed(self.chains[1:]):
                self._gradients(chain)
        if self.options.recompute == "normalisation" and self.options.stash == "autograd":
            self._from_normalisations()
        if self.options.recompute == "full" and self.backward:
            ahead = self._blocks_again(ahead)
        return [*ahead, *self.backward, *(p for p in plans if p.pass_ == "update")]

    def _output(self, chain: Chain, i: int, use: Literal["stash", "operand"]) -> TensorRecord:
        """Return the output of the chain's product (0) or of its layer i - 1."""
        layer = chain.layers[i - 1] if i else chain.product
        assert layer is not None
        values = layer.out_elements * self.batch
        return self.make(f"{chain.name}+{i}.{layer.kind}", layer.name, values, use, "")

    # Forward --------------------------------------------------------------------------

    def _forward(self, chain: Chain, plan: PassPlan | None) -> list[PassPlan]:
        layers, options = chain.layers, self.options
        taken, ranges = own_passes(layers, options.fusion)
        saved = saved_outputs(layers) if options.stash == "autograd" else set()
        moved = {taken, *(end for _, end in ranges)} if ranges else set()
        if plan is not None:
            chain.last = [t.record for t in plan.writes if t.record.role == "activation"]
        following = self.chains[chain.number + 1 :][:1]
        if plan is None and following and following[0].product is not None:
            chain.last = self._first_input(following[0].product)
        chain.tensors = [None] * (len(layers) + 1)
        for i in range(0 if chain.product else 1, len(layers) + 1):
            if i in saved or i in moved:
                if i == len(layers) and chain.last and layers:
                    continue
                chain.tensors[i] = self._output(chain, i, "stash" if i in saved else "operand")
        if plan is None and not ranges:
            return []
        return self._forward_passes(chain, plan, taken, ranges)

    def _first_input(self, product: Layer) -> list[TensorRecord]:
        if product.kind == "attn_matmul":
            return []
        size = product.touched * self.batch
        return [self.make(f"{product.input_name}.input", product.name, size, "stash", "")]

    def _forward_passes(
        self, chain: Chain, plan: PassPlan | None, taken: int, ranges: list[tuple[int, int]]
    ) -> list[PassPlan]:
        out, last = [], [_once(r) for r in chain.last]
        if plan is not None:
            if ranges:
                plan.writes = [t for t in plan.writes if t.record.role != "activation"]
            plan.writes += self._made(chain, 0, taken)
            out.append(plan)
        for begin, end in ranges:
            layer = chain.layers[begin]
            source = chain.tensors[begin]
            times = 2 if layer.kind == "bn" and self.options.fusion == "none" else 1
            mine = PassPlan(layer=layer.name, pass_="forward", step=0)
            if source is None:  # nothing made it: the rows of an embedding, the input itself
                source = self._rows(layer)
            mine.reads = [_once(source, times)]
            mine.writes = self._made(chain, begin + 1, end)
            if end == len(chain.layers):
                mine.writes += last
            out.append(mine)
        return out

    def _rows(self, layer: Layer) -> TensorRecord:
        return self.make(
            f"{layer.name}.rows", layer.name, layer.in_elements * self.batch, "stash", ""
        )

    def _made(self, chain: Chain, first: int, end: int) -> list[Transfer]:
        """What the layers up to `end` write: outputs from number `first` on, and masks."""
        out = [_once(r) for r in chain.tensors[first : end + 1] if r is not None]
        return out + self._masks(chain, max(first - 1, 0), end)

    def _masks(self, chain: Chain, begin: int, end: int) -> list[Transfer]:
        """The masks and indices that autograd keeps of layers `begin` to `end`."""
        if self.options.stash == "paper" or not self.backward:
            return []
        return [
            _once(
                self.make(
                    f"{chain.name}+{i}.{layer.kind}.mask", layer.name,
                    layer.out_elements * self.batch, "buffer", SAVES_MASK[layer.kind],
                )
            )
            for i, layer in enumerate(chain.layers[begin:end], begin + 1)
            if layer.kind in SAVES_MASK
        ]  # fmt: skip

    # Backward -------------------------------------------------------------------------

    def _host(self, name: str) -> PassPlan | None:
        """Return the pass that writes the gradient called `name`."""
        return next((p for p in self.backward if any(w.record.name == name for w in p.writes)),
                    None)  # fmt: skip

    def _needed(self, chain: Chain, begin: int, end: int, twice: bool) -> list[Transfer]:
        """What the backward passes of layers `begin` to `end` read of the forward pass."""
        out = []
        for i in range(begin, end):
            kind = chain.layers[i].kind
            if self.options.stash == "paper":
                known = chain.last[:1] if kind in (*SAVES_INPUT, *SAVES_OUTPUT) else []
            elif kind in SAVES_INPUT:
                known = self._known(chain, i)
            else:
                known = self._known(chain, i + 1) if kind in SAVES_OUTPUT else []
            out += [_once(r, 2 if twice and kind == "bn" else 1) for r in known]
        merged = {t.record.name: t for t in sorted(out, key=lambda t: t.times)}
        return [*merged.values(), *self._masks(chain, begin, end)]

    def _known(self, chain: Chain, i: int) -> list[TensorRecord]:
        found = chain.tensors[i]
        if found is not None:
            return [found]
        return chain.last[:1] if i == len(chain.layers) else []

    def _gradients(self, chain: Chain) -> None:
        """Move the gradients between a product and what follows it."""
        host = self._host(f"{chain.name}.output_gradient")
        if host is None:
            return
        taken, ranges = own_passes(chain.layers, self.options.fusion)
        if not ranges:
            if self.options.stash == "autograd":
                host.reads += self._needed(chain, 0, len(chain.layers), twice=False)
            return
        gradient = next(w for w in host.writes if w.record.name.startswith(chain.name + ".out"))
        host.writes = [w for w in host.writes if w is not gradient]
        above = self._gradient(chain, len(chain.layers))
        host.writes.append(_once(above))
        passes = []
        unfused = self.options.fusion == "none"
        for number, (begin, end) in reversed(list(enumerate(ranges))):
            mine = PassPlan(layer=chain.layers[begin].name, pass_="input_gradient", step=0)
            times = 2 if unfused and chain.layers[begin].kind == "bn" else 1
            mine.reads = [_once(above, times), *self._needed(chain, begin, end, twice=True)]
            if number == 0:
                mine.reads += self._needed(chain, 0, taken, twice=False)
                mine.writes = [gradient]
            else:
                above = self._gradient(chain, begin)
                mine.writes = [_once(above)]
            passes.append(mine)
        at = next(i for i, p in enumerate(self.backward) if p.layer == chain.name)
        self.backward[at:at] = passes

    def _gradient(self, chain: Chain, i: int) -> TensorRecord:
        layer = chain.layers[i - 1]
        values = layer.out_elements * self.batch
        return self.make(
            f"{chain.name}+{i}.{layer.kind}.gradient", layer.name, values, "output_gradient", ""
        )

    # Recomputation --------------------------------------------------------------------

    def _from_normalisations(self) -> None:
        """Read the input of a normalisation again where its output was stashed."""
        instead: dict[str, TensorRecord] = {}
        for chain in self.chains[1:]:
            norms = [i for i, x in enumerate(chain.layers) if x.kind in NORMS]
            if not norms or any(x.kind.endswith("pool") for x in chain.layers[norms[-1] :]):
                continue
            source = chain.tensors[norms[-1]]
            later = [*chain.tensors[norms[-1] + 1 :], *chain.last[:1]]
            if source is not None:
                instead |= {r.name: source for r in later if r is not None}
        for plan in self.backward:
            reads: dict[str, Transfer] = {}
            for t in plan.reads:
                source = instead.get(t.record.name, t.record)
                moved = t if source is t.record else replace(t, record=source, used=source.values)
                known = reads.get(source.name)
                if known is None or known.times < moved.times:
                    reads[source.name] = moved
            plan.reads = list(reads.values())

    def blocks(self) -> dict[str, list[Chain]]:
        """Return the blocks of more than one product by their common name."""
        out: dict[str, list[Chain]] = {}
        for chain in self.chains[1:]:
            if found := BLOCK.match(chain.name):
                out.setdefault(found.group(1), []).append(chain)
        return {name: members for name, members in out.items() if len(members) > 1}

    def _blocks_again(self, ahead: list[PassPlan]) -> list[PassPlan]:
        """Keep a block's input alone, and compute the block again before its gradients."""
        for members in self.blocks().values():
            names = {x.name for c in members for x in (c.product, *c.layers) if x is not None}
            mine = [p for p in ahead if p.layer in names]
            kept = {r.name for r in members[-1].last}
            inner = {t.record.name for p in mine for t in p.writes
                     if t.record.role in ("activation", "other")} - kept  # fmt: skip
            needed = [i for i, p in enumerate(self.backward)
                      if any(t.record.name in inner for t in p.reads)]  # fmt: skip
            if not needed:
                continue
            again = [self._again(p, kept) for p in mine]
            self.backward[needed[0] : needed[0]] = [p for p in again if p.writes]
            for plan in mine:
                plan.reads, plan.writes = (
                    [self._passing(t) if t.record.name in inner else t for t in moved]
                    for moved in (plan.reads, plan.writes)
                )
        return ahead

    def _again(self, plan: PassPlan, kept: set[str]) -> PassPlan:
        writes = [t for t in plan.writes if t.record.name not in kept]
        return replace(plan, layer=f"{plan.layer}:recompute", reads=list(plan.reads), writes=writes)

    def _passing(self, transfer: Transfer) -> Transfer:
        """The same values in the first run, which only the next pass reads."""
        r = transfer.record
        return replace(
            transfer, record=self.make(f"{r.name}:first", r.layer, r.values, "operand", "")
        )
