"""`chatbot train`: models of your own. `aigc` is here, `gpt` in `train_gpt`."""

from __future__ import annotations

import argparse
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.cli import train_gpt
from chatbot.cli.numbers import SEEDS, within
from chatbot.cli.progress import ProgressPrinter, say
from chatbot.cli.run import noted_signals, run_async
from chatbot.errors import UserError

if TYPE_CHECKING:
    from chatbot.aigc.options import Options
    from chatbot.aigc.train import Outcome
    from storage.versions import Version

HELP = "train a model of your own"

PRESETS = ("cpu-32", "cpu-64", "gpu-64", "gpu-128")
LOSSES = ("r3gan", "projected", "bce")
OPTIONS = (
    "resolution",
    "space",
    "loss",
    "conditioning",
    "minutes",
    "kimg",
    "lambda_d",
    "lambda_g",
    "gamma",
    "rate",
    "teacher",
    "teacher_weight",
    "memory",
    "batch",
    "flips",
    "seed",
)
"""What a run is asked for, by the names that the options have."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(metavar="WHAT", required=True)
    text = "train the picture model on a folder of pictures"
    aigc = what.add_parser("aigc", help=text, description=text, allow_abbrev=False)
    aigc.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="pictures in class folders, or with metadata.jsonl or .csv (file_name, text), or a .txt beside each "
        "(default: those of the default model, which npm fetches once)",
    )
    aigc.add_argument("--out", type=Path, metavar="RUN", help="folder of the run")
    aigc.add_argument("--resume", action="store_true", help="go on with the run in --out, to the same end")
    aigc.add_argument("--dry-run", action="store_true", help="say what it would cost, and train nothing")
    length = aigc.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, metavar="N", help="whole time of the run (default 60)")
    length.add_argument("--kimg", type=float, metavar="N", help="thousands of pictures shown to the GAN")
    aigc.add_argument("--preset", choices=PRESETS, help="sizes that suit a machine (default: by what is here)")
    aigc.add_argument("--resolution", type=int, metavar="N", help="32, 64, 128 or 256 pixels")
    aigc.add_argument("--space", choices=("latent", "pixels"), help="where G and D work (default latent)")
    aigc.add_argument(
        "--loss",
        choices=LOSSES,
        help="the value of the game (default r3gan); projected: by a teacher's features alone",
    )
    aigc.add_argument(
        "--teacher",
        metavar="NAME",
        help="frozen network through which D sees the pictures a second time: efficientnet-lite0 (19 MB are fetched; "
        "what --loss projected takes where none is named), or torchvision:MODEL",
    )
    aigc.add_argument("--teacher-weight", type=float, metavar="X", help="of that view beside the first (default 0.5)")
    aigc.add_argument(
        "--conditioning",
        choices=("text", "classes", "none"),
        help="captions, class folders, or nothing (default text)",
    )
    aigc.add_argument("--lambda-d", type=float, metavar="X", help="weight of D's assistant; 0 leaves it out")
    aigc.add_argument("--lambda-g", type=float, metavar="X", help="weight of G's assistant; 0 leaves it out")
    aigc.add_argument(
        "--no-memory", dest="memory", action="store_false", default=None, help="G keeps no draft of each concept"
    )
    aigc.add_argument("--gamma", type=float, metavar="X", help="weight of the gradient penalties R1 and R2")
    aigc.add_argument("--rate", type=float, metavar="X", help="learning rate")
    aigc.add_argument("--batch", type=int, metavar="N", help="pictures a step, over all processes")
    aigc.add_argument("--flips", action="store_true", default=None, help="pictures may be mirrored")
    aigc.add_argument("--seed", type=int, metavar="N", help="of everything random (default 0)")
    aigc.set_defaults(run=run)
    train_gpt.add_arguments(what)


def run(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not take the cores of other programs
    if arguments.resume:
        _check_resumed(arguments)
    if arguments.dry_run:
        return _dry_run(arguments)
    if arguments.out is None:
        raise UserError("Say where the run shall stand: --out RUN.")
    options = None if arguments.resume else _options(arguments)
    outcome, first = train(arguments.out, options)
    if first:
        version = run_async(_register(outcome, arguments.out))
        say(f"Report: {arguments.out / 'report.html'}")
        print(f"{version.ref} is a candidate; `chatbot models promote {version.ref}` puts it to use.")
    return 0


def _check_resumed(arguments: argparse.Namespace) -> None:
    """Raises UserError where something is asked of a run that goes on as it began."""
    asked = [name for name in ("data", "preset", *OPTIONS) if getattr(arguments, name) is not None]
    for name in asked + ["dry_run"] * arguments.dry_run:
        flag = {"memory": "no-memory"}.get(name, name.replace("_", "-"))
        raise UserError(f"A run that is resumed goes on as it began; leave --{flag} out.")


def _options(arguments: argparse.Namespace) -> Options:
    from chatbot.aigc import emoji, run_file
    from chatbot.aigc.options import from_preset

    positive, weight = (1e-9, 1e9), (0, 1e9)
    within(arguments, minutes=positive, kimg=positive, rate=positive, batch=positive, gamma=weight, lambda_d=weight)
    within(arguments, lambda_g=weight, teacher_weight=weight, seed=SEEDS)
    if arguments.minutes is None and arguments.kimg is None:
        arguments.minutes = 60.0
    preset = arguments.preset or ("gpu-64" if _has_gpu() else "cpu-64")
    options = from_preset(preset, data="", **{name: getattr(arguments, name) for name in OPTIONS})
    if arguments.out is not None:
        run_file.check_new(arguments.out.expanduser())
    data: Path | None = arguments.data
    if data is None:  # fetched when nothing else can be wrong
        with ProgressPrinter() as progress:
            data = emoji.kept(progress.tell)
    return replace(options, data=str(data.expanduser().resolve()))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def train(out: Path, options: Options | None) -> tuple[Outcome, bool]:
    """Train; also whether we are the first of torchrun's processes."""
    from chatbot.aigc.encoder import text_encoder
    from chatbot.aigc.train import Stopped, Training
    from chatbot.device import is_out_of_memory
    from chatbot.training import parallel

    _check_gpus()
    rank, _ = parallel.start()
    try:
        with ProgressPrinter() as progress, noted_signals() as asked:

            def tell(text: str, fraction: float | None) -> None:
                progress.tell(text, fraction)

            training = Training(
                out.expanduser().resolve(),
                options,
                encoder=lambda: text_encoder(tell),
                stopping=lambda: bool(asked),
                tell=tell,
                complain=say,
            )
            try:
                return training.go(), rank == 0
            except Stopped as stopped:
                progress.close()
                if rank == 0:
                    say(str(stopped))
                raise SystemExit(128 + (asked[0] if asked else signal.SIGINT)) from None
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise UserError(
                    f"There is too little memory for {training.options.batch} pictures a step at "
                    f"{training.options.resolution} pixels; free some, or begin anew with a smaller --batch."
                ) from None
            except OSError as error:
                reason = error.strerror or str(error)
                raise UserError(f"The run in {out} cannot be written: {reason}.") from None
    finally:
        parallel.finish()


def _check_gpus() -> None:
    """Raises UserError where torchrun started more processes here than there are GPUs, of which each takes one."""
    import torch

    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < gpus < processes:
        raise UserError(f"The GPUs here are for {gpus} of {processes} processes; take --nproc-per-node {gpus}.")


async def _register(outcome: Outcome, run: Path) -> Version:
    """Copy the model into the home, and register it as a candidate."""
    from chatbot.aigc.versions import register
    from chatbot.settings import Settings
    from chatbot.store import open_store

    settings = Settings.load()
    async with open_store(settings) as store:
        return await register(store.registry, settings.home, outcome, run.resolve().name)


def _dry_run(arguments: argparse.Namespace) -> int:
    from chatbot.aigc.dry_run import estimate

    with ProgressPrinter() as progress:
        lines = estimate(_options(arguments), progress.tell, say)
    for line in lines:
        print(line)
    return 0
