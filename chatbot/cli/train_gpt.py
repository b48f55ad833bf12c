"""`chatbot train gpt`: pretrain a chat model of your own, or fine-tune one."""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chatbot.cli.conversations import moment
from chatbot.cli.numbers import SEEDS, count, within
from chatbot.cli.progress import ProgressPrinter, say
from chatbot.cli.run import noted_signals, run_async
from chatbot.errors import UserError

if TYPE_CHECKING:
    from chatbot.gpt.corpus import Report
    from chatbot.gpt.options import Options
    from chatbot.gpt.run import Outcome
    from chatbot.gpt.samples import Sample
    from storage.versions import Version

SIZES = ("nano", "micro", "small", "124m")


def add_arguments(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "train the chat model: pretrain a new one, or fine-tune one"
    gpt = what.add_parser("gpt", help=text, description=text, allow_abbrev=False)
    stages = gpt.add_subparsers(metavar="STAGE", required=True)

    text = "a new model from text"
    pretrain = stages.add_parser("pretrain", help=text, description=text, allow_abbrev=False)
    _shared(pretrain, "text (.txt, .md), JSON lines with `text`, Parquet with a column `text`, or folders of these")
    pretrain.add_argument("--size", choices=SIZES, help="sets all of the following together (default nano)")
    pretrain.add_argument("--tokenizer", type=Path, metavar="DIR", help="reuse this one (default: train one)")
    pretrain.add_argument("--vocabulary", type=count, metavar="N", help="tokens of the trained tokenizer")
    pretrain.add_argument("--layers", type=count, metavar="N")
    pretrain.add_argument("--width", type=count, metavar="N")
    pretrain.add_argument("--heads", type=count, metavar="N")
    pretrain.set_defaults(run=run, stage="pretrain")

    text = "a model there is, on chats and texts"
    finetune = stages.add_parser("finetune", help=text, description=text, allow_abbrev=False)
    _shared(
        finetune, "chat messages, ShareGPT or Alpaca as JSON lines, JSON or Parquet; plain text; or folders of these"
    )
    _of_a_base(finetune, "learn from the conversations of people who allowed it (`chatbot conversations consent`)")
    finetune.add_argument(
        "--method", choices=("lora", "full"), default="lora", help="adapters beside the weights, or all weights"
    )
    finetune.set_defaults(run=run, stage="finetune")

    text = "a model there is, on which replies people prefer: pairs by DPO, thumbs by KTO"
    prefer = stages.add_parser("prefer", help=text, description=text, allow_abbrev=False)
    _shared(
        prefer, "JSON lines, JSON or Parquet with prompt, chosen and rejected, or with prompt, completion and label"
    )
    _of_a_base(prefer, "learn what people who allowed it thought of replies: thumbs, and which of several they kept")
    prefer.add_argument("--beta", type=float, metavar="X", help="how close it stays to what it was (default 0.1)")
    prefer.set_defaults(run=run, stage="prefer")


def _of_a_base(parser: argparse.ArgumentParser, conversations: str) -> None:
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="NAME[@VERSION], a folder, a GGUF file, or OWNER/REPO (default: the one in use)",
    )
    parser.add_argument("--conversations", action="store_true", help=conversations)
    parser.add_argument("--since", type=moment, metavar="DATE", help="of those: spoken in then or later, 2026-01-31")
    parser.add_argument("--lora-rank", type=count, metavar="N", help="of the adapters (default 16)")
    parser.add_argument("--system", metavar="TEXT", help="system prompt of conversations that have none")


def _shared(parser: argparse.ArgumentParser, kinds: str) -> None:
    parser.add_argument("--data", type=Path, nargs="+", metavar="FILE", default=[], help=kinds)
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, to the same end")
    parser.add_argument("--dry-run", action="store_true", help="say what it would cost, and train nothing")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=count, metavar="N", help="steps of the whole run")
    length.add_argument("--epochs", type=float, metavar="X", help="passes over the data")
    parser.add_argument("--block", type=count, metavar="N", help="tokens of a row: the longest text it sees")
    parser.add_argument("--batch-tokens", type=count, metavar="N", help="tokens before each step, over all processes")
    parser.add_argument("--micro-rows", type=count, metavar="N", help="rows computed at once (default: what fits)")
    parser.add_argument("--rate", type=float, metavar="X", help="learning rate")
    parser.add_argument("--warmup", type=float, metavar="X", help="share of the steps in which it rises")
    parser.add_argument("--patience", type=int, metavar="N", help="stop after N looks without a better one; 0: never")
    parser.add_argument("--evaluations", type=count, metavar="N", help="looks at what is held out (default 20)")
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), help="default: bf16 where the machine is quick at it"
    )
    parser.add_argument(
        "--compile", action="store_true", default=None, help="compile the model first (torch.compile)"
    )
    parser.add_argument("--fsdp", action="store_true", default=None, help="share the weights among the processes")
    parser.add_argument("--seed", type=int, metavar="N", help="of everything random (default 0)")


