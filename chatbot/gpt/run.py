"""A run of training the chat model: data prepared once, a model, the Trainer, and what it leaves.

A run's folder holds run.json (its options), data/ (prepared once), checkpoints/, best/ (the weights that
predicted the held-out text best), stats.jsonl, tensorboard/, and at the end model/ and report.html.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from transformers import PrinterCallback, ProgressCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from chatbot import __version__
from chatbot.errors import UserError
from chatbot.gpt import prepare, report, speed
from chatbot.gpt.corpus import Report
from chatbot.gpt.export import export_adapter
from chatbot.gpt.networks import (
    base_model,
    check_vocabulary,
    compute_targets_only,
    keeps_apart,
    new_model,
    parameters,
    with_adapters,
)
from chatbot.gpt.options import Options
from chatbot.gpt.prefer import PreferenceTrainer
from chatbot.gpt.prepare import Prepared
from chatbot.gpt.samples import Sample
from chatbot.gpt.trainer import ExampleTrainer, TokenTrainer
from chatbot.gpt.trying import samples
from chatbot.gpt.versions import ADAPTER_GGUF
from chatbot.gpt.watch import SAID, Watch
from chatbot.training import checkpoint, parallel
from chatbot.training.stats import Stats

Tell = Callable[[str, float | None], None]

_RUN = "run.json"


class Stopped(UserError):
    """The run was asked to stop, and everything is saved."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run gives: the folder of its model, its figures, the SHA-256 of what it learned from, its
    options, and what became of what was read (`corpus.Report`)."""

    model: Path
    figures: dict[str, Any]
    fingerprint: str
    options: Options
    corpus: dict[str, Any]


class Run:
    """One run in a folder of its own.

    Args:
        run: its folder.
        options: of a new run; None goes on with the one that is there.
        own: gives what may be learned of the conversations of the database, and tells what was left out.
        private: where those are kept as token ids while the run lasts.
        command: by which a person goes on with it, but for --resume; empty: the one of its stage.
        micro_rows: rows computed at once from now on, in the place of what the run says.
        stopping: asked between steps.
        tell: told what is being done and how far it is; complain: what a person should know.

    Raises:
        UserError: nothing to resume, a run that stands there already, data that cannot be used.
    """

    def __init__(
        self,
        run: Path,
        options: Options | None,
        *,
        own: Callable[[Report], Sequence[Sample]],
        private: Path,
        stopping: Callable[[], bool],
        tell: Tell,
        complain: Callable[[str], None],
        micro_rows: int | None = None,
        command: str = "",
    ) -> None:
        self.run = run
        self.rank, self.ranks = parallel.start()
        self.tell: Tell = tell if self.rank == 0 else _silent
        self.complain = complain if self.rank == 0 else _silent
        self.stopping, self._own, self._private = stopping, own, private
        self._resumed, self._command = options is None, command
        if options is None:
            options = options_of(run)
        elif (run / _RUN).exists():
            raise UserError(f"There is a run in {run} already; go on with it by --resume, or name another --out.")
        self.options = options if micro_rows is None else replace(options, micro_rows=micro_rows)
        if options.rows_a_step % self.ranks:
            raise UserError(f"The {options.rows_a_step} rows of a step cannot be shared by {self.ranks} processes.")

    def go(self) -> Outcome:
        """Train to the end. Raises Stopped where it was asked to stop, UserError where it cannot go on."""
        lock = FileLock(self.run / ".lock")
        if self.rank == 0:
            self.run.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise UserError(
                    f"Another training is at work in {self.run}; wait for it, or name another --out."
                ) from None
        try:
            return self._go()
        except (SafetensorError, RuntimeError) as error:  # those who write weights, and who compile, have their own
            reason = str(error).strip().splitlines()[0]
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise UserError(f"The model cannot be compiled here ({reason}); leave --compile out.") from error
            if isinstance(error, RuntimeError) and "inline_container" not in reason:  # what torch.save says
                raise
            raise OSError(errno.EIO, reason) from error
        finally:
            lock.release()

    def _go(self) -> Outcome:
        began = time.monotonic()
        data = self._data()
        tokenizer = data.tokenizer()
        model = self._model(data, tokenizer)
        steps = self.options.steps or math.ceil(self.options.epochs * len(data.train) / self.options.rows_a_step)
        if self.rank == 0 and not self._resumed:
            self._check_room(model)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        micro = self.options.micro_rows or int(
            parallel.agree(speed.find_micro_rows(model, self.options, device, self.ranks))
        )
        if micro != self.options.micro_rows:  # another number on the way would be other sums, and other weights
            self.options = replace(self.options, micro_rows=micro)
            if self.rank == 0:
                self._write()
        stats = Stats(self.run, active=self.rank == 0)
        trainer = self._trainer(model, tokenizer, data, steps, micro, stats)
        trainer.clear_partial()
        if isinstance(trainer, PreferenceTrainer) and self.rank == 0:
            self.tell("Noting what the model says of these replies now", None)
            trainer.note_reference()
        parallel.wait()
        watch: Watch = next(one for one in trainer.callback_handler.callbacks if isinstance(one, Watch))
        self._train(trainer, watch, steps)
        if watch.asked_to_stop:
            stats.close()
            command = self._command or f"train gpt {self.options.stage} --out {self.run}"
            raise Stopped(f"Stopped and saved; go on with `chatbot {command} --resume`.")
        figures = self._figures(trainer, data, model, watch, stats, time.monotonic() - began)
        folder = self.run / "model"
        if not (self.run / "best").is_dir():  # nothing is held out: the last weights are as good as any
            self._keep(trainer, self.run / "best")
        if self.rank == 0:
            with checkpoint.whole(folder) as part:
                shutil.copytree(
                    self.run / "best", part, ignore=shutil.ignore_patterns("README.md"), dirs_exist_ok=True
                )
                tokenizer.save_pretrained(part)
                self._for_llamacpp(part)
            report.training(self.run, self.options, figures, data.report, stats)
            if self.options.conversations:
                shutil.rmtree(self._folder, ignore_errors=True)
        stats.close()
        parallel.wait()
        return Outcome(folder, figures, data.fingerprint, self.options, data.report)

    def _train(self, trainer: ExampleTrainer[Any], watch: Watch, steps: int) -> None:
        """Go on from the newest checkpoint, where it is not the end already."""
        newest = self._newest()
        if newest is None:
            trainer.train()
            return
        place = str(self._place(newest))
        state = TrainerState.load_from_json(str(Path(place, TRAINER_STATE_NAME)))
        if newest < steps and not watch.has_enough(state):
            trainer.train(resume_from_checkpoint=place)
            return
        trainer.state = state
        watch.stopped_early = newest < steps
        if not (self.run / "best").is_dir():
            trainer._load_from_checkpoint(place)

    def _for_llamacpp(self, folder: Path) -> None:
        """Write an adapter as llama.cpp reads it, too; a whole model is exported when someone wants that."""
        if self.options.lora_rank:
            try:
                export_adapter(folder, Path(self.options.base_folder), folder / ADAPTER_GGUF, self.options.base)
            except UserError as error:
                self.complain(str(error))

    # the parts of a run

    @property
    def _folder(self) -> Path:
        """Where the prepared data stands."""
        return self._private if self.options.conversations else self.run / "data"

    def _data(self) -> Prepared:
        if self._resumed and not self._folder.is_dir() and self._newest() is not None:
            raise UserError(
                "What this run learned from is gone; where something was forgotten, the run has to be begun anew."
            )
        if self.rank == 0 and not self._resumed:
            shutil.rmtree(self._folder, ignore_errors=True)  # of a run that ended before it began
        if self.rank == 0 and not self._folder.is_dir():
            told = Report()
            own = self._own(told) if self.options.conversations else ()
            prepare.prepare(self.options, self._folder, own, told, self._tell_or_stop, self.complain)
        parallel.wait()
        if self.rank == 0:
            self._write()
        return prepare.load(self._folder, self.options)

    def _tell_or_stop(self, text: str, fraction: float | None = None) -> None:
        """Between two parts of what is prepared, of which nothing is kept yet."""
        if self.stopping():
            raise Stopped("Stopped before it began to learn: nothing is kept yet; begin it again.")
        self.tell(text, fraction)

    def _model(self, data: Prepared, tokenizer: Any) -> Any:
        self.tell("Making the model", None)
        torch.manual_seed(self.options.seed)
        if self.options.stage == "pretrain":
            model = new_model(self.options, tokenizer)
        else:
            model = base_model(Path(self.options.base_folder), self.options.base)
            model.generation_config.eos_token_id = sorted(
                prepare.ends_of(tokenizer, model.generation_config.eos_token_id)
            )
            model.config.eos_token_id = tokenizer.eos_token_id
            check_vocabulary(model, tokenizer, self.options.base)
            if not keeps_apart(model, self.options.base):
                data.unpack()
            longest = getattr(model.config, "max_position_embeddings", None)
            if longest and longest < self.options.block:
                raise UserError(f"{self.options.base} sees {longest} tokens; --block {self.options.block} is more.")
        compute_targets_only(model)
        if self.options.compile:
            model.base_model.compile()
        if self.options.lora_rank:
            begun = Path(self.options.adapter) if self.options.adapter else None
            model = with_adapters(model, self.options.lora_rank, self.options.seed, begun)
        return model

    def _trainer(
        self, model: Any, tokenizer: Any, data: Prepared, steps: int, micro: int, stats: Stats
    ) -> ExampleTrainer[Any]:
        options = self.options
        arguments = TrainingArguments(
            output_dir=str(self.run),
            max_steps=steps,
            per_device_train_batch_size=1,
            learning_rate=options.rate,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.1},
            warmup_steps=max(1, round(options.warmup * steps)),
            weight_decay=options.decay,
            adam_beta2=0.95 if options.stage == "pretrain" else 0.999,
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            logging_strategy="no",
            eval_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            ignore_data_skip=True,
            remove_unused_columns=False,
            logging_nan_inf_filter=False,
            average_tokens_across_devices=False,
            ddp_find_unused_parameters=False,
            dataloader_pin_memory=False,
            use_cpu=not torch.cuda.is_available(),
            seed=options.seed,
            fsdp="full_shard auto_wrap" if options.fsdp else None,
        )
        if arguments.device.type == "cuda":  # asking makes it count them
            arguments._n_gpu = (
                1  # several are for torchrun: DataParallel would call one's weights with another's rows
            )
        trainer: ExampleTrainer[Any]
        watch = Watch(
            options,
            steps,
            stats,
            model,
            self.options.rows_a_step * data.tokens_a_row,
            stopping=self.stopping,
            improved=lambda: self._keep(trainer, self.run / "best"),
            samples=lambda: self._tried(trainer, tokenizer),
            tell=self.tell,
            complain=self.complain,
        )
        kind: Callable[..., ExampleTrainer[Any]] = PreferenceTrainer if options.stage == "prefer" else TokenTrainer
        trainer = kind(
            model,
            arguments,
            options,
            run=self.run,
            train=data.train,
            held=data.held,
            steps=steps,
            micro_rows=micro,
            complain=self.complain,
            callbacks=[watch],
        )
        for printer in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(printer)
        return trainer

    def _tried(self, trainer: ExampleTrainer[Any], tokenizer: Any) -> list[tuple[str, str]]:
        if self.rank or trainer.is_fsdp_enabled:  # the first process alone has no whole model then
            return []
        return samples(trainer.model, tokenizer, self.options)

    def _keep(self, trainer: ExampleTrainer[Any], place: Path) -> None:
        """Write the weights as they are now, for loading."""
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        state = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
        if self.rank == 0:
            with checkpoint.whole(place) as part:
                model.save_pretrained(part, state_dict=state)

    def _figures(
        self, trainer: ExampleTrainer[Any], data: Prepared, model: Any, watch: Watch, stats: Stats, seconds: float
    ) -> dict[str, Any]:
        rows = [row for row in stats.rows() if "held_loss" in row]
        total, trained = parameters(model)
        figures: dict[str, Any] = {
            "steps": trainer.state.global_step,
            "tokens": round(trainer.state.global_step * watch.tokens_a_step),
            "seconds": round(seconds),
            "parameters": total,
            "trained_parameters": trained,
            "stopped_early": watch.stopped_early,
        }
        if rows:
            criterion = next(name for name in SAID if name in rows[0])
            best = min(rows, key=lambda row: row[criterion])
            figures |= {name: value for name, value in best.items() if name.startswith("held_")}
            figures["best_step"] = best["step"]
        return figures

    def _check_room(self, model: Any) -> None:
        """Raises UserError where the disk cannot take the checkpoints."""
        total, trained = parameters(model)
        needed = 3 * 12 * trained + 2 * 4 * (trained if self.options.lora_rank else total)
        free = shutil.disk_usage(self.run).free
        if free < needed:
            raise UserError(
                f"The run needs about {needed / 1e9:.1f} GB of disk in {self.run}, and {free / 1e9:.1f} GB are free."
            )

    def _newest(self) -> int | None:
        found = checkpoint.numbers(self.run / "checkpoints")
        newest = int(parallel.agree(found[-1] if found else -1))
        return None if newest < 0 else newest

    def _place(self, number: int) -> Path:
        return self.run / "checkpoints" / f"{number:08d}"

    def _write(self) -> None:
        part = self.run / (_RUN + ".partial")
        held = {"options": self.options.as_json(), "code_version": __version__}
        part.write_text(json.dumps(held, indent=1), encoding="utf-8")
        os.replace(part, self.run / _RUN)


def options_of(run: Path) -> Options:
    """The options of the run in a folder. Raises UserError where there is none."""
    try:
        held = json.loads((run / _RUN).read_text(encoding="utf-8"))
        return Options(**held["options"] | {"data": tuple(held["options"]["data"])})
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"There is no run to resume in {run}.") from None


def _silent(*said: Any) -> None:
    """Of the processes that are not the first."""
