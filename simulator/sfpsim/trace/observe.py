"""What one captured step computes, saves and multiplies, seen without touching the model.

Four things are attached for the length of the step and taken off again: saved-tensor hooks
see the true stash; a function mode knows which function is running, and so what a tensor
is saved for; a dispatch mode, below autograd and autocast, sees every product with its
operands and, in the backward pass, the gradient each gradient product reads; module hooks
keep the name of the running module. Storages are known by weak references: they keep a
storage's identity from being used again, but not its memory.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import torch
from numpy.typing import NDArray
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sfpsim.errors import InputError
from sfpsim.trace.products import UNCOUNTED, Product, forward_products, gradient_product
from sfpsim.trace.sampling import any_sign, dense, memory_order, sampled_runs, to_numpy
from sfpsim.trace.schema import Lengths, Op, OpRecord, Pass, Role, TensorRecord, Use
from sfpsim.trace.writer import DTYPE_CODES

# Where a precision method that is attached to a model is found.
METHOD = "_sfpsim_precision"
# Operations that only copy, also into another type.
COPIES = ("_to_copy", "clone")
# Operations whose outputs after the first are statistics or indices, not activations.
SIDE_OUTPUTS = re.compile("norm|attention|pool")
# In-place and reflected operators are the function they are named after.
OPERATORS = {f"{p}{name}": name for name in ("add", "sub", "mul", "div", "matmul") for p in "ir"}
OPERATORS |= {"truediv": "div", "rtruediv": "div", "itruediv": "div"}
PASSES: dict[str, Pass] = {
    "stash": "forward", "operand": "forward", "weight_copy": "forward",
    "weight_gradient": "weight_gradient", "output_gradient": "input_gradient",
}  # fmt: skip
ROLES: dict[str, Role] = {
    "weight": "weight", "bias": "weight", "weight_copy": "weight",
    "weight_gradient": "gradient", "output_gradient": "gradient",
    "optimizer_state": "optimizer", "buffer": "other",
}  # fmt: skip


class Settings(Protocol):
    """What an observer needs to know of the capture."""

    model: Any
    sample: int | None
    lengths: Callable[[str, Use], Lengths | None] | None

    def run_seed(self, name: str) -> int:
        """Return the seed of the sampled runs of the tensor called `name`."""

    def state_of(self, parameter: Any) -> list[tuple[str, Any]]:
        """Return the optimizer's state tensors of the parameter."""


@dataclass(kw_only=True)
class Known:
    """What is known of a storage: the parameter it is or derives from, when it was made."""

    reference: Any
    parameter: str = ""
    fixed: bool = False
    other: bool = False
    made: int = 0
    layer: str | None = None
    lengths: Lengths | None = None


@dataclass(kw_only=True)
class Call:
    """A running function: what it is, where, what it saved and multiplied."""

    kind: str
    layer: str
    order: int = 0
    saves: list[str] = field(default_factory=list)
    multiplied: set[str] = field(default_factory=set)
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()

    @property
    def op(self) -> Op:
        """Its op, without a product."""
        return Op(kind=self.kind, input_shape=self.input_shape, output_shape=self.output_shape)


@dataclass(kw_only=True)
class Ran:
    """A product that ran: its record's fields, and what its gradient is matched by."""

    name: str
    order: int
    layer: str
    op: Op
    reads: list[str] = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)
    gradient: str = ""
    wanted: list[bool] = field(default_factory=lambda: [False, False])


