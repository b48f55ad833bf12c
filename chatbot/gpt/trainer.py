"""transformers' Trainer, with what it lacks: steps of a token budget that survive a lack of memory, data in an order
that depends on the step alone, checkpoints that are there whole or not at all, and bits per byte of what is held out.
"""

from __future__ import annotations

import gc
import math
import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainingArguments

from chatbot.device import is_out_of_memory
from chatbot.errors import UserError
from chatbot.gpt.options import Options
from chatbot.gpt.rows import IGNORED, Rows
from chatbot.training import checkpoint, parallel
from chatbot.training.randomness import order_of

_MOST_HELD_TOKENS = 65_536
_KEEP = 2


class Examples(Protocol):
    """What is learned from, by number: some together give tensors whose first dimension is theirs."""

    def __len__(self) -> int: ...

    def batch(self, numbers: Sequence[int]) -> dict[str, Tensor]: ...


Kind = TypeVar("Kind", bound=Examples)
Found = TypeVar("Found")


class Steps(IterableDataset[dict[str, Tensor]]):
    """The rows of each step for one of the processes, from the step that `begin` gives to step `total`.

    Which rows a step has depends on its number and the seed alone: a resumed run needs to skip nothing, and any
    number of processes learns from the same rows.
    """

    def __init__(
        self, rows: Examples, options: Options, total: int, begin: Callable[[], int], rank: int, ranks: int
    ) -> None:
        self._rows, self._options, self._total, self._begin = rows, options, total, begin
        self._rank, self._ranks = rank, ranks

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for step in range(self._begin(), self._total):
            yield self._rows.batch(self.numbers(step)[self._rank :: self._ranks])

    def numbers(self, step: int) -> list[int]:
        """The rows of a step, over all processes."""
        return order_of(range(len(self._rows)), self._options.rows_a_step, step, self._options.seed)


