"""`chatbot conversations`: look at what was said."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

HELP = "list and show conversations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="all conversations, the one last spoken in first")
    listing.add_argument("--json", action="store_true", help="as a JSON array")
    listing.set_defaults(act=_list)
    show = actions.add_parser("show", help="what was said in one")
    show.add_argument("id", metavar="ID")
    show.add_argument("--json", action="store_true", help="as a JSON object, with all branches")
    show.set_defaults(act=_show)


def run(arguments: argparse.Namespace) -> int:
    asyncio.run(arguments.act(arguments))
    return 0


async def _list(arguments: argparse.Namespace) -> None:
    from chatbot.session import open_store
    from chatbot.settings import Settings

    async with open_store(Settings.load()) as store:
        listed = await store.conversations.list()
    if arguments.json:
        print(json.dumps([_summary(conversation) for conversation in listed], ensure_ascii=False, indent=2))
        return
    for conversation in listed:
        print(f"{conversation.id}  {conversation.updated.astimezone():%Y-%m-%d %H:%M}  {conversation.title}")


async def _show(arguments: argparse.Namespace) -> None:
    from chatbot.session import open_store
    from chatbot.settings import Settings

    async with open_store(Settings.load()) as store:
        conversation = await store.conversations.get(arguments.id)
        if arguments.json:
            said = await store.conversations.messages(conversation.id)
        else:
            said = await store.conversations.path(conversation.leaf_id)
    if arguments.json:
        messages = [
            {
                "id": message.id,
                "parent": message.parent_id,
                "role": message.role,
                "text": message.text,
                "status": message.status,
                "created": message.created.isoformat(),
            }
            for message in said
        ]
        shown = {**_summary(conversation), "system": conversation.system, "messages": messages}
        print(json.dumps(shown, ensure_ascii=False, indent=2))
        return
    print(f"{conversation.title}\n")
    for message in said:
        mark = "" if message.status == "complete" else f" ({message.status})"
        who = "You" if message.role == "user" else message.model or "Reply"
        print(f"{who}{mark}:\n{message.text or message.error or ''}\n")


def _summary(conversation: Any) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "title": conversation.title,
        "created": conversation.created.isoformat(),
        "updated": conversation.updated.isoformat(),
    }
