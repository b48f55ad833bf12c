"""A Bot API server, as strict as Telegram's: `python -m tests.telegram.emulator` prints its port.

It ends when its standard input closes. Under `/control` tests speak for people, ask what was sent, and order faults;
one of them is to kill the bot at that very point.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.telegram.rules import Refused, check_buttons, check_entities, check_text, sticker_size
from tests.telegram.trouble import AFTER, BEFORE, Fault, refuse

TOKEN = "4242:emulated-token-that-nobody-may-see"
BOT = {"id": 4242, "is_bot": True, "first_name": "Bot", "username": "emulated_bot"}
Params = dict[str, Any]


@dataclass
class World:
    """What the server knows."""

    updates: list[dict[str, Any]] = field(default_factory=list)
    next_update: int = 100
    messages: dict[int, dict[int, dict[str, Any]]] = field(default_factory=dict)
    sent: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    commands: dict[str, Any] = field(default_factory=dict)
    blocked: set[int] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    callbacks: set[str] = field(default_factory=set)
    given: dict[int, float] = field(default_factory=dict)
    pid: int = 0
    record: bool = True
    polls: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def add_update(self, update: dict[str, Any]) -> int:
        number = update.setdefault("update_id", self.next_update)
        if type(number) is int:
            self.next_update = max(self.next_update, number + 1)
        self.updates.append(update)
        self.arrived.set()
        return int(number) if type(number) is int else -1

    def add_message(self, chat: int, message: dict[str, Any]) -> dict[str, Any]:
        there = self.messages.setdefault(chat, {})
        message |= {"message_id": len(there) + 1, "date": int(time.time()), "chat": chat_of(chat)}
        there[message["message_id"]] = message
        return message

    def fault(self, method: str, chat: int | None) -> Fault | None:
        for fault in self.faults:
            if fault.method in (method, "*") and fault.chat in (None, chat):
                if fault.skip:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return None


def chat_of(number: int) -> dict[str, Any]:
    return {"id": number, "type": "private" if number > 0 else "supergroup"}


class Server:
    """Routes of the server."""

    def __init__(self) -> None:
        self.world = World()
        self.methods: dict[str, Callable[[Params], Awaitable[Any]]] = {
            "getme": self.get_me,
            "getupdates": self.get_updates,
            "setmycommands": self.set_my_commands,
            "sendmessage": self.send_message,
            "sendmessagedraft": self.send_message_draft,
            "editmessagetext": self.edit_message_text,
            "sendchataction": self.send_chat_action,
            "sendphoto": self.send_file,
            "sendsticker": self.send_file,
            "senddocument": self.send_file,
            "answercallbackquery": self.answer_callback_query,
            "getfile": self.get_file,
        }

    def application(self) -> web.Application:
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/bot{token}/{method}", self.call)
        application.router.add_get("/file/bot{token}/{path}", self.download)
        application.router.add_post("/control/{what}", self.control)
        return application

    async def call(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._call(request)
        except ConnectionError:  # the bot was killed as it asked
            return web.Response()

    async def _call(self, request: web.Request) -> web.StreamResponse:
        world, method = self.world, request.match_info["method"]
        parameters = await read_parameters(request)
        chat = parameters.get("chat_id")
        fault = world.fault(method, chat)
        if fault is not None and fault.do in AFTER and method == "getUpdates":
            parameters["timeout"] = 0  # what goes wrong after it does so at once
        if method != "getUpdates" and world.record:
            told = {name: value for name, value in parameters.items() if not _is_file(value)}
            world.calls.append({"method": method, "at": time.monotonic(), "fault": fault and fault.do, **told})
        if fault is not None and fault.do in BEFORE:
            return await BEFORE[fault.do](self.world.pid, request, fault)
        if request.match_info["token"] != TOKEN:
            return refuse(401, "Unauthorized")
        run = self.methods.get(method.lower())
        if run is None:
            return refuse(404, "Not Found: method not found")
        try:
            if chat in world.blocked:
                raise Refused("Forbidden: bot was blocked by the user", 403)
            result = await run({"_method": method, **parameters})
        except Refused as error:
            return refuse(error.code, str(error))
        if fault is not None:
            return await AFTER[fault.do](self.world.pid, request, fault, result)
        return web.json_response({"ok": True, "result": result})

    async def get_me(self, parameters: Params) -> Any:
        return BOT

    async def get_updates(self, parameters: Params) -> Any:
        world = self.world
        world.polls += 1
        mine = world.polls
        offset, until = parameters.get("offset", 0), time.monotonic() + parameters.get("timeout", 0)
        assert json.dumps(parameters.get("allowed_updates")) == '["message", "edited_message", "callback_query"]'
        numbers = [update["update_id"] for update in world.updates if type(update.get("update_id")) is int]
        if offset:
            world.updates = [update for update in world.updates if _id(update) >= offset]
        for number in numbers:
            if number < offset:
                world.given.setdefault(-number, time.monotonic())
        while True:
            if mine != world.polls:
                raise Refused("Conflict: terminated by other getUpdates request", 409)
            if world.updates:
                page = world.updates[: min(parameters.get("limit", 100), 100)]
                for update in page:
                    world.given.setdefault(_id(update), time.monotonic())
                return page
            if (left := until - time.monotonic()) <= 0:
                return []
            world.arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(world.arrived.wait(), min(left, 1.0))

    async def set_my_commands(self, parameters: Params) -> Any:
        scope = parameters.get("scope", {}).get("chat_id", "")
        for command in parameters["commands"]:
            if not (1 <= len(command["command"]) <= 32 and 1 <= len(command["description"]) <= 256):
                raise Refused("Bad Request: BOT_COMMAND_INVALID")
        self.world.commands[f"{parameters.get('language_code', '')}{scope}"] = parameters["commands"]
        return True

    async def send_message(self, parameters: Params) -> Any:
        text = check_text(parameters.get("text"), least=1)
        check_entities(text, parameters.get("entities", []))
        return self._sent(parameters, text=text, entities=parameters.get("entities", []))

    def _sent(self, parameters: Params, **content: Any) -> dict[str, Any]:
        chat = parameters["chat_id"]
        check_buttons(parameters.get("reply_markup"))
        answers = parameters.get("reply_parameters", {}).get("message_id")
        if answers is not None and answers not in self.world.messages.get(chat, {}):
            raise Refused("Bad Request: message to be replied not found")
        message = self.world.add_message(chat, {"from": BOT, **content})
        kept = {"reply_markup": parameters.get("reply_markup"), "answers": answers}
        message |= {key: value for key, value in kept.items() if value is not None}
        self.world.sent.append(message | {"at": time.monotonic(), "thread": parameters.get("message_thread_id", 0)})
        return message

    async def send_message_draft(self, parameters: Params) -> Any:
        if parameters["chat_id"] <= 0:
            raise Refused("Bad Request: drafts are for private chats")
        if not parameters.get("draft_id"):
            raise Refused("Bad Request: DRAFT_ID_INVALID")
        check_entities(check_text(parameters.get("text", ""), least=0), parameters.get("entities", []))
        return True

    async def edit_message_text(self, parameters: Params) -> Any:
        message = self.world.messages.get(parameters["chat_id"], {}).get(parameters["message_id"])
        if message is None:
            raise Refused("Bad Request: message to edit not found")
        if message.get("from") != BOT:
            raise Refused("Bad Request: message can't be edited")
        text = check_text(parameters.get("text"), least=1)
        check_entities(text, parameters.get("entities", []))
        check_buttons(parameters.get("reply_markup"))
        new = {
            "text": text,
            "entities": parameters.get("entities", []),
            "reply_markup": parameters.get("reply_markup"),
        }
        if all(message.get(key) == value for key, value in new.items()):
            raise Refused(
                "Bad Request: message is not modified: specified new message content and reply markup are exactly "
                "the same as a current content and reply markup of the message"
            )
        message |= new | {"edit_date": int(time.time())}
        self.world.sent.append(message | {"at": time.monotonic(), "edited": True})
        return message

    async def send_chat_action(self, parameters: Params) -> Any:
        if parameters["action"] not in ("typing", "upload_photo", "upload_document", "choose_sticker"):
            raise Refused("Bad Request: wrong parameter action in request")
        return True

    async def send_file(self, parameters: Params) -> Any:
        kind = parameters["_method"].removeprefix("send").lower()
        value: Any = parameters.get(kind)
        if not _is_file(value):
            raise Refused(f"Bad Request: there is no {kind} in the request")
        data: bytes = value["bytes"]
        content: dict[str, Any] = {kind: {"name": value["name"], "digest": hashlib.sha256(data).hexdigest()}}
        if kind == "sticker":
            content[kind]["pixels"] = sticker_size(data)
        sent = self._sent(parameters, **content)
        file = {"file_id": "f", "file_unique_id": "u", "width": 512, "height": 512, "is_animated": False}
        shown: Any = file | {"is_video": False, "type": "regular"}
        return {**sent, kind: [file] if kind == "photo" else shown}

    async def answer_callback_query(self, parameters: Params) -> Any:
        if parameters["callback_query_id"] not in self.world.callbacks:
            raise Refused("Bad Request: query is too old and response timeout expired or query ID is invalid")
        self.world.callbacks.remove(parameters["callback_query_id"])
        return True

    async def get_file(self, parameters: Params) -> Any:
        name = parameters["file_id"]
        if name not in self.world.files:
            raise Refused("Bad Request: invalid file_id")
        return {"file_id": name, "file_unique_id": name, "file_size": len(self.world.files[name]), "file_path": name}

    async def download(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["token"] != TOKEN:
            return refuse(404, "Not Found")
        if fault := self.world.fault("download", None):
            return await BEFORE[fault.do](self.world.pid, request, fault)
        return web.Response(body=self.world.files[request.match_info["path"]])

    async def control(self, request: web.Request) -> web.Response:
        asked = json.loads(await request.read() or b"{}")
        return web.json_response(getattr(self, f"control_{request.match_info['what']}")(**asked))

    def control_push(self, updates: list[dict[str, Any]]) -> Any:
        return [self.world.add_update(update) for update in updates]

    def control_say(self, chat: int, message: dict[str, Any], edits: int = 0) -> Any:
        world = self.world
        if edits:
            message = world.messages[chat][edits] | message | {"edit_date": int(time.time())}
        else:
            message = world.add_message(chat, message)
        update = world.add_update({"edited_message" if edits else "message": message})
        return {"update": update, "message": message["message_id"]}

    def control_press(self, chat: int, message: int, sender: dict[str, Any], data: str) -> Any:
        world = self.world
        callback = f"callback{world.next_update}"
        world.callbacks.add(callback)
        about = {"message_id": message, "chat": chat_of(chat), "date": 0}
        query = {"id": callback, "from": sender, "message": about, "data": data, "chat_instance": "1"}
        return {"update": world.add_update({"callback_query": query}), "callback": callback}

    def control_file(self, name: str, text: str) -> Any:
        self.world.files[name] = text.encode("latin-1")

    def control_set(self, **values: Any) -> Any:
        for name, value in values.items():
            setattr(self.world, name, value)

    def control_fault(self, **values: Any) -> Any:
        self.world.faults.append(Fault(**values))

    def control_block(self, chat: int) -> Any:
        self.world.blocked.add(chat)

    def control_forget_message(self, chat: int, message: int) -> Any:
        del self.world.messages[chat][message]

    def control_clear(self) -> Any:
        pid = self.world.pid
        self.world = World(next_update=self.world.next_update + 1000, pid=pid)

    def control_look(self, calls_from: int = 0, sent_from: int = 0) -> Any:
        world = self.world
        return {
            "sent": world.sent[sent_from:],
            "calls": world.calls[calls_from:],
            "commands": world.commands,
            "unconfirmed": len(world.updates),
            "faults": [fault.do for fault in world.faults],
            "polls": world.polls,
            "now": time.monotonic(),
        }

    def control_given(self) -> Any:
        return self.world.given


def _is_file(value: object) -> bool:
    return isinstance(value, dict) and "bytes" in value


def _id(update: dict[str, Any]) -> int:
    number = update.get("update_id")
    return number if type(number) is int else 0


async def read_parameters(request: web.Request) -> Params:
    """The parameters, from the URL and the body, with what is JSON in them read and files whole."""
    found: Params = dict(request.query)
    if request.content_type == "multipart/form-data":
        async for part in await request.multipart():
            data = await part.read()
            if part.filename:
                found[part.name] = {"name": part.filename, "bytes": bytes(data)}
            else:
                found[part.name] = bytes(data).decode()
        for name, value in list(found.items()):  # a file may stand under a name of its own
            if isinstance(value, str) and value.startswith("attach://"):
                found[name] = found.pop(value.removeprefix("attach://"))
    else:
        found |= dict(await request.post())
    for name, value in found.items():
        if isinstance(value, str) and name not in ("text", "callback_query_id", "file_id"):
            with contextlib.suppress(ValueError):
                found[name] = json.loads(value)
    return found


async def serve() -> None:
    runner = web.AppRunner(Server().application(), access_log=None, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
