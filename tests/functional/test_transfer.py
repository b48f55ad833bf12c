"""Conversations carried away and brought in: nothing is lost on the way, and nothing comes twice."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
import zipfile
from collections.abc import Awaitable, Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from chatbot.errors import UserError
from chatbot.events import Usage
from chatbot.settings import Settings
from chatbot.store import Store, open_store
from chatbot.text import clean
from chatbot.transfer.keep import keep
from chatbot.transfer.read import parse
from chatbot.transfer.shape import EARLIEST, LATEST
from chatbot.transfer.write import export
from storage.errors import StorageError
from tests.conftest import Chatbot

TEXT = st.text(max_size=30).map(clean)
MOMENT = (
    st.datetimes(min_value=EARLIEST.replace(tzinfo=None), max_value=LATEST.replace(tzinfo=None) - timedelta(days=1))
    | st.sampled_from([datetime(1970, 1, 1), datetime(8999, 12, 31, 23, 59, 59, 999999)])
).map(lambda at: f"{at.isoformat()}Z")
USAGE = st.dictionaries(st.sampled_from([*Usage.__dataclass_fields__, "a"]), st.integers(0, 9) | st.floats(0, 1))
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
            "usage": draw(st.none() | USAGE),
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


@settings(max_examples=25, deadline=None)
@given(CONVERSATIONS, st.data())
def test_a_longer_version_of_what_is_there_is_the_same_as_that_version_alone(
    tmp_path_factory: pytest.TempPathFactory,
    empty_home: Path,
    content: tuple[dict[str, Any], ...],
    data: st.DataObject,
) -> None:
    earlier = deepcopy(content)
    for one in earlier:
        said = one["messages"]
        shown = [message["id"] for message in said].index(one["shown"]) if one["shown"] else -1
        while shown > 0 and data.draw(st.booleans()):
            parents = [message["id"] for message in said]
            shown = parents.index(said[shown]["parent"]) if said[shown]["parent"] else -1
        one["shown"] = said[shown]["id"] if shown >= 0 else None
        del said[data.draw(st.integers(shown + 1, len(said))) :]
    home = shutil.copytree(empty_home, tmp_path_factory.mktemp("home") / "first")

    async def bring(store: Store) -> None:
        for version in (earlier, content):
            file = json.dumps({"format": "chatbot", "version": 1, "conversations": version}).encode()
            for shape in parse(file):
                await keep(store, shape)
        again = json.loads(await written(store))["conversations"]
        for one, before, wanted in zip(again, earlier, content, strict=True):
            assert one["messages"] == wanted["messages"]
            grown = {message["id"] for message in wanted["messages"][len(before["messages"]) :]}
            assert one["shown"] == (wanted["shown"] if wanted["shown"] in grown else before["shown"])

    in_a_store(bring, home)


def test_a_newer_export_of_a_known_conversation_shows_what_was_said_since(tmp_path: Path) -> None:
    now = datetime.now(UTC)

    def version(length: int, shown: str, title: str = "") -> bytes:
        at = [f"{(now + timedelta(minutes=number)).isoformat()}" for number in range(length)]
        said: list[dict[str, Any]] = [
            {"id": f"m{number}", "parent": f"m{number - 1}" if number else None, "text": str(number)}
            | {"role": ("user", "assistant")[number % 2], "created": at[number]}
            for number in range(length)
        ]
        one = {"id": "c", "title": title, "created": at[0], "updated": at[-1], "shown": shown, "messages": said}
        return json.dumps({"format": "chatbot", "version": 1, "conversations": [one]}).encode()

    async def bring(store: Store) -> None:
        for length, shown, wanted, added in [
            (2, "m1", "m1", 2),
            (4, "m3", "m3", 2),
            (4, "m3", "m3", 0),
            (2, "m1", "m3", 0),  # an older one changes nothing
            (6, "m1", "m3", 2),  # another branch was shown there: what is shown here stays
        ]:
            [shape] = parse(version(length, shown, "later" if length > 2 else ""))
            assert await keep(store, shape) == added
            conversation = await store.conversations.get("c")
            assert conversation.leaf_id == wanted
            assert conversation.updated == now + timedelta(minutes=3 if length > 2 or wanted == "m3" else 1)
            assert conversation.title == ("later" if wanted == "m3" else "")

    in_a_store(bring, tmp_path)


def one_message(**more: Any) -> dict[str, Any]:
    at = "2026-01-01T00:00:00Z"
    message = {"id": "m", "parent": None, "role": "assistant", "text": "hi", "created": at}
    return {"id": "c", "title": "", "created": at, "updated": at, "shown": "m", "messages": [message]} | more


def with_message(**more: Any) -> dict[str, Any]:
    conversation = one_message()
    conversation["messages"][0] |= more
    return conversation


def a_file(file_id: str = "f", **more: Any) -> dict[str, Any]:
    fields = {"name": "n", "media_type": "text/plain", "sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}
    return {"id": file_id, **fields, "data": base64.b64encode(b"x").decode(), **more}


LIKED = {"value": 1, "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z"}


def ours(*conversations: dict[str, Any]) -> bytes:
    return json.dumps({"format": "chatbot", "version": 1, "conversations": conversations}).encode()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (ours(with_message(attachments=[a_file(size=10**30, data=None)])), "attachments.0.size"),
        (ours(with_message(attachments=[a_file(sha256="\ud800")])), "attachments.0.sha256"),
        (ours(with_message(attachments=[a_file(), a_file()])), "the attachment 'f' twice"),
        (ours(with_message(feedback=[LIKED, LIKED])), "feedback of the same person twice"),
        (ours(one_message(), one_message(id="d")), "message 'm' stands in another conversation"),
        (
            ours(
                with_message(attachments=[a_file()]),
                one_message(
                    id="d", shown="n", messages=[with_message(id="n", attachments=[a_file()])["messages"][0]]
                ),
            ),
            "attachment 'f' belongs to another message",
        ),
        (ours(one_message(updated="0001-01-01T00:00:00+14:00")), "updated: .*between the years 1970 and 9000"),
        (ours(one_message(updated="9999-12-31T23:59:59Z")), "updated: .*between the years 1970 and 9000"),
        (ours(one_message(id="-c")), "conversations.0.id"),
    ],
)
def test_a_file_with_something_wrong_in_it_is_refused_in_a_sentence_that_names_it(
    tmp_path: Path, empty_home: Path, content: bytes, why: str
) -> None:
    async def bring(store: Store) -> None:
        with pytest.raises((UserError, StorageError), match=why) as refused:
            for shape in parse(content):
                await keep(store, shape)
        assert not isinstance(refused.value.__cause__, DBAPIError)
        await written(store)

    in_a_store(bring, shutil.copytree(empty_home, tmp_path / "copy"))


def test_what_cannot_be_written_again_is_left_out_of_what_comes_in(tmp_path: Path) -> None:
    deep: Any = "bottom"
    for _ in range(900):
        deep = [deep]
    usage = {"prompt_tokens": 3, "load_s": None, "first_token_s": "\ud800", "cached_tokens": 10**40}
    details = {"deep": deep, "half\ud800": "a\ud83d", "large": 10**40, "width": 3, "kept": [True, None, 1.5]}
    content = ours(with_message(text="a\ud800b", usage=usage, attachments=[a_file(details=details)]))
    content = content.replace(b'"load_s": null', b'"load_s": Infinity')

    async def bring(store: Store) -> None:
        [shape] = parse(content)
        await keep(store, shape)
        exported = json.loads(await written(store))
        [message] = exported["conversations"][0]["messages"]
        assert (message["text"], message["usage"]) == ("ab", {"prompt_tokens": 3})
        kept = message["attachments"][0]["details"]
        assert kept.pop("deep")
        assert kept == {"half": "a", "large": None, "width": 3, "kept": [True, None, 1.5]}
        assert json.loads(ours(*exported["conversations"])) == exported

    in_a_store(bring, tmp_path)


def test_the_files_of_messages_that_are_there_already_are_left_alone(tmp_path: Path) -> None:
    async def bring(store: Store) -> None:
        await keep(store, parse(ours(with_message(attachments=[a_file()])))[0])
        assert await keep(store, parse(ours(with_message(attachments=[a_file("f"), a_file("unknown")])))[0]) == 0
        assert [path.name for path in (tmp_path / "attachments").rglob("*") if path.is_file()] == ["f"]

    in_a_store(bring, tmp_path)


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


def test_a_ring_of_chatgpt_is_entered_and_children_that_are_none_do_no_harm() -> None:
    mapping = {
        "u": node("u", "a", "user", "Round"),
        "a": node("a", "u", "assistant", "and round"),
        "lone": node("lone", None, "user", "apart") | {"children": [["x"], None, {"y": 1}]},
        "below": node("below", "lone", "assistant", "under it"),
    }
    [shape] = parse(json.dumps([{"title": "Ring", "mapping": mapping}]).encode())
    by_id = {message.id: message for message in shape.messages}
    told = {m.text: by_id[m.parent].text if m.parent else None for m in shape.messages}
    assert told == {"Round": None, "and round": "Round", "apart": None, "under it": "apart"}


def test_conversations_of_chatgpt_without_ids_that_begin_at_the_same_node_stay_apart(tmp_path: Path) -> None:
    def talk(text: str, *more: dict[str, Any]) -> dict[str, Any]:
        root: dict[str, Any] = {"id": "client-created-root", "message": None, "parent": None, "children": []}
        said = node(text, "client-created-root", "user", text)
        return {"create_time": 1.7e9, "mapping": {one["id"]: one for one in (root, said, *more)}}

    async def bring(store: Store) -> None:
        for entry, added in [
            (talk("one"), 1),
            (talk("two"), 1),
            (talk("one"), 0),
            (talk("one", node("reply", "one", "assistant", "1")), 1),
        ]:
            [shape] = parse(json.dumps([entry]).encode())
            assert await keep(store, shape) == added
        assert {c.title for c in await store.conversations.list()} == {"one", "two"}

    in_a_store(bring, tmp_path)


@pytest.mark.parametrize("moment", [2.4e11, -1e9, -1e11, 1e300, "NaN"])
def test_a_moment_of_chatgpt_that_is_none_is_now(moment: Any) -> None:
    [shape] = parse(json.dumps([CHATGPT | {"create_time": moment, "update_time": moment}]).encode())
    assert EARLIEST <= shape.created < LATEST


def test_of_the_places_where_sharegpt_may_have_its_messages_the_one_that_has_some_counts() -> None:
    said = [{"role": "user", "content": "half\ud800"}]
    [shape] = parse(json.dumps({"conversations": "str", "messages": said, "title": "\ud83d"}).encode())
    assert [message.text for message in shape.messages] == ["half"]


def test_sharegpt_and_chat_messages_come_in_by_line_or_array(tmp_path: Path) -> None:
    share = {"id": "x", "conversations": [{"from": "system", "value": "Be."}, {"from": "human", "value": "Hi"}]}
    share["conversations"].append({"from": "gpt", "value": "Hello"})  # type: ignore[attr-defined]  # of JSON
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