def run(arguments: argparse.Namespace) -> int:
    considerate()
    if arguments.resume:
        if arguments.data:
            raise UserError("A run that is resumed has its data already; leave --data out.")
        if arguments.out is None:
            raise UserError("Say which run to go on with: --out RUN.")
        options = None
    else:
        options = _options(arguments)
    if arguments.dry_run:
        return _dry_run(arguments, options)
    if arguments.out is None:
        raise UserError("Say where the run shall stand: --out RUN.")
    outcome, first = train(arguments.out, options, arguments.micro_rows)
    if first:
        version = run_async(_register(outcome, arguments.out))
        say(f"Report: {arguments.out / 'report.html'}")
        print(f"{version.ref} is a candidate; `chatbot models promote {version.ref}` puts it to use.")
    return 0


def considerate() -> None:
    """Let libraries keep to themselves. Before they are imported: they ask only then."""
    import logging
    import warnings

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not take the cores of other programs
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def _options(arguments: argparse.Namespace) -> Options:
    from chatbot.gpt import options
    from chatbot.gpt.reading import files

    if not arguments.data and not getattr(arguments, "conversations", False):
        more = "" if arguments.stage == "pretrain" else ", or --conversations"
        raise UserError(f"Say what to learn from: --data FILE{more}.")
    positive = (1e-12, 1e6)
    within(arguments, rate=positive, epochs=positive, beta=positive, warmup=(0, 1), patience=(0, 1e6), seed=SEEDS)
    names = ("steps", "epochs", "block", "batch_tokens", "micro_rows", "rate", "warmup", "patience", "evaluations")
    given: dict[str, Any] = {name: getattr(arguments, name) for name in (*names, "fsdp", "seed")}
    given["compile"] = arguments.compile or None
    paths = [path.expanduser().resolve() for path in arguments.data]
    files(paths)  # says what is missing, before anything is loaded
    given["data"] = tuple(map(str, paths))
    if arguments.stage == "pretrain":
        given |= {name: getattr(arguments, name) for name in ("vocabulary", "layers", "width", "heads")}
        if arguments.tokenizer is not None:
            given["tokenizer"] = str(arguments.tokenizer.expanduser().resolve())
        return _precise(options.pretraining(arguments.size or "nano", **given), arguments.precision)
    given["conversations"] = arguments.conversations
    given["since"] = arguments.since and arguments.since.isoformat()
    prefers = arguments.stage == "prefer"
    if prefers or arguments.method == "lora":
        given["lora_rank"] = arguments.lora_rank
    elif arguments.lora_rank is not None:
        raise UserError("--lora-rank is for --method lora.")
    with ProgressPrinter() as progress:
        found = run_async(_base(arguments.base or "", prefers, progress))
    if "adapter" in found and arguments.lora_rank is not None:
        raise UserError(f"{found['adapter_ref']} is an adapter, which is trained further; leave --lora-rank out.")
    given |= found
    given["system"] = _system() if arguments.system is None else arguments.system
    if prefers:
        return _precise(options.preferring(**given, beta=arguments.beta), arguments.precision)
    return _precise(options.finetuning(arguments.method, **given), arguments.precision)


def _precise(options: Options, asked: Literal["bf16", "fp32"] | None) -> Options:
    """Options with a precision: the one that was asked for, or what the machine is quick at."""
    if asked is None:
        from chatbot.gpt.speed import precision

        asked = precision()
    return replace(options, precision=asked)


def _system() -> str:
    from chatbot.settings import Settings

    return Settings.load().system


