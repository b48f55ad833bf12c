"""Conversations carried away and brought in: nothing is lost on the way, and nothing comes twice."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
import zipfile
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.settings import Settings
from chatbot.store import Store, open_store
from chatbot.text import clean
from chatbot.transfer.keep import keep
from chatbot.transfer.read import parse
from chatbot.transfer.write import export
from tests.conftest import Chatbot

TEXT = st.text(max_size=30).map(clean)
MOMENT = st.datetimes(min_value=datetime(1990, 1, 1)).map(lambda at: f"{at.isoformat()}Z")
PERSON = st.builds(
    lambda number: {"platform": "telegram", "external_id": str(number), "name": f"P{number}"}, st.integers(0, 2)
) | st.just({"platform": "local", "external_id": "", "name": ""})


@st.composite
def conversation(draw: st.DrawFn, number: int) -> dict[str, Any]:
    """A conversation as a file holds it: any tree, with all that may hang on it."""
    ids = [f"{number}-{index}" for index in range(draw(st.integers(0, 6)))]
    said = []
    for index, message_id in enumerate(ids):
        role = draw(st.sampled_from(["user", "assistant"]))
        data = draw(st.binary(max_size=20))
        message = {
            "id": message_id,
            "parent": draw(st.sampled_from([None, *ids[:index]])),
            "role": role,
            "text": draw(TEXT),
            "status": draw(st.sampled_from(["complete", "stopped", "interrupted", "failed"])),
            "created": draw(MOMENT),
            "model": draw(st.none() | TEXT),
            "finish_reason": draw(st.sampled_from([None, "stop", "length"])),
            "usage": draw(st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(0, 9) | st.floats(0, 1))),
            "error": draw(st.none() | TEXT),
            "pinned": draw(st.booleans()),
            "feedback": [],
            "attachments": [],
            "summary": None,
        }
        if role == "assistant" and draw(st.booleans()):
            fields = {"value": draw(st.sampled_from([-1, 1])), "note": draw(TEXT)}
            message["feedback"] = [
                {"person": draw(PERSON), **fields, "created": draw(MOMENT), "updated": draw(MOMENT)}
            ]
        if draw(st.booleans()):
            message["attachments"] = [
                {
                    "id": f"{message_id}-file",
                    "name": draw(TEXT),
                    "media_type": "image/png",
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "details": {"width": draw(st.integers(0, 9))},
                    "data": base64.b64encode(data).decode(),
                }
            ]
        if draw(st.booleans()):
            message["summary"] = {"text": draw(TEXT), "model": "m@1", "created": draw(MOMENT)}
        said.append(message)
    return {
        "id": f"c{number}",
        "title": draw(TEXT),
        "system": draw(TEXT),
        "model": draw(st.sampled_from(["", "m@1"])),
        "person": draw(PERSON),
        "created": draw(MOMENT),
        "updated": draw(MOMENT),
        "shown": draw(st.sampled_from([None, *ids])),
        "messages": said,
    }


CONVERSATIONS = st.integers(0, 3).flatmap(lambda count: st.tuples(*(conversation(number) for number in range(count))))


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a database at the newest schema: making one takes longer than all else here."""
    home = tmp_path_factory.mktemp("empty")
    in_a_store(lambda store: asyncio.sleep(0), home)
    return home


def in_a_store(work: Callable[[Store], Awaitable[Any]], home: Path) -> Any:
    async def run() -> Any:
        async with open_store(Settings.load(home=home)) as store:
            return await work(store)

    return asyncio.run(run())


async def written(store: Store, format: Any = "json") -> str:
    listed = sorted(await store.conversations.list(), key=lambda conversation: conversation.id)
    return "".join([piece async for piece in export(store, listed, format)])


@settings(max_examples=25, deadline=None)
@given(CONVERSATIONS)
def test_what_is_exported_and_imported_is_the_same_again(
    tmp_path_factory: pytest.TempPathFactory, empty_home: Path, content: tuple[dict[str, Any], ...]
) -> None:
    file = json.dumps({"format": "chatbot", "version": 1, "conversations": content}).encode()

    async def bring(data: bytes, store: Store) -> tuple[int, str]:
        added = sum([await keep(store, shape) for shape in parse(data)])
        return added, await written(store)

    home = shutil.copytree(empty_home, tmp_path_factory.mktemp("home") / "first")
    other = shutil.copytree(empty_home, home.with_name("second"))
    added, first = in_a_store(lambda store: bring(file, store), home)
    assert added == sum(len(one["messages"]) for one in content)
    assert json.loads(first)["conversations"] == list(content)
    again, same = in_a_store(lambda store: bring(first.encode(), store), home)
    assert (again, same) == (0, first)
    _, second = in_a_store(lambda store: bring(first.encode(), store), other)
    assert second == first


def node(node_id: str, parent: str | None, role: str, text: Any, **more: Any) -> dict[str, Any]:
    content = text if isinstance(text, dict) else {"content_type": "text", "parts": [text]}
    message = {"id": node_id, "author": {"role": role}, "content": content, "create_time": 1.7e9, **more}
    return {"id": node_id, "message": message, "parent": parent, "children": []}


