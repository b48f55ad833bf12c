"""Looks on while a run trains: says how far it is, measures, tries, saves, and stops when asked to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from chatbot.gpt.options import Options
from chatbot.gpt.speed import flops_a_token, peak_flops
from chatbot.training import parallel
from chatbot.training.stats import Stats

FIRST_SAVE_S, SAVE_S = 60.0, 300.0
SAID = {"held_bits_per_byte": "bits a byte", "held_loss": "loss"}
"""By which figure the best state is chosen, the first that there is, and how it is told."""

_TELL_S = 0.5
_TOGETHER = 10  # steps after which several processes agree on what to do
_LOGS = 200  # rows of losses in the whole run, about


class Watch(TrainerCallback):
    """Tells the Trainer when to measure, save and stop.

    Args:
        stopping: asked between steps.
        improved: called where the held-out text is predicted better than ever before: the weights are to be kept.
        samples: gives what the model says now.
        tokens_a_step: over all processes.
        tell, complain: hear how far it is, and what a person should know.
    """

    def __init__(
        self,
        options: Options,
        steps: int,
        stats: Stats,
        model: Any,
        tokens_a_step: float,
        *,
        stopping: Callable[[], bool],
        improved: Callable[[], None],
        samples: Callable[[], list[tuple[str, str]]],
        tell: Callable[[str, float | None], None],
        complain: Callable[[str], None],
    ) -> None:
        self._options, self._steps, self._stats = options, steps, stats
        self.tokens_a_step = tokens_a_step
        self._stopping, self._improved, self._samples = stopping, improved, samples
        self._tell, self._complain = tell, complain
        self._every = max(1, steps // max(1, options.evaluations))
        self._log_every = max(1, steps // _LOGS)
        self._flops, self._peak = flops_a_token(model, options.block), peak_flops()
        self._began = self._told = time.monotonic()
        self._saved = time.monotonic() - (SAVE_S - FIRST_SAVE_S)
        self._first = 0
        self._loss = self._held = ""
        self.asked_to_stop = self.stopped_early = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        self._first, self._began = state.global_step, time.monotonic()
        self._stats.rewind(lambda row: row["step"] <= state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any) -> None:
        step, last = state.global_step, state.global_step >= self._steps
        control.should_log = last or step % self._log_every == 0
        control.should_evaluate = last or step % self._every == 0
        due, stop = time.monotonic() - self._saved > SAVE_S, self._stopping()
        if parallel.together():
            due = step % _TOGETHER == 0 and bool(parallel.agree(float(due)))
            stop = step % _TOGETHER == 0 and parallel.any_of(stop)
        control.should_save = last or due or stop
        if stop and not last:
            self.asked_to_stop = control.should_training_stop = True
        if control.should_save:
            self._saved = time.monotonic()
        if last or time.monotonic() - self._told > _TELL_S:
            self._told = time.monotonic()
            self._say(step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **rest: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        self._loss = f", loss {logs['loss']:.3f}"
        numbers = {"loss": logs["loss"], "rate": logs["learning_rate"], "tokens_per_s": self._pace(state.global_step)}
        if "grad_norm" in logs:
            numbers["gradient"] = logs["grad_norm"]
        if self._peak:
            numbers["mfu"] = self._mfu(state.global_step)
        tokens = round(state.global_step * self.tokens_a_step)
        row = {name: round(float(value), 6) for name, value in numbers.items()}
        self._stats.append({"step": state.global_step, "tokens": tokens} | row)
        self._stats.scalars("train", state.global_step, numbers)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **rest: Any,
    ) -> None:
        if not metrics:
            return
        criterion, value = next(iter(metrics.items()))
        self._held = f", held out {value:.3f} {SAID.get(criterion, criterion)}"
        said = self._samples()
        self._stats.append({"step": state.global_step} | {name: round(one, 6) for name, one in metrics.items()})
        self._stats.scalars("held", state.global_step, metrics)
        if said:
            self._stats.append({"step": state.global_step, "samples": said})
            if self._stats.board is not None:
                text = "\n\n".join(f"**{asked}** {reply}" for asked, reply in said)
                self._stats.board.add_text("samples", text, state.global_step)
            asked, reply = said[(state.global_step // self._every) % len(said)]
            self._complain(
                f"Step {state.global_step:,}{self._held}: {asked or '…'} → {' '.join(reply.split())[:160]}"
            )
        if state.best_metric is None or value < state.best_metric:
            state.best_metric, state.best_global_step = value, state.global_step
            self._improved()
        elif self.has_enough(state):
            self.stopped_early = control.should_training_stop = control.should_save = True

    def has_enough(self, state: TrainerState) -> bool:
        """Whether nothing has got better for so long that it is over."""
        patience = self._options.patience * self._every
        return bool(patience) and state.global_step - (state.best_global_step or state.global_step) >= patience

    def _pace(self, step: int) -> float:
        """Tokens a second in this sitting, over all processes."""
        tokens = (step - self._first) * self.tokens_a_step
        return tokens / max(1e-9, time.monotonic() - self._began)

    def _mfu(self, step: int) -> float:
        """Model FLOPs utilisation (Chowdhery et al. 2022), of the GPUs together."""
        return self._pace(step) * self._flops / (self._peak * parallel.count())

    def _say(self, step: int) -> None:
        pace = self._pace(step)
        tokens_left = (self._steps - step) * self.tokens_a_step
        left = tokens_left / max(pace, 1e-9)
        text = f"{self._options.stage}: step {step:,} of {self._steps:,}, {pace:,.0f} tokens/s"
        if self._peak:
            text += f", MFU {self._mfu(step):.0%}"
        text += f"{self._loss}{self._held}, {f'{left / 60:.0f} min' if left > 90 else f'{left:.0f} s'} left"
        self._tell(text, step / self._steps)
