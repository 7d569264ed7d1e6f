"""Captures tensors of PyTorch training: what autograd stashes, weights and gradients.

In a captured step one pair of saved-tensor hooks sees the true stash, forward hooks keep a
stack of module names that names it, and tensor hooks see the gradients. Nothing is
attached between captured steps, and the model is not changed.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from sfpsim.errors import InputError
from sfpsim.trace.schema import Manifest, Op, Role, TensorRecord, Use
from sfpsim.trace.writer import DTYPE_CODES, TraceWriter

RUN_VALUES = 512
GROUP_VALUES = 64
Runs = tuple[tuple[int, int], ...]


def sampled_runs(values: int, sample: int | None, seed: int) -> Runs:
    """Return the runs (first value, values) to keep of a tensor of `values` values.

    About `sample` values in runs of 512, one at a random multiple of 64 in each of as many
    equal parts of the tensor; a tensor that is not longer than the sample, or than two runs
    a part, is kept whole.
    """
    if sample is None or values <= max(sample, 2 * RUN_VALUES):
        return ((0, values),)
    count = max(2, sample // RUN_VALUES)
    chance = random.Random(seed)
    part = values // count // GROUP_VALUES * GROUP_VALUES
    room = (part - RUN_VALUES) // GROUP_VALUES
    return tuple(
        (i * part + GROUP_VALUES * chance.randint(0, room), RUN_VALUES) for i in range(count)
    )


def memory_order(tensor: Any) -> tuple[int, ...]:
    """Return the dimensions from slowest- to fastest-varying in memory."""
    strides = tensor.stride()
    return tuple(sorted(range(tensor.dim()), key=lambda d: (-strides[d], d)))


def to_numpy(tensor: Any) -> NDArray[Any]:
    """Return a flat CPU tensor as numpy, bfloat16 included, without changing a bit."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        bits: NDArray[Any] = tensor.view(torch.int16).numpy()
        return bits.view(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy())


def _product_op(module: Any, inputs: Any, output: Any) -> Op | None:
    """Return the op of a convolution or a linear layer; None for other modules."""
    import torch

    if not (inputs and torch.is_tensor(inputs[0]) and torch.is_tensor(output)):
        return None
    shapes: dict[str, Any] = {
        "input_shape": tuple(inputs[0].shape),
        "output_shape": tuple(output.shape),
    }
    if isinstance(module, torch.nn.Linear):
        rows = inputs[0].numel() // module.in_features
        return Op(kind="linear", m=rows, n=module.out_features, k=module.in_features, **shapes)
    if not isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d):
        return None
    kernel = tuple(module.kernel_size)
    padding = module.padding if isinstance(module.padding, tuple) else ()
    return Op(
        kind="conv",
        m=output.shape[0] * math.prod(output.shape[2:]),
        n=module.out_channels // module.groups,
        k=module.in_channels // module.groups * math.prod(kernel),
        groups=module.groups,
        kernel=kernel,
        stride=tuple(module.stride),
        padding=tuple(padding),
        **shapes,
    )


