"""`chatbot conversations`: look at what was said, search it, carry it away, bring it in, forget it."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.cli.progress import ProgressPrinter, say
from chatbot.cli.run import run_async
from chatbot.errors import UserError
from chatbot.text import clean

if TYPE_CHECKING:
    from chatbot.store import Store
    from storage.records import Conversation, Message
    from storage.search import Hit

HELP = "list, show, search, export, import, rename and delete conversations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="all conversations, the one last spoken in first")
    listing.add_argument("--limit", type=_count, metavar="N", help="so many at most")
    listing.add_argument("--json", action="store_true", help="as a JSON array")
    listing.set_defaults(act=_list)

    show = actions.add_parser("show", help="what was said in one")
    show.add_argument("id", metavar="ID")
    show.add_argument("--json", action="store_true", help="as a JSON object, with all branches")
    show.set_defaults(act=_show)

    search = actions.add_parser("search", help="find what was said: messages with all the words")
    search.add_argument("words", nargs="+", metavar="WORDS", help='words; "in double quotes" those in that order')
    search.add_argument("--conversation", metavar="ID", help="in this one alone")
    search.add_argument("--role", choices=("user", "assistant"), help="said by this side alone")
    search.add_argument("--since", type=moment, metavar="DATE", help="said then or later: 2026-01-31[T12:00]")
    search.add_argument("--until", type=moment, metavar="DATE", help="said before then")
    search.add_argument("--best", action="store_true", help="the best first, not the newest")
    search.add_argument("--limit", type=_count, default=20, metavar="N", help="so many at most (20)")
    search.add_argument("--json", action="store_true", help="as a JSON array")
    search.set_defaults(act=_search)

    export = actions.add_parser("export", help="write conversations to a file, or to stdout")
    export.add_argument("ids", nargs="*", metavar="ID", help="which; all where none is named")
    export.add_argument(
        "--format",
        choices=("json", "markdown", "jsonl"),
        default="json",
        help="json: everything, can be imported; markdown, or jsonl of chat messages: the branch shown",
    )
    export.add_argument("--output", metavar="FILE", type=Path, help="instead of stdout")
    export.set_defaults(act=_export)

    bring = actions.add_parser("import", help="add conversations of a file; what is here already is left alone")
    bring.add_argument(
        "file", metavar="FILE", help="of `export`, of ChatGPT (conversations.json or its zip) or ShareGPT; -: stdin"
    )
    bring.add_argument("--json", action="store_true", help="as a JSON object")
    bring.set_defaults(act=_import)

    rename = actions.add_parser("rename", help="give one another title")
    rename.add_argument("id", metavar="ID")
    rename.add_argument("title", metavar="TITLE")
    rename.set_defaults(act=_rename)

    consent = actions.add_parser(
        "consent", help="say whether models may learn from what someone says; they may not unless it is allowed"
    )
    consent.add_argument("answer", choices=("on", "off"), nargs="?", help="none: print how it stands")
    consent.add_argument("--person", metavar="PLATFORM[:ID]", default="local", help="who (default: who sits here)")
    consent.set_defaults(act=_consent)

    delete = actions.add_parser("delete", help="forget a conversation, a message or all of a person, for good")
    what = delete.add_mutually_exclusive_group(required=True)
    what.add_argument("id", metavar="ID", nargs="?", help="the conversation")
    what.add_argument("--message", metavar="ID", help="this message; what followed it stays")
    what.add_argument(
        "--person", metavar="PLATFORM[:ID]", help="all that belongs to someone; `local` is whoever sits here"
    )
    delete.add_argument("--yes", action="store_true", help="do not ask")
    delete.set_defaults(act=_delete)


def run(arguments: argparse.Namespace) -> int:
    run_async(_with_store(arguments))
    return 0


async def _with_store(arguments: argparse.Namespace) -> None:
    from chatbot.settings import Settings
    from chatbot.store import open_store

    async with open_store(Settings.load()) as store:
        await arguments.act(store, arguments)


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"'{value}' is no number from 1 on")
    return int(value)


def moment(value: str) -> datetime:
    try:
        return datetime.fromisoformat(value).astimezone()
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{value}' is no date like 2026-01-31 or 2026-01-31T12:00") from None


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


async def _list(store: Store, arguments: argparse.Namespace) -> None:
    listed = await store.conversations.list(arguments.limit)
    if arguments.json:
        _print_json([_summary(conversation) for conversation in listed])
        return
    for conversation in listed:
        print(f"{conversation.id}  {conversation.updated.astimezone():%Y-%m-%d %H:%M}  {conversation.title}")


async def _show(store: Store, arguments: argparse.Namespace) -> None:
    conversation = await store.conversations.get(arguments.id)
    if arguments.json:
        said = await store.conversations.messages(conversation.id)
        shown = {
            "system": conversation.system,
            "shown": conversation.leaf_id,
            "messages": [_message(message) for message in said],
        }
        _print_json(_summary(conversation) | shown)
        return
    print(f"{conversation.title}\n")
    for message in await store.conversations.path(conversation.leaf_id):
        who = "You" if message.role == "user" else message.model or "Reply"
        marks = [f"{message.position}/{message.siblings}"] if message.siblings > 1 else []
        marks += ["pinned"] if message.pinned else []
        marks += [{1: "good", -1: "bad"}[message.rating]] if message.rating else []
        marks += [message.status] if message.status != "complete" else []
        mark = f" ({', '.join(marks)})" if marks else ""
        print(f"{who}{mark}:\n{message.text or message.error or ''}\n")
        if message.summary is not None:
            print(f"[Summary of all above, made by the model: {message.summary}]\n")


async def _search(store: Store, arguments: argparse.Namespace) -> None:
    from storage.search import Query

    query = Query(
        " ".join(arguments.words),
        arguments.conversation,
        role=arguments.role,
        since=arguments.since,
        until=arguments.until,
        order="best" if arguments.best else "newest",
    )
    if arguments.conversation is not None:
        await store.conversations.get(arguments.conversation)  # says so where there is none
    hits = await store.search.find(query, arguments.limit)
    if arguments.json:
        _print_json([_hit(hit) for hit in hits])
        return
    if not hits:
        say("Nothing was found.")
    strong = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    for hit in hits:
        who = "you" if hit.role == "user" else "reply"
        print(f"{hit.conversation_id}  {hit.created.astimezone():%Y-%m-%d %H:%M}  {who}  {hit.title}")
        print(f"    {_marked(hit, *strong)}")


def _marked(hit: Hit, begin: str, end: str) -> str:
    pieces, at = [], 0
    for start, stop in hit.marks:
        pieces += [hit.snippet[at:start], begin, hit.snippet[start:stop], end]
        at = stop
    return "".join([*pieces, hit.snippet[at:]])


async def _export(store: Store, arguments: argparse.Namespace) -> None:
    from chatbot.transfer.write import export, export_to

    chosen = [await store.conversations.get(one) for one in dict.fromkeys(arguments.ids)]
    wanted = chosen or await store.conversations.list()
    if arguments.output is not None:
        await export_to(store, wanted, arguments.format, arguments.output)
        return
    async for piece in export(store, wanted, arguments.format):
        sys.stdout.write(piece)


async def _import(store: Store, arguments: argparse.Namespace) -> None:
    from chatbot.transfer.keep import keep
    from chatbot.transfer.read import parse

    try:
        data = sys.stdin.buffer.read() if arguments.file == "-" else Path(arguments.file).read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {arguments.file}: {error.strerror}.") from None
    conversations = added = 0
    with ProgressPrinter() as progress:
        shapes = parse(data)
        for number, shape in enumerate(shapes):
            new = await keep(store, shape)
            conversations += bool(new)
            added += new
            progress.tell("Importing", (number + 1) / len(shapes))
    if arguments.json:
        _print_json({"conversations": conversations, "messages": added, "read": len(shapes)})
    else:
        print(f"{added:,} messages added, in {conversations:,} of {len(shapes):,} conversations.")


async def _rename(store: Store, arguments: argparse.Namespace) -> None:
    title = clean(arguments.title).strip()
    if not title:
        raise UserError("The title is empty.")
    await store.conversations.rename(arguments.id, title)
    print(f"{arguments.id} is called {(await store.conversations.get(arguments.id)).title} now.")


async def _delete(store: Store, arguments: argparse.Namespace) -> None:
    from chatbot.chat import STILL_READ

    if arguments.message is not None:
        message = await store.conversations.message(arguments.message)
        what, forget = f"the message “{_beginning(message)}”", store.forgetting.message(message.id)
    elif arguments.person is not None:
        platform, _, external_id = arguments.person.partition(":")
        person = await store.people.find(platform, external_id)
        count = len(await store.conversations.list(person=person.id))
        what, forget = f"{count} conversations, all of {arguments.person}", store.forgetting.person(person.id)
    else:
        conversation = await store.conversations.get(arguments.id)
        what, forget = f"the conversation “{conversation.title}”", store.forgetting.conversation(conversation.id)
    try:
        _agree(what, asked=not arguments.yes)
    except BaseException:
        forget.close()
        raise
    erased = await forget
    print(f"Deleted: {what}.")
    if not erased:
        say(STILL_READ)


def _agree(what: str, *, asked: bool) -> None:
    """Raises UserError where the person does not want it, or cannot be asked."""
    if not asked:
        return
    if not sys.stdin.isatty():
        raise UserError("Deleting is for good: --yes says that you mean it.")
    say(f"Delete {what}, for good? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("Nothing was deleted.")


def _beginning(message: Message) -> str:
    line = " ".join(message.text.split())
    return line if len(line) <= 40 else f"{line[:39]}…"


def _message(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "parent": message.parent_id,
        "role": message.role,
        "text": message.text,
        "status": message.status,
        "created": message.created.isoformat(),
        "model": message.model,
        "position": message.position,
        "siblings": message.siblings,
        "pinned": message.pinned,
        "rating": message.rating,
        "summary": message.summary,
    }


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "message": hit.message_id,
        "conversation": hit.conversation_id,
        "title": hit.title,
        "role": hit.role,
        "created": hit.created.isoformat(),
        "snippet": hit.snippet,
        "marks": [list(mark) for mark in hit.marks],
    }


def _summary(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "title": conversation.title,
        "created": conversation.created.isoformat(),
        "updated": conversation.updated.isoformat(),
    }


async def _consent(store: Store, arguments: argparse.Namespace) -> None:
    platform, _, external_id = arguments.person.partition(":")
    person = await store.people.find(platform, external_id)
    allowed = person.may_learn
    if arguments.answer is not None:
        allowed = arguments.answer == "on"
        await store.people.allow_learning(person.id, allowed)
        if not allowed:
            from chatbot.settings import Settings

            await asyncio.to_thread(shutil.rmtree, Settings.load().learning_folder, ignore_errors=True)
    print(f"Models {'may' if allowed else 'may not'} learn from what {arguments.person} says.")