class ExampleTrainer(Trainer, Generic[Kind]):
    """Trains on examples of some kind; what is learned of them, a kind of trainer says.

    Args:
        run: its checkpoints come under this folder.
        train, held: what is learned, and what it is measured on.
        steps: of the whole run.
        micro_rows: examples computed at once.
        complain: told what a person should know.

    Raises:
        UserError: the memory does not suffice for the model.
    """

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        options: Options,
        *,
        run: Path,
        train: Kind,
        held: Kind,
        steps: int,
        micro_rows: int,
        complain: Callable[[str], None],
        callbacks: list[Any],
    ) -> None:
        with _memory_suffices():
            super().__init__(model=model, args=arguments, callbacks=callbacks)
        self.options, self.run, self.micro_rows = options, run, micro_rows
        self.train_rows, self.held_rows, self.steps = train, held, steps
        self.complain = complain

    # the data

    def get_train_dataloader(self) -> DataLoader[Any]:
        rank, ranks = self.args.process_index, self.args.world_size
        steps = Steps(self.train_rows, self.options, self.steps, lambda: self.state.global_step, rank, ranks)
        return DataLoader(steps, batch_size=None)

    # a step

    def train(self, *arguments: Any, **named: Any) -> Any:
        """As Trainer does it. Raises UserError where the memory does not suffice, however few rows are computed."""
        with _memory_suffices():
            return super().train(*arguments, **named)

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward over all examples of a step, `micro_rows` at once; gives the mean loss.

        Where the memory does not suffice, half as many rows are computed at once, and the step begins anew: it has
        the same gradient, only later.

        Raises:
            UserError: a single row is too much.
        """
        model.train()
        held = self._prepare_inputs(inputs)
        total = _over_all(self.weight(held))
        return self._within_memory(model, partial(self._forward_backward, model, held, total))

    def _forward_backward(self, model: Any, held: dict[str, Tensor], weight: Tensor) -> Tensor:
        count = len(held["input_ids"])
        total = torch.zeros((), device=self.args.device)
        for at in range(0, count, self.micro_rows):
            some = {name: value[at : at + self.micro_rows] for name, value in held.items()}
            is_last = at + self.micro_rows >= count
            # Gradients are averaged over the processes: times their number, the sum is over all that a step learns.
            with nullcontext() if is_last else self.accelerator.no_sync(model):
                loss = self.loss(model, some) * (self.args.world_size / weight)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def autocast(self) -> torch.autocast:
        """The precision of the run."""
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.options.precision == "bf16")

    @abstractmethod
    def loss(self, model: Any, some: dict[str, Tensor]) -> Tensor:
        """The summed loss of some examples, a scalar."""

    @abstractmethod
    def weight(self, some: dict[str, Tensor]) -> Tensor:
        """What that sum is divided by for a mean, a scalar."""

    @abstractmethod
    def measure(self, model: Any, number: int, held: dict[str, Tensor]) -> list[float]:
        """What of a held-out example is summed over all."""

    @abstractmethod
    def figures(self, sums: list[float]) -> dict[str, float]:
        """From these sums, what is measured of the model: first that by which the best state is chosen, the least."""

    def _within_memory(self, model: Any, compute: Callable[[], Found]) -> Found:
        """What `compute` gives, begun anew with half as many rows at once as long as the memory does not suffice."""
        while True:
            try:
                return compute()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                trouble = type(error).__name__
            # Outside of the handler: the error holds on to the memory of the frames it passed through.
            self._halve(model, trouble)

    def _halve(self, model: Any, trouble: str) -> None:
        if self.micro_rows == 1 or self.args.world_size > 1:
            rows = f"{self.micro_rows} rows of {self.options.block} tokens at once"
            what = "--block" if self.micro_rows == 1 else "--micro-rows"
            raise UserError(f"The memory does not suffice for {rows} ({trouble}); a smaller {what} needs less.")
        self.micro_rows = math.ceil(self.micro_rows / 2)
        model.zero_grad(set_to_none=True)
        gc.collect()
        if self.args.device.type == "cuda":
            torch.cuda.empty_cache()
        self.complain(f"The memory did not suffice; {self.micro_rows} rows are computed at once from now on.")

    # measuring

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """The figures of what is held out, each process looking at its share; nothing where nothing is."""
        # It would be compiled anew for single rows, and for each length of the samples.
        with torch.compiler.set_stance("force_eager") if self.options.compile else nullcontext():
            return self._figures_now()

    def _figures_now(self) -> dict[str, float]:
        numbers = self.held_numbers()
        rank, ranks = self.args.process_index, self.args.world_size
        model = self.model_wrapped
        model.eval()
        sums: Tensor | None = None
        for at in range(0, len(numbers), ranks):  # as often in each process: sharded models compute together
            mine = numbers[min(at + rank, len(numbers) - 1)]
            held = self._prepare_inputs(self.held_rows.batch([mine]))
            with torch.no_grad():
                measured = self._within_memory(model, partial(self.measure, model, mine, held))
            found = torch.tensor(measured, dtype=torch.float64)
            found = found if at + rank < len(numbers) else torch.zeros_like(found)
            sums = found if sums is None else sums + found
        model.train()
        if sums is None:
            return {}
        figures = self.figures(_over_all(sums.to(self.args.device) if ranks > 1 else sums).tolist())
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def held_numbers(self) -> list[int]:
        """The held-out rows that are looked at: some, spread over all, where there are very many."""
        count = len(self.held_rows)
        most = max(1, _MOST_HELD_TOKENS // self.options.block)
        return list(range(count)) if count <= most else [place * count // most for place in range(most)]

    # checkpoints

    @property
    def checkpoints(self) -> Path:
        return self.run / "checkpoints"

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As Trainer does it, but beside its place, and moved there once it is on the disk."""
        parallel.wait()
        super()._save_checkpoint(model, trial)
        parallel.wait()
        if self.args.process_index == 0:
            part = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
            checkpoint.publish(part, self.checkpoints / f"{self.state.global_step:08d}")
            checkpoint.keep_newest(self.checkpoints, _KEEP)
        parallel.wait()

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.checkpoints / ".partial")

    def clear_partial(self) -> None:
        """Forget what a killed process left half written."""
        if self.args.process_index == 0:
            shutil.rmtree(self._get_output_dir(None), ignore_errors=True)
        parallel.wait()


class TokenTrainer(ExampleTrainer[Rows]):
    """Trains on rows of tokens; the model computes its loss (`compute_targets_only`): -log P a target, in nats."""

    def loss(self, model: Any, some: dict[str, Tensor]) -> Tensor:
        with self.autocast():
            loss: Tensor = model(**some).loss
        return loss.float()

    def weight(self, some: dict[str, Tensor]) -> Tensor:
        return (some["labels"] != IGNORED).sum()

    def measure(self, model: Any, number: int, held: dict[str, Tensor]) -> list[float]:
        return [float(self.loss(model, held)), float(self.weight(held)), self.held_rows.bytes_of(number)]

    def figures(self, sums: list[float]) -> dict[str, float]:
        """Bits per byte, and nats a token."""
        nats, targets, size = sums
        return {"held_bits_per_byte": nats / math.log(2) / max(size, 1e-9), "held_loss": nats / targets}


@contextmanager
def _memory_suffices() -> Iterator[None]:
    """Raises UserError where it does not, and fewer rows at once would not help."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"The memory does not suffice to train this model ({type(error).__name__}); a smaller one needs less, "
            "and so do --method lora and, with several GPUs, --fsdp."
        ) from None


def _over_all(value: Tensor) -> Tensor:
    """The sum over the processes."""
    if parallel.together():
        distributed.all_reduce(value)
    return value
