"""A run: pictures and captions are prepared, the autoencoder is trained, then the GAN; stopped and resumed at will.

A run's folder holds run.json (options and plan), data/ (prepared once), checkpoints/, best/, grids/, stats.jsonl,
tensorboard/, and at the end model/, atlas/ and report.html.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from chatbot.aigc import atlas, dataset, model, run_file
from chatbot.aigc import captions as captions_of
from chatbot.aigc.autoencoder import AutoencoderStage, encode_all, save_latents
from chatbot.aigc.captions import Captions
from chatbot.aigc.dataset import Dataset
from chatbot.aigc.further import Begun
from chatbot.aigc.gan import GanStage
from chatbot.aigc.journal import Journal
from chatbot.aigc.networks import Autoencoder, Shape
from chatbot.aigc.options import Options, network_shape
from chatbot.aigc.snapshot import Snapshot, take
from chatbot.aigc.teacher import load as load_teacher
from chatbot.aigc.text import LENGTH, TextEncoder
from chatbot.errors import UserError
from chatbot.training import checkpoint, parallel

Tell = Callable[[str, float | None], None]

AUTOENCODER_SHARE = 0.25
"""Of the minutes; of the GAN's pictures where a run is measured in kimg."""

_RESERVE = 0.04  # of the minutes, for the last figures and the report
_FIRST_CHECKPOINT, _CHECKPOINT = 20.0, 50.0  # seconds
_CALIBRATION = 8.0  # seconds
_UNTIMED = 4  # steps: the first ones load a GPU's kernels; as many as from one gradient penalty to the next
_SNAPSHOTS = 20  # in each stage
_MOST_ROLLBACKS = 3


class Stopped(UserError):
    """The run was asked to stop; says whether it can be gone on with."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run gives: the folder of its model, and its figures."""

    model: Path
    figures: dict[str, Any]
    fingerprint: str


