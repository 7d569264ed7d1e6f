"""Captures tensors of PyTorch training: what autograd stashes, weights and gradients.

Nothing is attached between captured steps, and the model is not changed; observe.py has
what happens inside one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from sfpsim.errors import InputError
from sfpsim.trace.reader import Trace, open_trace, read_manifest
from sfpsim.trace.sampling import RUN_VALUES
from sfpsim.trace.schema import Lengths, Manifest, Use
from sfpsim.trace.writer import TraceWriter


def _begun(path: Path, manifest: Manifest) -> Trace | None:
    """Return the trace in `path`, None where no segment of one was written yet.

    Raises
    ------
    InputError
        If what is there is not a trace with this manifest.
    """
    if (path / "manifest.json").exists() and (held := read_manifest(path)) != manifest:
        differ = [f for f in held.__struct_fields__ if getattr(held, f) != getattr(manifest, f)]
        raise InputError(
            f"{path}: a trace of another training, it differs in {', '.join(differ)}; nothing "
            "is appended"
        )
    if any(path.glob("segment-*.safetensors")):
        begun = open_trace(path)
        assert isinstance(begun, Trace)
        return begun
    left = list(path.glob("*"))
    if all(found.name == "manifest.json" or found.name.startswith(".tmp-") for found in left):
        for found in left:  # killed before its first step
            found.unlink()
    return None


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
        Its state is captured too, where given: every tensor of it with more than one value.
    lengths
        Called with (layer, use) for each tensor that is captured; returns the bitlengths
        in force for it, or None. `use` is that of `TensorRecord`: ``stash``, ``weight``, ...
        By default they are those of the method of `sfpsim.precision` that is attached, if any.
    append
        Go on with the trace in `path`, where there is one, after its last step. For trainings
        that are stopped and resumed; an error where the manifest would differ.
    seed, precision_method, batch_size, licence, note
        For the manifest; `seed` also chooses the sampled runs.

    Raises
    ------
    InputError
        If a parameter is out of range or the directory cannot be written; in a captured
        step also if a tensor has a dtype that a trace cannot hold (complex).

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
        lengths: Callable[[str, Use], Lengths | None] | None = None,
        seed: int = 0, precision_method: str | None = None, batch_size: int | None = None,
        licence: str | None = None, note: str = "", append: bool = False,
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
        self.lengths = lengths
        self.seed = seed
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
        begun = _begun(Path(path), manifest) if append else None
        after = None if begun is None else (begun.records, begun.ops)
        self.writer = TraceWriter(path, manifest, after=after)
        self.count = begun.steps[-1] + 1 if begun is not None else 0
        self.epochs = set[int]()
        """The epochs of which a whole step is in the trace."""
        if begun is not None:
            lost = set(begun.incomplete_steps)
            self.epochs = {record.epoch for record in begun.records if record.step not in lost}

    def __enter__(self) -> Capture:
        """Return the capture."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the capture; each captured step is written when it ends."""

    def run_seed(self, name: str) -> int:
        """Return the seed of the sampled runs of the tensor called `name`."""
        return zlib.crc32(f"{self.seed} {name}".encode())

    def state_of(self, parameter: Any) -> list[tuple[str, Any]]:
        """Return the optimizer's state tensors of the parameter, step counters left out."""
        if self.optimizer is None:
            return []
        import torch

        state = self.optimizer.state.get(parameter, {})
        return [
            (key, value)
            for key, value in state.items()
            if torch.is_tensor(value) and (value.numel() > 1 or value.shape == parameter.shape)
        ]

    def step(self, *, epoch: int = 0) -> AbstractContextManager[None]:
        """Return the context of one step: forward, loss and backward go inside."""
        number = self.count
        self.count += 1
        due = number % self.every == 0 if self.chosen is None else number in self.chosen
        return self._captured(number, epoch) if due else nullcontext()

    @contextmanager
    def _captured(self, number: int, epoch: int) -> Iterator[None]:
        from sfpsim.trace.observe import Observer

        seen = Observer(self, number, epoch)
        seen.parameters()
        with ExitStack() as stack:
            seen.attach(stack)
            yield
        self.writer.add_ops(seen.ops())
        for record, data in seen.records():
            self.writer.add(record, data)
        self.writer.flush()
        self.epochs.add(epoch)