class _Step:
    """The hooks and what they saw, for one captured step."""

    def __init__(self, capture: Capture, number: int, epoch: int) -> None:
        self.capture = capture
        self.number = number
        self.epoch = epoch
        self.clock = 0
        self.stack: list[str] = []
        self.position: dict[str, int] = {}
        self.ops: dict[str, Op] = {}
        self.producers: dict[Any, str] = {}
        self.stash: dict[Any, tuple[Any, dict[str, Any]]] = {}
        self.found: list[tuple[dict[str, Any], NDArray[Any]]] = []
        self.owners = {p.untyped_storage().data_ptr() for p in capture.model.parameters()}

    def tick(self) -> int:
        """Return the next position in the order of execution."""
        self.clock += 1
        return self.clock

    @staticmethod
    def key(tensor: Any) -> Any:
        """What makes two stashed tensors the same one."""
        storage = tensor.untyped_storage().data_ptr()
        return storage, tensor._version, tensor.dtype, tensor.storage_offset(), tensor.numel()

    def attach(self, stack: ExitStack) -> None:
        """Attach every hook; `stack` takes them off again."""
        import torch

        for name, module in self.capture.model.named_modules():
            before = module.register_forward_pre_hook(self._enter(name))
            after = module.register_forward_hook(self._leave(name))
            stack.callback(before.remove)
            stack.callback(after.remove)
        for name, parameter in self.capture.model.named_parameters():
            if parameter.requires_grad:
                hook = parameter.register_post_accumulate_grad_hook(self._weight_gradient(name))
                stack.callback(hook.remove)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self._pack, lambda t: t))

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any) -> None:
            self.stack.append(name)
            self.position.setdefault(name, self.tick())

        return hook

    def _leave(self, name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            import torch

            self.stack.pop()
            outputs = output if isinstance(output, tuple | list) else (output,)
            for tensor in outputs:
                if torch.is_tensor(tensor):
                    self.producers.setdefault(self.key(tensor), name)
            op = _product_op(module, inputs, output)
            if op is not None:
                self.ops[name] = op
                if output.requires_grad:
                    output.register_hook(self._output_gradient(name))

        return hook

    def _pack(self, tensor: Any) -> Any:
        kept = tensor.detach()
        if tensor.untyped_storage().data_ptr() in self.owners or not tensor.numel():
            return kept
        layer = self.stack[-1] if self.stack else ""
        key = self.key(tensor)
        if key in self.stash:
            users = self.stash[key][1]["users"]
            if layer not in users:
                users.append(layer)
            return kept
        entry = self._entry(kept, f"stash.{len(self.stash)}.{layer or 'model'}", "stash")
        entry.update(layer=layer, users=[layer], producer=self.producers.get(key))
        entry.update(order=self.tick())
        self.stash[key] = kept, entry
        return kept

    def _entry(self, tensor: Any, name: str, use: Use) -> dict[str, Any]:
        """Copy what is sampled of `tensor` now; return the fields of its record."""
        import torch

        order = memory_order(tensor)
        flat = tensor.detach().permute(order).reshape(-1)
        runs = sampled_runs(flat.numel(), self.capture.sample, self.capture.run_seed(name))
        data = to_numpy(torch.cat([flat[at : at + length] for at, length in runs]))
        if data.dtype.name not in DTYPE_CODES:
            raise InputError(
                f"tensor {name!r}: dtype {tensor.dtype} is not supported: allowed are "
                + ", ".join(DTYPE_CODES)
            )
        signed = bool(torch.signbit(flat).any()) if tensor.is_floating_point() else None
        entry = {
            "name": f"step{self.number}.{name}",
            "step": self.number,
            "epoch": self.epoch,
            "use": use,
            "dtype": data.dtype.name,
            "shape": tuple(tensor.shape),
            "memory_order": order,
            "runs": runs,
            "any_sign": signed,
        }
        self.found.append((entry, data))
        return entry

    def _weight_gradient(self, name: str) -> Callable[[Any], None]:
        def hook(parameter: Any) -> None:
            entry = self._entry(parameter.grad, f"gradient.{name}", "weight_gradient")
            entry.update(layer=name.rpartition(".")[0], order=self.tick())

        return hook

    def _output_gradient(self, name: str) -> Callable[[Any], None]:
        def hook(gradient: Any) -> None:
            entry = self._entry(gradient, f"output_gradient.{name}", "output_gradient")
            entry.update(layer=name, order=self.tick())

        return hook

    def parameters(self) -> None:
        """Copy weights, biases and optimizer state as they are before the step."""
        for name, parameter in self.capture.model.named_parameters():
            use: Use = "bias" if name.rpartition(".")[2] == "bias" else "weight"
            self._entry(parameter, f"weight.{name}", use)["layer"] = name.rpartition(".")[0]
            for key, state in self.capture.state_of(parameter):
                entry = self._entry(state, f"optimizer.{name}.{key}", "optimizer_state")
                entry["layer"] = name.rpartition(".")[0]

    def write(self, writer: TraceWriter) -> None:
        """Write everything that was seen as one segment (or more)."""
        roles: dict[str, Role] = {
            "stash": "activation",
            "weight": "weight",
            "bias": "weight",
            "weight_gradient": "gradient",
            "output_gradient": "gradient",
            "optimizer_state": "optimizer",
        }
        passes = {"weight_gradient": "weight_gradient", "output_gradient": "input_gradient"}
        passes |= {"stash": "forward", "weight": "update", "bias": "update"}
        latest = {entry["name"]: (entry, data) for entry, data in self.found}
        for entry, data in latest.values():
            entry.setdefault("order", self.position.get(entry["layer"], 0))
            entry["users"] = tuple(entry.get("users", ()))
            use = entry["use"]
            record = TensorRecord(
                role=roles[use],
                op=self.ops.get(entry["layer"]),
                pass_=passes.get(use, "update"),  # type: ignore[arg-type]
                **entry,
            )
            writer.add(record, data)
        writer.flush()


class Capture:
    """Writes a trace of every `every`-th training step of a model.

    Parameters
    ----------
    model
        A ``torch.nn.Module``.
    path
        The trace directory to make.
    every
        A step in this many is captured, the first one included.
    steps
        The steps to capture instead of every `every`-th.
    sample
        Values to keep of each tensor, about, at least 1024; None keeps all.
    optimizer
        Its state is captured too, where given.
    seed, precision_method, batch_size, licence, note
        For the manifest; `seed` also chooses the sampled runs.

    Raises
    ------
    InputError
        If a parameter is out of range or the directory cannot be written.

    Examples
    --------
    ::

        with sfpsim.Capture(model, "run.trace", every=50) as capture:
            for x, y in loader:
                with capture.step():
                    loss = criterion(model(x), y)
                    loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    """

    def __init__(
        self, model: Any, path: str | Path, *, every: int = 50,
        steps: Collection[int] | None = None, sample: int | None = None, optimizer: Any = None,
        seed: int = 0, precision_method: str | None = None, batch_size: int | None = None,
        licence: str | None = None, note: str = "",
    ) -> None:  # fmt: skip
        import torch

        if every < 1:
            raise InputError(f"every={every}: must be 1 or more")
        if sample is not None and sample < 2 * RUN_VALUES:
            raise InputError(f"sample={sample}: must be {2 * RUN_VALUES} or more, or None")
        self.model = model
        self.every = every
        self.chosen = None if steps is None else frozenset(steps)
        self.sample = sample
        self.optimizer = optimizer
        self.seed = seed
        self.count = 0
        manifest = Manifest(
            model=type(model).__name__,
            framework="torch",
            framework_version=str(torch.__version__),
            seed=seed,
            precision_method=precision_method,
            optimizer=type(optimizer).__name__ if optimizer is not None else None,
            batch_size=batch_size,
            licence=licence,
            note=note,
        )
        self.writer = TraceWriter(path, manifest)

    def __enter__(self) -> Capture:
        """Return the capture."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is pending."""
        self.writer.flush()

    def run_seed(self, name: str) -> int:
        """Return the seed of the sampled runs of the tensor called `name`."""
        return zlib.crc32(f"{self.seed} {name}".encode())

    def state_of(self, parameter: Any) -> list[tuple[str, Any]]:
        """Return the optimizer's state tensors of the parameter's shape."""
        if self.optimizer is None:
            return []
        import torch

        state = self.optimizer.state.get(parameter, {})
        return [
            (key, value)
            for key, value in state.items()
            if torch.is_tensor(value) and value.shape == parameter.shape
        ]

    def step(self, *, epoch: int = 0) -> AbstractContextManager[None]:
        """Return the context of one step: forward, loss and backward go inside."""
        number = self.count
        self.count += 1
        due = number % self.every == 0 if self.chosen is None else number in self.chosen
        return self._captured(number, epoch) if due else nullcontext()

    @contextmanager
    def _captured(self, number: int, epoch: int) -> Iterator[None]:
        seen = _Step(self, number, epoch)
        seen.parameters()
        with ExitStack() as stack:
            seen.attach(stack)
            yield
        seen.write(self.writer)