async def _base(wanted: str, may_be_adapter: bool, progress: ProgressPrinter) -> dict[str, Any]:
    from chatbot.engines.weights import transformers_folder
    from chatbot.gpt.options import begin_with
    from chatbot.settings import Settings
    from chatbot.store import open_store

    settings = Settings.load()
    async with open_store(settings) as store:
        version = await (store.registry.find(wanted) if wanted else store.registry.current("gpt"))
        begun: dict[str, Any] = {}
        if "base" in version.settings and may_be_adapter:
            begun = begin_with(store.registry.folder(version)) | {"adapter_ref": version.ref}
            version = await store.registry.find(version.settings["base"])
        elif "base" in version.settings:
            raise UserError(
                f"{version.ref} is an adapter of {version.settings['base']}; `chatbot models export {version.ref}` "
                "makes one model of both, and that can be fine-tuned."
            )
        folder = await transformers_folder(store.registry, settings, version, progress.tell)
    named = version.ref if begun or not wanted else wanted
    return {"base": named, "base_ref": version.ref, "base_folder": str(folder)} | begun


def train(
    out: Path,
    options: Options | None,
    micro_rows: int | None,
    command: str = "",
    own: Callable[[Report], Sequence[Sample]] | None = None,
) -> tuple[Outcome, bool]:
    """Train in the folder `out`, or go on there; also whether we are the first of torchrun's processes.

    A run that is stopped is gone on with by `command`, or the one of its stage; `own` gives what it learns of the
    conversations of the database, where that is another than what there is.
    """
    from chatbot.gpt.run import Run, Stopped, options_of
    from chatbot.settings import Settings
    from chatbot.training import parallel

    out = out.expanduser().resolve()
    rank, _ = parallel.start()
    try:
        with ProgressPrinter() as progress, noted_signals() as asked:

            def tell(text: str, fraction: float | None = None) -> None:
                progress.tell(text, fraction)

            try:
                training = Run(
                    out,
                    options,
                    own=own or (lambda report: _noted(out, run_async(_own(options or options_of(out), report)))),
                    private=Settings.load().learning_folder / hashlib.sha256(str(out).encode()).hexdigest()[:16],
                    stopping=lambda: bool(asked),
                    tell=tell,
                    complain=progress.note,
                    micro_rows=micro_rows if options is None else None,
                    command=command,
                )
                return training.go(), rank == 0
            except Stopped as stopped:
                progress.close()
                if rank == 0:
                    say(str(stopped))
                raise SystemExit(128 + (asked[0] if asked else signal.SIGINT)) from None
            except OSError as error:
                reason = error.strerror or str(error)
                raise UserError(
                    f"The run in {out} cannot be written: {reason}. What was saved before stands; make room, and go "
                    "on with --resume."
                ) from None
    finally:
        parallel.finish()


def _noted(out: Path, own: Sequence[Sample]) -> Sequence[Sample]:
    """What a run learns, once the messages that it comes from are noted."""
    from chatbot.gpt.learned import keep_learned

    keep_learned(out, own)
    return own


async def _own(options: Options, report: Report) -> Sequence[Sample]:
    """What a run learns of the conversations of the database."""
    from chatbot.gpt.corpus import own_conversations
    from chatbot.gpt.preferences import own_preferences
    from chatbot.settings import Settings
    from chatbot.store import open_store

    since = datetime.fromisoformat(options.since) if options.since else None
    prefers = options.stage == "prefer"
    found: Sequence[Sample]
    async with open_store(Settings.load()) as store:
        if prefers:
            found = await own_preferences(store, since=since)
        else:
            found = await own_conversations(store, report, since=since)
    if not found:
        raise UserError(
            f"There is {'no thumb, and no choice among replies,' if prefers else 'no conversation'} to learn from: "
            f"nobody allowed it, or nothing was {'rated' if prefers else 'said'}. `chatbot conversations consent on` "
            "allows it for yours."
        )
    return found


async def _register(outcome: Outcome, out: Path) -> Version:
    """Copy the model into the home, and register it as a candidate.

    Raises UserError where something of what it learned was forgotten meanwhile.
    """
    from chatbot.gpt.learned import check_learned, kept_learned
    from chatbot.gpt.versions import register
    from chatbot.settings import Settings
    from chatbot.store import open_store

    settings = Settings.load()
    async with open_store(settings) as store:
        if outcome.options.conversations:
            await check_learned(store, kept_learned(out))
        return await register(store.registry, settings.home, outcome, out.resolve().name)


def _dry_run(arguments: argparse.Namespace, options: Options | None) -> int:
    from chatbot.gpt.dry_run import estimate

    if options is None:
        raise UserError("--dry-run is for a run that is not there yet; leave --resume out.")
    with ProgressPrinter() as progress:
        lines = estimate(
            options,
            lambda report: run_async(_own(options, report)),
            progress.tell,
            progress.note,
        )
    for line in lines:
        print(line)
    return 0