class Observer:
    """Sees one step. ``attach``, run the step, then ``records`` and ``ops``."""

    def __init__(self, settings: Settings, number: int, epoch: int) -> None:
        self.settings = settings
        self.number = number
        self.epoch = epoch
        self.clock = 0
        self.busy = False
        self.modules: list[str] = []
        self.first_run: dict[str, int] = {}
        self.storages: dict[int, Known] = {}
        self.seen: dict[Any, str] = {}
        self.entries: dict[str, tuple[dict[str, Any], NDArray[Any]]] = {}
        self.calls: list[Call] = []
        self.finished: list[Call] = []
        self.products: list[Ran] = []
        self.names: set[str] = set()
        found = (getattr(module, METHOD, None) for module in settings.model.modules())
        self.methods = [method for method in found if method is not None]
        self.stored: list[tuple[str, Any, Any]] = []

    # Names, times and identities -------------------------------------------------------

    @property
    def layer(self) -> str:
        """The running module."""
        return self.modules[-1] if self.modules else ""

    def tick(self) -> int:
        """Return the next position in the order of execution."""
        self.clock += 1
        return self.clock

    def known(self, tensor: Any) -> Known:
        """Return what is known of the tensor's storage."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.storages:
            self.storages[storage._cdata] = Known(reference=StorageWeakRef(storage))
        return self.storages[storage._cdata]

    def key(self, tensor: Any) -> Any:
        """What makes two tensors the same values in the same memory."""
        self.known(tensor)
        storage = tensor.untyped_storage()._cdata
        where = tensor.storage_offset(), dense(tensor).numel()
        # tensors of inference mode cannot be told apart by version
        version = 0 if tensor.is_inference() else tensor._version
        return storage, version, tensor.dtype, *where

    def unique(self, name: str) -> str:
        """Return `name`, with a number if it is taken."""
        found, number = name, 1
        while found in self.names:
            number += 1
            found = f"{name}:{number}"
        self.names.add(found)
        return found

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Keep the observer's own operations out of what it sees."""
        before, self.busy = self.busy, True
        try:
            with torch.no_grad(), torch._C._DisableTorchDispatch():
                yield
        finally:
            self.busy = before

    # Attaching ------------------------------------------------------------------------

    def attach(self, stack: ExitStack) -> None:
        """Attach everything; `stack` takes it off again."""
        self._label()
        stack.callback(self._unite)
        for method in self.methods:
            method.witness = self.stored_as
            stack.callback(setattr, method, "witness", None)
        for name, module in self.settings.model.named_modules():
            before = module.register_forward_pre_hook(self._enter(name))
            # always_call: checkpointing leaves modules by an exception when it recomputes
            after = module.register_forward_hook(self._leave(name), always_call=True)
            stack.callback(before.remove)
            stack.callback(after.remove)
        for name, parameter in self.settings.model.named_parameters():
            if parameter.requires_grad:
                hook = parameter.register_post_accumulate_grad_hook(self._weight_gradient(name))
                stack.callback(hook.remove)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self._pack, lambda t: t))
        stack.enter_context(_Dispatch(self))
        stack.enter_context(_Functions(self))

    def _label(self) -> None:
        for _, buffer in self.settings.model.named_buffers():
            self.known(buffer).fixed = self.known(buffer).other = True
        for name, parameter in self.settings.model.named_parameters():
            known = self.known(parameter)
            known.parameter, known.fixed = name, True

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any) -> None:
            self.modules.append(name)
            self.first_run.setdefault(name, self.tick())

        return hook

    def _leave(self, name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            while self.modules and self.modules.pop() != name:
                pass

        return hook

    def stored_as(self, x: Any, quantized: Any, lengths: Lengths | None) -> None:
        """Note that a precision method stores `x` as `quantized`: one tensor in memory."""
        known, other = self.known(x), self.known(quantized)
        other.lengths = lengths
        if not known.fixed:
            other.made, other.layer, other.other = known.made, known.layer, known.other
        elif known.parameter and self.settings.lengths is None:
            self.entries[f"weight.{known.parameter}"][0]["lengths"] = lengths
        self.stored.append((known.parameter, self.key(x), self.key(quantized)))

    # What is seen ---------------------------------------------------------------------

    def _pack(self, tensor: Any) -> Any:
        kept = tensor.detach()
        if kept.numel() and not self.busy and kept.layout == torch.strided:
            call = self.calls[-1] if self.calls else self._orphan()
            name = self.see(kept, "stash", call)
            if name and name not in call.saves:
                call.saves.append(name)
        return kept

    def _orphan(self) -> Call:
        """Return a call of its own for what no function saved: an autograd.Function."""
        call = Call(kind="custom", layer=self.layer, order=self.tick())
        self.finished.append(call)
        return call

    def see(self, tensor: Any, use: Use, call: Call | Ran) -> str:
        """Record `tensor` unless it is there already; return its name, without the step."""
        known = self.known(tensor)
        if known.parameter and known.fixed:
            return f"weight.{known.parameter}"
        key = self.key(tensor)
        if key not in self.seen:
            self.seen[key] = self._new(tensor, use, known, call)
        entry, _ = self.entries[self.seen[key]]
        if use == "stash" and entry["use"] == "operand":
            entry["use"] = "stash"
        if call.layer not in entry["users"]:
            entry["users"].append(call.layer)
        return self.seen[key]

    def _new(self, tensor: Any, use: Use, known: Known, call: Call | Ran) -> str:
        if known.parameter:
            use, role = "weight_copy", "weight"
        elif known.fixed:
            use, role = "buffer", "other"
        else:
            # a single value is a count or a scale, such as the loss's total weight
            activation = tensor.is_floating_point() and not known.other and tensor.numel() > 1
            role = "activation" if activation else "other"
        name = f"{use}.{len(self.seen)}.{call.layer or 'model'}"
        told = {"lengths": known.lengths} if known.lengths and not self.settings.lengths else {}
        self.record(
            dense(tensor), name, use, call.layer, role=role, call=call, parameter=known.parameter,
            users=[], producer=known.layer, order=0 if known.fixed else known.made,
            **told,
        )  # fmt: skip
        return name

    def record(self, tensor: Any, name: str, use: Use, layer: str, **fields: Any) -> None:
        """Copy what is kept of `tensor` now, as the entry `name`."""
        with self.quiet():
            tensor = tensor.detach()
            order = memory_order(tensor)
            flat = tensor.permute(order).reshape(-1)
            seed = self.settings.run_seed(name)
            runs = sampled_runs(flat.numel(), self.settings.sample, seed)
            data = to_numpy(torch.cat([flat[at : at + length] for at, length in runs]))
            signed = any_sign(flat)
        if data.dtype.name not in DTYPE_CODES:
            raise InputError(
                f"tensor {name!r}: dtype {tensor.dtype} is not supported: allowed are "
                + ", ".join(DTYPE_CODES)
            )
        lengths = self.methods[0].untouched if self.methods else None
        if self.settings.lengths is not None:
            lengths = self.settings.lengths(layer, use)
        entry = {
            "layer": layer, "use": use, "role": ROLES.get(use), "dtype": data.dtype.name,
            "shape": tuple(tensor.shape), "memory_order": order, "runs": runs,
            "any_sign": signed, "lengths": lengths,
        } | fields  # fmt: skip
        self.entries[name] = entry, data

    def parameters(self) -> None:
        """Record weights, biases and optimizer state as they are before the step."""
        for name, parameter in self.settings.model.named_parameters():
            layer, _, last = name.rpartition(".")
            use: Use = "bias" if last.endswith("bias") else "weight"
            self.record(parameter, f"weight.{name}", use, layer, parameter=name)
            for key, state in self.settings.state_of(parameter):
                self.record(
                    state, f"optimizer.{name}.{key}", "optimizer_state", layer, parameter=name
                )

    def _weight_gradient(self, name: str) -> Callable[[Any], None]:
        def hook(parameter: Any) -> None:
            gradient = parameter.grad
            self.record(
                gradient._values() if gradient.is_sparse else gradient, f"gradient.{name}",
                "weight_gradient", name.rpartition(".")[0], parameter=name, order=self.tick(),
            )  # fmt: skip

        return hook

    # Functions and operations ---------------------------------------------------------

    def enter(self, function: Any, args: tuple[Any, ...]) -> Call:
        """Note that `function` begins."""
        name = getattr(function, "__name__", "custom").strip("_")
        shapes = [tuple(t.shape) for t in args[:1] if torch.is_tensor(t)]
        call = Call(kind=OPERATORS.get(name, name), layer=self.layer)
        call.input_shape = shapes[0] if shapes else ()
        self.calls.append(call)
        return call

    def leave(self, call: Call, out: Any) -> None:
        """Note that `call` has ended with `out`."""
        self.calls.pop()
        if call.saves:
            call.order = self.tick()
            first = next(_tensors((out,)), None)
            call.output_shape = tuple(first.shape) if first is not None else ()
            self.finished.append(call)

    def ran(self, function: Any, args: tuple[Any, ...], out: Any) -> None:
        """Note a forward operation: the products in it, and the storages it made."""
        name = function.overloadpacket.__name__
        if name in UNCOUNTED:
            warnings.warn(
                f"{self.layer or 'model'}: what {name} multiplies is not taken apart: its MACs and "
                "operands are not in the trace",
                stacklevel=2,
            )
        found = forward_products(name, args, out)
        for product in found:
            self._product(product)
        inputs = list(_tensors(args))
        parameter = "" if found else self._parameter_of(inputs)
        known_inputs = {id(self.known(t)) for t in inputs}
        for number, tensor in enumerate(_tensors((out,))):
            known = self.known(tensor)
            view = id(known) in known_inputs and not function._schema.is_mutable
            if known.fixed or view:
                continue
            known.made, known.layer, known.parameter = self.clock, self.layer, parameter
            known.lengths = self.known(inputs[0]).lengths if name in COPIES else None
            side = number > 0 and SIDE_OUTPUTS.search(name) is not None
            known.other = known.other or side or name == "bernoulli_"

    def _parameter_of(self, inputs: list[Any]) -> str:
        """Return the parameter from which alone, buffers aside, an operation computed.

        So a copy of a weight in autocast's type, or a quantized one, is known as a weight.
        """
        found = [self.known(t) for t in inputs if t.numel() > 1]
        if not all(known.parameter or (known.fixed and known.other) for known in found):
            return ""
        return next((known.parameter for known in found if known.parameter), "")

    def _product(self, product: Product) -> None:
        op = product.op
        known = [self.known(t) if t is not None else None for t in (product.a, product.b)]
        owned = next((k.parameter for k in known if k is not None and k.parameter), "")
        if op.kind == "matmul" and owned:
            op = msgspec.structs.replace(op, kind="linear")
        ran = Ran(
            name=self._product_name(op.kind, owned), order=self.tick(), layer=self.layer, op=op,
        )  # fmt: skip
        for tensor in (product.a, product.b):
            ran.reads.append(self.see(tensor, "operand", ran) if tensor is not None else "")
            ran.keys.append(self.key(tensor) if tensor is not None else None)
        if self.calls:
            self.calls[-1].multiplied.update(ran.reads)
        self.products.append(ran)

    def _product_name(self, kind: str, parameter: str) -> str:
        owner = parameter.rpartition(".")[0]
        inside = not self.layer or owner == self.layer or owner.startswith(f"{self.layer}.")
        if parameter and inside:
            name = owner or "model"
        elif parameter:
            name = self.layer
        else:
            name = f"{self.layer}:{kind}" if self.layer else kind
        again = torch._C._current_graph_task_id() != -1
        return self.unique(f"{name}:recompute" if again else name)

    # The backward pass ----------------------------------------------------------------

    def ran_backward(self, function: Any, args: tuple[Any, ...]) -> None:
        """Note a backward operation: which product's gradient it computes, from what."""
        name = function.overloadpacket.__name__
        for operands, gradient, first, second in gradient_product(name, args):
            keys = [self._identity(t) if t is not None else None for t in operands]
            if len(operands) == 2:
                ran = self._pair(keys)
                if ran is not None:
                    self._gradient(ran, gradient, [first, second])
            elif self._matmul_gradient(keys[0], gradient):
                return

    @staticmethod
    def _identity(tensor: Any) -> Any:
        """Return the part of a key that a detached tensor shares with the original."""
        where = tensor.storage_offset(), dense(tensor).numel()
        return tensor.untyped_storage()._cdata, *where

    @staticmethod
    def _matches(key: Any, identity: Any) -> bool:
        return key is not None and identity is not None and (key[0], *key[3:]) == identity

    def _pair(self, identities: list[Any]) -> Ran | None:
        """Return the last product with these operands, else one with one of them.

        One alone is known where checkpointing computed the other again.
        """
        for enough in (sum(i is not None for i in identities), 1):
            for ran in reversed(self.products):
                pairs = zip(ran.keys, identities, strict=True)
                same = sum(self._matches(key, i) for key, i in pairs)
                if same >= enough and not any(ran.wanted):
                    return ran
        return None

    def _matmul_gradient(self, operand: Any, gradient: Any) -> bool:
        """Match one reading of a backward product; the last forward product wins.

        The first operand is read for the gradient of the second, and the other way round.
        """
        name = self.seen.get(self.key(gradient))
        for exact in (True, False):
            for ran in reversed(self.products):
                fits = gradient.numel() == ran.op.groups * ran.op.m * ran.op.n
                for place in (0, 1) if fits else ():
                    key = ran.keys[place]
                    known = self._matches(key, operand)
                    if not exact:
                        # checkpointing computed it again: known by its gradient and its size
                        again = name is not None and name == ran.gradient and key is not None
                        known = again and key[4] == operand[2]
                    wanted = [place == 1, place == 0]
                    open_ = known and not ran.wanted[1 - place]
                    if open_ and self._gradient(ran, gradient, wanted):
                        return True
        return False

    def _gradient(self, ran: Ran, gradient: Any, wanted: list[bool]) -> bool:
        """Note that gradients of `ran` are computed from `gradient`; False: from another one."""
        if gradient is not None:
            key = self.key(gradient)
            if ran.gradient and self.seen.get(key) != ran.gradient:
                return False
            if key not in self.seen:
                self.seen[key] = name = f"output_gradient.{ran.name}"
                self.record(
                    gradient, name, "output_gradient", ran.layer, users=[], call=ran,
                    order=self.tick(),
                )  # fmt: skip
            ran.gradient = self.seen[key]
        ran.wanted = [before or now for before, now in zip(ran.wanted, wanted, strict=True)]
        return True

    def _unite(self) -> None:
        """Let one of a value and its quantized form stand for both, as there is one in memory.

        An activation function saves its output as it computes it, the next layer the same
        quantized: that one stays. A parameter stays as it is, with its lengths.
        """
        names: dict[str, str] = {}
        for parameter, key, other in self.stored:
            name, kept = self.seen.get(key), self.seen.get(other)
            if parameter:
                name, kept = kept, f"weight.{parameter}"
            if name and kept and name != kept and name in self.entries:
                names[name] = kept
                users = self.entries.pop(name)[0]["users"]
                if not parameter:
                    entry = self.entries[kept][0]
                    entry["users"] = list(dict.fromkeys([*users, *entry["users"]]))
        for call in self.finished:
            call.saves = list(dict.fromkeys(names.get(n, n) for n in call.saves))
            call.multiplied = {names.get(n, n) for n in call.multiplied}
        for ran in self.products:
            ran.reads = [names.get(n, n) for n in ran.reads]

    # Records --------------------------------------------------------------------------

    def full_name(self, name: str) -> str:
        """Return the name of an entry in the trace; "" stays."""
        return f"step{self.number}.{name}" if name in self.entries else ""

    def ops(self) -> list[OpRecord]:
        """Return the products and what else saved something, in order of execution."""
        operands = {name for ran in self.products for name in ran.reads}
        out = [self._product_record(ran) for ran in self.products]
        for call in self.finished:
            # what an autograd.Function multiplied itself is not known to its call
            multiplied = operands if call.kind == "custom" else call.multiplied
            saves = [self.full_name(n) for n in call.saves if n not in multiplied]
            name = f"{call.layer}:{call.kind}" if call.layer else call.kind
            if saves:
                out.append(
                    OpRecord(
                        name=self.unique(name), step=self.number, order=call.order,
                        layer=call.layer, op=call.op, saves=tuple(saves),
                    )
                )  # fmt: skip
        return sorted(out, key=lambda op: op.order)

    def _product_record(self, ran: Ran) -> OpRecord:
        return OpRecord(
            name=ran.name, step=self.number, order=ran.order, layer=ran.layer, op=ran.op,
            reads=tuple(map(self.full_name, ran.reads)), gradient=self.full_name(ran.gradient),
            gradients=(ran.wanted[0], ran.wanted[1]),
        )  # fmt: skip

    def records(self) -> list[tuple[TensorRecord, NDArray[Any]]]:
        """Return what was seen, each with its values."""
        ops: dict[str, Op] = {}
        for ran in self.products:
            for name in (ran.name, *ran.reads):
                ops.setdefault(name, ran.op)
        for call in self.finished:
            ops.setdefault(call.layer, call.op)
        return [
            (self._record(name, dict(entry), ops), data)
            for name, (entry, data) in self.entries.items()
        ]

    def _record(self, name: str, entry: dict[str, Any], ops: dict[str, Op]) -> TensorRecord:
        call = entry.pop("call", None)
        own = call.op if call is not None else ops.get(entry["layer"])
        saved_for_product = isinstance(call, Call) and name in call.multiplied
        entry.setdefault("order", self.first_run.get(entry["layer"], 0))
        entry["users"] = tuple(entry.get("users", ()))
        return TensorRecord(
            name=f"step{self.number}.{name}", step=self.number, epoch=self.epoch,
            op=ops[name] if saved_for_product else own,
            pass_=PASSES.get(entry["use"], "update"), **entry,
        )  # fmt: skip


def _tensors(values: Any) -> Iterator[Any]:
    """Yield the tensors in nested tuples and lists."""
    for value in values:
        if torch.is_tensor(value):
            if value.layout == torch.strided:
                yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


class _Functions(TorchFunctionMode):
    """Tells the observer which function of PyTorch is running."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self.observer = observer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self.observer.busy:
            return func(*args, **(kwargs or {}))
        call = self.observer.enter(func, args)
        out = None
        try:
            out = func(*args, **(kwargs or {}))
        finally:
            self.observer.leave(call, out)
        return out


class _Dispatch(TorchDispatchMode):
    """Shows the observer every operation below autograd."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self.observer = observer

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        observer = self.observer
        backward = torch._C._current_graph_task_id() != -1 and not torch.is_grad_enabled()
        if observer.busy:
            return func(*args, **(kwargs or {}))
        if backward:
            observer.ran_backward(func, args)
            return func(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        observer.ran(func, args, out)
        return out