CHATGPT: dict[str, Any] = {
    "title": "Trip",
    "create_time": 1700000000.5,
    "update_time": 1700000100.0,
    "conversation_id": "abc-def",
    "current_node": "tool",
    "mapping": {
        "root": {"id": "root", "message": None, "parent": None, "children": ["sys"]},
        "sys": node("sys", "root", "system", "", metadata={"is_visually_hidden_from_conversation": True}),
        "u1": node("u1", "sys", "user", "Where to?"),
        "u1b": node("u1b", "sys", "user", "Where shall we go?"),
        "a1": node("a1", "u1", "assistant", "To Rome.", metadata={"model_slug": "gpt-4o"}),
        "a2": node("a2", "u1", "assistant", "To Oslo\x1b[31m.", metadata={"model_slug": "gpt-4o"}),
        "call": node("call", "a2", "assistant", {"content_type": "code", "text": "search()"}, recipient="browser"),
        "result": node("result", "call", "tool", "pages"),
        "think": node("think", "result", "assistant", {"content_type": "thoughts", "thoughts": []}),
        "a3": node("a3", "think", "assistant", "It is cold there."),
        "u2": node(
            "u2",
            "a3",
            "user",
            {"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}, "And this?"]},
        ),
        "tool": node("tool", "u2", "tool", "seen"),
    },
}


def test_the_branches_of_chatgpt_are_kept_and_what_nobody_saw_is_not(tmp_path: Path) -> None:
    for parent, child in [("u1", "a2"), ("u1", "a1"), ("sys", "u1b"), ("sys", "u1")]:
        CHATGPT["mapping"][parent]["children"].append(child)

    async def bring(store: Store) -> None:
        [shape] = parse(json.dumps([CHATGPT]).encode())
        assert await keep(store, shape) == 6
        assert await keep(store, parse(json.dumps([CHATGPT]).encode())[0]) == 0
        [conversation] = await store.conversations.list()
        assert conversation.title == "Trip"
        path = await store.conversations.path(conversation.leaf_id)
        assert [(m.role, m.text, m.position, m.siblings) for m in path] == [
            ("user", "Where to?", 2, 2),
            ("assistant", "To Oslo[31m.", 1, 2),
            ("assistant", "It is cold there.", 1, 1),
            ("user", "[picture]\n\nAnd this?", 1, 1),
        ]
        assert path[1].model == "gpt-4o"

    in_a_store(bring, tmp_path)


def test_sharegpt_and_chat_messages_come_in_by_line_or_array(tmp_path: Path) -> None:
    share = {"id": "x", "conversations": [{"from": "system", "value": "Be."}, {"from": "human", "value": "Hi"}]}
    share["conversations"].append({"from": "gpt", "value": "Hello"})  # type: ignore[attr-defined]
    chat = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}

    async def bring(store: Store) -> None:
        for data in (json.dumps([share, chat]), f"{json.dumps(share)}\n\n{json.dumps(chat)}\n"):
            for shape in parse(data.encode()):
                await keep(store, shape)
        assert len(await store.conversations.list()) == 2
        lines = (await written(store, "jsonl")).splitlines()
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        assert sorted((json.loads(line)["messages"] for line in lines), key=len) == [
            turns,
            [{"role": "system", "content": "Be."}, *turns],
        ]

    in_a_store(bring, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b'{"format": "chatbot", "version": 2, "conversations": []}',
        b'{"format": "chatbot", "version": 1, "conversations": [{"id": "../../x"}]}',
        b'[{"foo": 1}]',
        b"[1]",
        b'{"messages"',
        b"PK\x03\x04 not really",
        b"[" * 100_000,
    ],
)
def test_a_file_that_is_none_is_refused_in_a_sentence(chatbot: Chatbot, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    done = chatbot("conversations", "import", str(tmp_path / "file"))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("chatbot: The ")
    assert done.stderr.count("\n") == 1


def test_the_commands_carry_conversations_from_one_home_to_another(
    chatbot: Chatbot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chatbot("ask", "Where is the 龜?", "--model", "fake")
    chatbot("ask", "--continue", "And the hare?", "--model", "fake")
    [listed] = json.loads(chatbot("conversations", "list", "--json").stdout)
    here = listed["id"]
    assert "Hare and tortoise" in chatbot("conversations", "rename", here, "Hare and tortoise").stdout
    [hit, *_] = json.loads(chatbot("conversations", "search", "龜", "--role", "user", "--json").stdout)
    assert (hit["conversation"], hit["title"]) == (here, "Hare and tortoise")
    assert [hit["snippet"][begin:end] for begin, end in hit["marks"]] == ["龜"]
    assert "the 龜?" in chatbot("conversations", "search", "龜").stdout
    assert "Nothing" in chatbot("conversations", "search", "nonesuch").stderr
    markdown = chatbot("conversations", "export", here, "--format", "markdown").stdout
    assert markdown.startswith("# Hare and tortoise")
    assert "Where is the 龜?" in markdown
    away = tmp_path / "away.json"
    assert chatbot("conversations", "export", "--output", str(away)).returncode == 0
    with zipfile.ZipFile(tmp_path / "chatgpt.zip", "w") as archive:
        archive.writestr("export/conversations.json", json.dumps([CHATGPT]))

    monkeypatch.setenv("CHATBOT_HOME", str(tmp_path / "other"))
    assert "4 messages added, in 1 of 1" in chatbot("conversations", "import", str(away)).stdout
    assert "0 messages added" in chatbot("conversations", "import", "-", stdin=away.read_bytes()).stdout
    assert chatbot("conversations", "export", here).stdout == away.read_text(encoding="utf-8")
    assert "6 messages" in chatbot("conversations", "import", str(tmp_path / "chatgpt.zip")).stdout
    assert chatbot("ask", "--conversation", here, "Go on", "--model", "fake").stdout == "You said: Go on\n"
    assert "--yes" in chatbot("conversations", "delete", here).stderr
    assert "Deleted" in chatbot("conversations", "delete", here, "--yes").stdout
    assert "Deleted: 1 conv" in chatbot("conversations", "delete", "--person", "local", "--yes").stdout
    assert json.loads(chatbot("conversations", "list", "--json").stdout) == []