class Training:
    """One run in a folder of its own.

    Args:
        run: its folder.
        options: of a new run; None goes on with the one that is there.
        encoder: loads the text encoder, where captions have to be read.
        stopping: asked between steps, and while data is prepared and the report drawn.
        tell: told what is being done and how far it is; complain: what is wrong with the data or the training.

    Raises:
        UserError: nothing to resume, a run that stands there already, data that cannot be used.
    """

    def __init__(
        self,
        run: Path,
        options: Options | None,
        *,
        encoder: Callable[[], TextEncoder],
        stopping: Callable[[], bool],
        tell: Tell,
        complain: Callable[[str], None],
    ) -> None:
        self.run = run
        self.rank, self.ranks = parallel.start()
        self.tell: Tell = tell if self.rank == 0 else _silent
        self.complain = complain if self.rank == 0 else _mute
        self.encoder, self.stopping = encoder, stopping
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.plan: dict[str, int] = {}
        self.resumed = options is None
        self.spent = 0.0  # seconds before the run was stopped
        self.started = time.monotonic()
        if options is None:
            options, self.plan = run_file.read(run)
        else:
            run_file.check_new(run)
        self.options = options
        if options.batch % self.ranks:
            raise UserError(f"The batch of {options.batch} cannot be shared by {self.ranks} processes.")

    def go(self) -> Outcome:
        """Train to the end. Raises Stopped where it was asked to stop, UserError where it cannot go on."""
        options = self.options
        teacher = load_teacher(options.teacher, options.resolution, self.tell) if options.teacher else None
        data = self._data()
        captions = self._captions(data)
        begun = Begun(Path(options.base), data.styles) if options.base else None
        named = captions.vectors.shape[1] and options.memory
        names = captions.known(data.split("train"))[0] if named else []
        names += begun.others(names) if begun is not None and names else []
        shape = network_shape(
            self.options, data.pictures.shape[3], max(1, len(data.styles)), captions.vectors.shape[1], len(names)
        )
        if begun is not None:
            begun.check(shape)
        self._write()  # only now: where the data was no good, there is no run, and it can be begun otherwise
        with closing(Journal(self.run, self._offset, active=self.rank == 0)) as journal:
            number = self._newest()
            tensors, state = checkpoint.load(self._checkpoints / f"{number:08d}") if number is not None else ({}, {})
            self.spent = float(state.get("seconds", 0.0))
            journal.rewind(state.get("stage", AutoencoderStage.name), state.get("step", 0))
            torch.manual_seed(self.options.seed)
            autoencoder: Autoencoder | None = None
            if self.options.space == "latent":
                first = AutoencoderStage(self.options, shape, data, self.device, begun)
                if state:
                    first.restore(tensors)
                if state.get("stage", first.name) == first.name:
                    self._stage(first, journal, tensors, state, {})
                    first.measure()
                    self._save(GAN, 0, {**first.tensors()}, {})
                    tensors, state = {}, {}
                autoencoder = first.net.eval().requires_grad_(False)
            latents = self._latents(autoencoder, data) if autoencoder is not None else None
            self._once(lambda tell: tell("Preparing the GAN", None))
            second = GanStage(
                self.options, shape, data, captions, latents, self.device,
                teacher=teacher, autoencoder=autoencoder, begun=begun,
            )  # fmt: skip
            if state.get("stage") == GAN and state.get("step", 0):
                second.restore(tensors)
            else:
                state = {}
            held = autoencoder.state_dict() if autoencoder is not None else {}
            beside = {f"autoencoder/{name}": value for name, value in held.items()}
            self._stage(second, journal, tensors, state, beside, autoencoder)
            return self._finish(shape, data, captions, names, journal)

    # the parts of a run

    @property
    def _checkpoints(self) -> Path:
        return self.run / "checkpoints"

    def _newest(self) -> int | None:
        found = checkpoint.numbers(self._checkpoints)
        newest = parallel.agree(found[-1] if found else -1)
        return None if newest < 0 else int(newest)

    def _once(self, work: Callable[[Tell], object]) -> None:
        """Let the first process do what is done once, while the others wait. Where it is asked to stop, all raise
        Stopped."""
        stopped = False

        def tell(text: str, fraction: float | None) -> None:
            self.tell(text, fraction)
            if self.stopping():
                raise self._stopped()

        if self.rank == 0:
            try:
                work(tell)
            except Stopped:
                stopped = True
        if parallel.any_of(stopped):
            raise self._stopped()

    def _stopped(self) -> Stopped:
        if not (self.run / run_file.NAME).exists():
            return Stopped("Stopped before there was anything to go on with; the same command begins anew.")
        command = "retrain" if self.options.base else "train"
        return Stopped(f"Stopped and saved; go on with `chatbot {command} aigc --out {self.run} --resume`.")

    def _write(self) -> None:
        if self.rank == 0:
            run_file.write(self.run, self.options, self.plan)

    def _data(self) -> Dataset:
        folder = self.run / "data"

        def prepare(tell: Tell) -> None:
            if self.resumed and (folder / dataset.ITEMS).exists():
                return
            for left in (_CAPTIONS, _LATENTS):  # of what may have been other pictures
                (folder / left).unlink(missing_ok=True)
            dataset.prepare(Path(self.options.data), folder, self.options.resolution, tell, self.complain)

        self._once(prepare)
        return dataset.load(folder)

    def _captions(self, data: Dataset) -> Captions:
        path = self.run / "data" / _CAPTIONS
        if self.options.conditioning != "text":
            return captions_of.read(data.items, self.options.conditioning, self.encoder, self.tell)

        def read(tell: Tell) -> None:
            if not path.exists():
                part = path.with_suffix(".partial")
                save_file({"vectors": captions_of.read(data.items, "text", self.encoder, tell).vectors}, part)
                part.replace(path)

        self._once(read)
        vectors = load_file(path)["vectors"]
        return captions_of.read(data.items, "text", lambda: _Known(vectors), _silent)

    def _latents(self, autoencoder: Autoencoder, data: Dataset) -> Any:
        import numpy as np

        path = self.run / "data" / _LATENTS

        def encode(tell: Tell) -> None:
            if not path.exists():
                save_latents(encode_all(autoencoder, data, self.options, self.device, tell), path)

        self._once(encode)
        return np.load(path)

    def _stage(
        self,
        stage: AutoencoderStage | GanStage,
        journal: Journal,
        tensors: dict[str, Tensor],
        state: dict[str, Any],
        beside: dict[str, Tensor],
        autoencoder: Autoencoder | None = None,
    ) -> None:
        """Run a stage to its planned end, from the step of `state`."""
        batch, step = stage.batch, int(state.get("step", 0))
        rollbacks, best = int(state.get("rollbacks", 0)), float(state.get("best_score", -math.inf))
        options = stage.options
        saved = time.monotonic() - (_CHECKPOINT - _FIRST_CHECKPOINT)
        began, begun_at, first = self._now(), step, step
        last: Snapshot | None = None
        if rollbacks:
            self._soften(stage, options, rollbacks)
        while (total := self._planned(stage, step, begun_at, began)) is None or step < total:
            stats: dict[str, Tensor] = {}
            broken = ""
            try:
                stats = stage.step(step, 0.0 if total is None else step / total)
            except FloatingPointError:
                broken = "The gradients are no numbers any more"
            step += 1
            held = {"rollbacks": rollbacks, "best_score": best}
            due = time.monotonic() - saved > _CHECKPOINT
            if self.ranks > 1:  # all must save and look at the same steps
                due = step % 10 == 0 and bool(parallel.agree(float(due)))
            stopping = parallel.any_of(self.stopping()) if step % 10 == 0 or self.ranks == 1 else False
            if not broken and (step % 20 == 0 or step == total or due or stopping):
                numbers = {name: float(value) for name, value in stats.items()}
                if parallel.any_of(not all(math.isfinite(value) for value in numbers.values())):
                    broken = "The losses are no numbers any more"
                elif step % 20 == 0 or step == total:
                    pace = (step - begun_at) * batch / (time.monotonic() - began)
                    journal.step(stage.name, step, batch, pace, numbers)
                    self._show(stage, step, total, pace, numbers, last)
            if total is not None and not broken and (step % max(1, total // _SNAPSHOTS) == 0 or step == total):
                last = take(stage, autoencoder, self.run, step, journal) if self.rank == 0 else None
                broken = last.broken if last is not None else ""
                if parallel.agree(float(bool(broken))) and not broken:
                    broken = "The first process saw the training fail"
                if last is not None and not broken and isinstance(stage, GanStage) and last.score >= best:
                    best = held["best_score"] = last.score
                    checkpoint.write(self.run / "best", stage.tensors() | beside, {"step": step, **last.figures})
            if broken:
                rollbacks += 1
                step = self._roll_back(stage, broken, beside, {"rollbacks": rollbacks, "best_score": best})
                begun_at, began, saved = step, self._now(), time.monotonic()
                journal.rewind(stage.name, step)
                self._soften(stage, options, rollbacks)
            elif stopping or due:
                self._save(stage.name, step, stage.tensors() | beside, held)
                saved = time.monotonic()
            if stopping:  # saved, whether it went on or back
                raise self._stopped()
            if step - first == _UNTIMED:
                began, begun_at = self._now(), step
        self._save(stage.name, step, stage.tensors() | beside, {"rollbacks": rollbacks, "best_score": best})

    def _planned(self, stage: AutoencoderStage | GanStage, step: int, begun_at: int, began: float) -> int | None:
        """How many steps the stage takes; None while it is being calibrated, by those since `begun_at`. Stored once
        it is known."""
        if stage.name not in self.plan:
            options = self.options
            share = 1.0 if stage.name == GAN else AUTOENCODER_SHARE
            if options.kimg is not None:
                steps = options.kimg * 1000 * share / stage.batch
            else:
                assert options.minutes is not None
                seconds = parallel.agree(self._now() - began)
                least = min(_CALIBRATION, options.minutes * 60 * 0.05)
                if seconds < least or step - begun_at < _UNTIMED:
                    return None
                left = options.minutes * 60 * (1 - _RESERVE) - self._spent()
                if left < least:
                    self.complain(
                        f"Of {options.minutes:g} minutes none are left for the {stage.name}, which is trained for a "
                        "moment only; give more --minutes."
                    )
                steps = step + max(left * share, least) / seconds * (step - begun_at)
            self.plan[stage.name] = max(1, int(parallel.agree(math.ceil(steps))))
            self._write()
        return self.plan[stage.name]

    def _save(
        self, stage: str, step: int, tensors: dict[str, Tensor], held: dict[str, Any], *, back: bool = False
    ) -> None:
        """Write a checkpoint; where the training went `back` to it, newer ones are forgotten then."""
        if self.rank:
            return
        state = {"stage": stage, "step": step, "seconds": self._spent(), **held}
        number = self._offset(stage) + step
        if back:
            checkpoint.write(self._checkpoints / f"{number:08d}", tensors, state)
            checkpoint.drop_after(self._checkpoints, number)
        else:
            checkpoint.save(self._checkpoints, number, tensors, state)

    def _spent(self) -> float:
        """Seconds of the whole run so far."""
        return self.spent + time.monotonic() - self.started

    def _now(self) -> float:
        """By the clock, once a GPU has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()

    def _offset(self, stage: str) -> int:
        """Checkpoints are numbered through both stages."""
        return 0 if stage != GAN or self.options.space != "latent" else self.plan.get("autoencoder", 0) + 1

    def _roll_back(
        self, stage: AutoencoderStage | GanStage, reason: str, beside: dict[str, Tensor], held: dict[str, Any]
    ) -> int:
        if held["rollbacks"] > _MOST_ROLLBACKS:
            raise UserError(
                f"{reason}, and again after {_MOST_ROLLBACKS} rollbacks. Try a lower --rate, or a higher --gamma; "
                f"the best so far is in {self.run / 'best'}."
            )
        best = self.run / "best"
        if isinstance(stage, GanStage) and checkpoint.standing(best).exists():
            # A collapse may be in the newest checkpoint already.
            tensors, state = checkpoint.load(best)
        else:
            number = self._newest()
            tensors, state = checkpoint.load(self._checkpoints / f"{number:08d}") if number is not None else ({}, {})
            if state.get("stage") != stage.name or not state["step"]:
                raise UserError(f"{reason}, before anything was saved. Try a lower --rate.")
        stage.restore(tensors)
        parallel.wait()  # until all have read it
        self._save(stage.name, int(state["step"]), stage.tensors() | beside, held, back=True)
        self.complain(f"{reason}: back to step {state['step']}, with half the learning rate.")
        return int(state["step"])

    @staticmethod
    def _soften(stage: AutoencoderStage | GanStage, options: Options, rollbacks: int) -> None:
        """Go another way than the one that failed: other chances, smaller steps."""
        stage.options = replace(options, seed=options.seed + 7_777 * rollbacks)
        stage.rate = (options.rate if isinstance(stage, GanStage) else AutoencoderStage.RATE) * 0.5**rollbacks

    def _show(
        self,
        stage: AutoencoderStage | GanStage,
        step: int,
        total: int | None,
        pace: float,
        numbers: dict[str, float],
        last: Snapshot | None,
    ) -> None:
        kimg = step * stage.batch / 1000
        text = f"{stage.name}: {kimg:.1f} kimg, {pace:.0f} images/s"
        if total is not None:
            left = (total - step) * stage.batch / max(pace, 1e-9)
            text = f"{stage.name}: {kimg:.1f} of {total * stage.batch / 1000:.1f} kimg, {pace:.0f} images/s, "
            text += f"{left / 60:.0f} min left" if left > 90 else f"{left:.0f} s left"
        shown = ("error",) if stage.name != GAN else ("d", "g", "a_g", "nats")
        text += "".join(f", {name} {numbers[name]:.2f}" for name in shown if name in numbers)
        if last is not None and "retrieval" in last.figures:
            text += f", captions found {last.figures['retrieval']:.0%}"
        self.tell(text, None if total is None else step / total)

    def _finish(
        self, shape: Shape, data: Dataset, captions: Captions, names: Sequence[str], journal: Journal
    ) -> Outcome:
        folder = self.run / "model"
        figures: dict[str, Any] = {}

        def conclude(tell: Tell) -> None:
            held, state = checkpoint.load(self.run / "best")
            figures.update({name: value for name, value in state.items() if name != "step"})
            figures.update(seconds=round(self._spent()), kimg=self.plan[GAN] * self.options.batch / 1000)
            model.export(folder, shape, held, data, names, self.options, figures)
            tell("Drawing the atlas", None)
            assisted = self.options.lambda_g > 0
            drawn = atlas.draw(self.run, shape, held, data, captions, self.device) if assisted else atlas.left_out()
            journal.report(figures, self.options, drawn)

        self._once(conclude)
        return Outcome(folder, figures, data.fingerprint)


GAN = GanStage.name
_CAPTIONS, _LATENTS = "captions.safetensors", "latents.npy"


class _Known(TextEncoder):
    """Captions that were read before."""

    def __init__(self, vectors: Tensor) -> None:
        self._vectors = vectors

    def embed_many(self, texts: Any, tell: Tell) -> Tensor:
        if len(texts) != len(self._vectors) or self._vectors.shape[1] != LENGTH:
            raise UserError("The captions of this run are not those of its pictures; start it anew.")
        return self._vectors


def _silent(text: str, fraction: float | None = None) -> None:
    """Of the processes that are not the first."""


def _mute(text: str) -> None:
    """Of the processes that are not the first."""
