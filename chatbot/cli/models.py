"""`chatbot models`: which models there are, and which of them answers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.cli.progress import ProgressPrinter, say
from chatbot.cli.run import run_async
from chatbot.errors import UserError

if TYPE_CHECKING:
    from chatbot.registry import Listed, Registry
    from storage.versions import Version

HELP = "list, fetch, choose and remove models"
KINDS = ("gpt", "aigc", "encoder")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="all models and versions")
    listing.add_argument("--kind", choices=KINDS)
    listing.add_argument("--json", action="store_true", help="as a JSON array")
    listing.set_defaults(act=_list)

    one = (
        "NAME[@VERSION]; or OWNER/REPO[:FILE.gguf][@REVISION] of the hub, the path of a GGUF file or of a folder of "
        "transformers, or NAME@URL behind an OpenAI-compatible endpoint"
    )
    for name, act, text, what in (
        ("pull", _pull, "fetch a model", one),
        ("use", _use, "let a model answer from now on", one),
        ("remove", _remove, "delete what was fetched or trained", "NAME[@VERSION]"),
        ("promote", _promote, "let a candidate answer from now on", "NAME@VERSION"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("name", metavar=what.partition(";")[0], help=what)
        if name in ("pull", "use"):
            action.add_argument(
                "--trust-remote-code",
                action="store_true",
                help="for models that need it: run Python code of their author on this machine, as you",
            )
        action.set_defaults(act=act)

    compare = actions.add_parser(
        "compare", help="two versions beside each other: how they were made, and their figures"
    )
    compare.add_argument("names", metavar="NAME@VERSION", nargs=2)
    compare.add_argument("--json", action="store_true", help="as a JSON array of the two")
    compare.set_defaults(act=_compare)

    export = actions.add_parser("export", help="write a trained model as GGUF, for llama.cpp")
    export.add_argument("name", metavar="NAME@VERSION", help="an adapter is written together with its base")
    export.add_argument(
        "--format", choices=("f16", "q8_0"), default="f16", help="numbers of 16 bits, or of 8 and a half"
    )
    export.add_argument("-o", "--output", type=Path, metavar="FILE.gguf", help="a file; none: a version of its own")
    export.set_defaults(act=_export)

    for name, act, text in (
        ("rollback", _rollback, "let the version before answer again"),
        ("history", _history, "what answered when"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("--kind", choices=KINDS, required=True)
        action.set_defaults(act=act)


def run(arguments: argparse.Namespace) -> int:
    run_async(_with_registry(arguments))
    return 0


async def _with_registry(arguments: argparse.Namespace) -> None:
    from chatbot.settings import Settings
    from chatbot.store import open_store

    with ProgressPrinter() as progress:
        async with open_store(Settings.load()) as store:
            await arguments.act(store.registry, arguments, progress)


async def _list(registry: Registry, arguments: argparse.Namespace, progress: ProgressPrinter) -> None:
    rows = await registry.list(arguments.kind)
    if arguments.json:
        print(json.dumps([_row(row) for row in rows], ensure_ascii=False, indent=2))
        return
    width = max((len(row.version.ref) for row in rows), default=0)
    for row in rows:
        size = f"{row.size / 1e6:,.0f} MB" if row.size else ""
        there = "here" if row.fetched else "not fetched" if row.version.folder else "remote"
        licence = row.version.settings.get("licence", "")
        print(f"{row.version.kind:8}{row.version.ref:<{width}}  {row.state:10}{there:12}{size:>10}  {licence}")


async def _pull(registry: Registry, arguments: argparse.Namespace, progress: ProgressPrinter) -> None:
    version = await registry.pull(arguments.name, progress.tell, say, trust_remote_code=arguments.trust_remote_code)
    progress.close()
    print(registry.path(version) if version.folder else version.ref)


async def _use(registry: Registry, arguments: argparse.Namespace, progress: ProgressPrinter) -> None:
    from chatbot.engines.load import check_loads
    from chatbot.settings import Settings

    async def check(version: Version) -> None:
        await check_loads(registry, Settings.load(), version, progress)

    version = await registry.use(
        arguments.name, progress.tell, say, trust_remote_code=arguments.trust_remote_code, check=check
    )
    progress.close()
    print(f"{version.ref} {'draws' if version.kind == 'aigc' else 'answers'} from now on.")


async def _remove(registry: Registry, arguments: argparse.Namespace, progress: ProgressPrinter) -> None:
    print(f"{(await registry.remove(arguments.name)).ref} is removed.")


async def _promote(registry: Registry, arguments: argparse.Namespace, progress: ProgressPrinter) -> None:
    print(f"{(await registry.promote(arguments.name)).ref} answers from now on.")


async def _export(registry: Registry, arguments: argparse.Namespace, progress: ProgressPrinter) -> None:
    from chatbot.cli.train_gpt import considerate
    from chatbot.gpt.versions import export_to_gguf
    from chatbot.settings import Settings

    output: Path | None = arguments.output and arguments.output.expanduser()
    if output is not None and output.suffix.lower() != ".gguf":
        raise UserError(f"{output} does not end in .gguf, and that is what is written.")
    considerate()
    file, version = await export_to_gguf(
        registry, Settings.load(), arguments.name, arguments.format, output, progress.tell
    )
    progress.close()
    print(file if version is None else f"{version.ref} is a candidate, for llama.cpp: {file}")


async def _rollback(registry: Registry, arguments: argparse.Namespace, progress: ProgressPrinter) -> None:
    print(f"{(await registry.rollback(arguments.kind)).ref} answers again.")


async def _history(registry: Registry, arguments: argparse.Namespace, progress: ProgressPrinter) -> None:
    for entry in await registry.history(arguments.kind):
        undone = " (rolled back since)" if entry.undone and entry.action != "rollback" else ""
        action = "rolled back from" if entry.action == "rollback" else entry.action
        print(f"{entry.created.astimezone():%Y-%m-%d %H:%M:%S}  {action:16}  {entry.ref}{undone}")


async def _compare(registry: Registry, arguments: argparse.Namespace, progress: ProgressPrinter) -> None:
    from chatbot.cli.comparing import compared

    refs = [(await registry.find(name)).ref for name in arguments.names]
    known = {row.version.ref: row for row in await registry.list()}
    for ref in refs:
        if ref not in known:
            raise UserError(f"{ref} is none of the models here; `chatbot models list` names them.")
    one, other = (known[ref] for ref in refs)
    rows = compared(one, other)
    if arguments.json:
        print(json.dumps([_row(one), _row(other)], ensure_ascii=False, indent=2))
        return
    widths = [max(len(row[place]) for row in rows) for place in range(2)]
    for name, left, right in rows:
        print(f"{name:<{widths[0]}}  {left:<{widths[1]}}  {right}".rstrip())


def _row(row: Listed) -> dict[str, object]:
    version = row.version
    return {
        "kind": version.kind,
        "name": version.name,
        "version": version.version,
        "state": row.state,
        "fetched": row.fetched,
        "size": row.size,
        "folder": version.folder,
        "checksum": version.checksum,
        "parent": version.parent,
        "figures": version.figures,
        "data_fingerprint": version.data_fingerprint,
        "settings": version.settings,
        "code_version": version.code_version,
        "created": version.created.isoformat(),
    }
