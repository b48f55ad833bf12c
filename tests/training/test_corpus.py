"""What may be learned from: read, cleaned, redacted, and held out."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from chatbot.errors import UserError
from chatbot.gpt import reading
from chatbot.gpt.corpus import Report, clean, own_conversations
from chatbot.gpt.duplicates import Duplicates
from chatbot.gpt.options import finetuning, pretraining
from chatbot.gpt.preferences import own_preferences
from chatbot.gpt.prepare import prepare
from chatbot.gpt.redaction import redacted
from chatbot.gpt.samples import Dialogue, Text, Turn, is_held_out
from chatbot.settings import Settings
from chatbot.store import Store, open_store
from storage.people import LOCAL
from tests.training.chats import chats, lines, prose, small_model, text_file

ASKED = {"role": "user", "content": "What is it?"}
REPLIED = {"role": "assistant", "content": "It is this."}


def silent(*said: object) -> None:
    """Hears everything and says nothing."""


def samples(path: Path) -> list[Text | Dialogue]:
    return list(reading.read(reading.files([path])))


def test_every_kind_of_file_gives_the_same_conversation(tmp_path: Path) -> None:
    said = [ASKED, REPLIED]
    shapes = {
        "messages.jsonl": {"messages": said},
        "sharegpt.jsonl": {
            "conversations": [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "It is this."}]
        },
        "alpaca.jsonl": {"instruction": "What is it?", "input": "", "output": "It is this."},
    }
    for name, entry in shapes.items():
        lines(tmp_path / name, [entry])
    (tmp_path / "array.json").write_text(json.dumps([shapes["alpaca.jsonl"]]))
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": said}]), tmp_path / "table.parquet")
    turns = (Turn("user", "What is it?"), Turn("assistant", "It is this."))
    found = samples(tmp_path)
    assert len(found) == 5
    assert all(isinstance(one, Dialogue) and one.turns == turns for one in found)


def test_a_text_file_is_cut_at_empty_lines_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    path = text_file(tmp_path)
    found = samples(path)
    assert len(found) > 5
    assert "".join("".join(one.content.split()) for one in found) == "".join(path.read_text().split())
    assert all(reading.TEXT_SIZE / 2 < len(one.content) < 2 * reading.TEXT_SIZE for one in found[:-1])


def test_a_huge_line_of_text_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    with path.open("w") as file:
        for number in range(1000):
            file.write(f"{number:05d} " * 10_000)
    assert path.stat().st_size == 60_000_000
    tracemalloc.start()
    longest = count = 0
    for one in reading.read([path]):
        longest, count = max(longest, len(one.content)), count + 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 3000
    assert longest < 20_000
    assert peak < 12_000_000


BAD: dict[str, tuple[bytes, str]] = {
    "empty.jsonl": (b"", "empty.jsonl is empty"),
    "one.jsonl": (json.dumps({"messages": [ASKED, REPLIED]}).encode(), "only one text or conversation"),
    "silent.jsonl": (b'\n{"messages": [{"role": "user", "content": "a"}]}', "line 2: the assistant says nothing"),
    "alone.jsonl": (b'{"messages": [{"role": "assistant", "content": "a"}]}', "line 1: nobody asks"),
    "roles.jsonl": (b'{"messages": [{"role": "robot", "content": "a"}]}', "line 1: message 1 has the role 'robot'"),
    "broken.jsonl": (b'{"text": "a"}\n{"text": "b', "broken.jsonl, line 2: it is no JSON"),
    "mixed.jsonl": (b'{"text": "\xc3\xbc"}\n{"text": "\xfc"}\n', "mixed.jsonl, line 2: it is not UTF-8 (0xfc)"),
    "mixed.txt": (("grün\n" * 9).encode() + b"gr\xfcn\n", "mixed.txt, line 10: it is not UTF-8"),
    "other.jsonl": (b'{"question": "a"}', "line 1: it has neither messages"),
    "number.jsonl": (b'{"messages": [{"role": "user", "content": 3}]}', "line 1: message 1 is no text"),
    "half.jsonl": (b'{"text": "\\ud83d"}', "half a character"),
    "table.parquet": (b"PAR1 not really", "table.parquet is no Parquet file"),
    "binary.txt": (b"abc\n\0\0", "binary.txt, line 2: it is no text"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_named_by_file_and_line(name: str, tmp_path: Path) -> None:
    content, reason = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    base = small_model(tmp_path / "base")
    with pytest.raises(UserError) as caught:
        prepare(
            finetuning("lora", data=(str(path),), base_folder=str(base)),
            tmp_path / "data", [], Report(), silent, silent,
        )  # fmt: skip
    assert reason in str(caught.value)
    assert not (tmp_path / "data").exists()
    assert not list(tmp_path.glob("data.partial*"))


def test_a_line_of_json_too_long_to_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_LINE", 2**16)
    path = tmp_path / "long.jsonl"
    path.write_text('{"text": "a"}\n{"text": "' + "a" * 2**18 + '"}\n')
    with pytest.raises(UserError, match=r"long.jsonl, line 2: it is longer"):
        samples(path)


def test_pretraining_says_that_a_conversation_is_for_fine_tuning(tmp_path: Path) -> None:
    path = lines(tmp_path / "chats.jsonl", chats(3))
    with pytest.raises(UserError, match="line 1: it is a conversation"):
        prepare(pretraining("nano", data=(str(path),)), tmp_path / "data", [], Report(), silent, silent)


def test_exact_and_near_duplicates_are_learned_once() -> None:
    seen = Duplicates()
    text = prose(5, 40)
    changed = text.replace("the", "that", 1)
    assert seen.look(text) == "new"
    assert seen.look(f"  {text.upper()}\n") == "same"
    assert seen.look(changed) == "near"
    assert seen.look(prose(6, 40)) == "new"
    assert [seen.look(short) for short in ("Yes.", "yes. ", "Yes!", "No.")] == ["new", "same", "new", "new"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to ada.lovelace+x@mail.example.org.", "e-mail"),
        ("call +49 30 901820 now", "phone"),
        ("call (555) 123-4567", "phone"),
        ("card 4111 1111 1111 1111 please", "card"),
        ("from 8.8.8.8", "ip"),
        ("from 2001:4860:4860::8888", "ip"),
        ("key sk-proj-abcdefghij0123456789XYZ", "key"),
        ("token 123456789:AAEhBOweik6ad9r_QXMENQjcrGbqCr4K-bc", "key"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "key"),
        ("AKIAIOSFODNN7EXAMPLE", "key"),
    ],
)
def test_personal_data_is_redacted_and_counted(text: str, kind: str) -> None:
    counts: Counter[str] = Counter()
    assert f"[{kind}]" in redacted(text, counts)
    assert counts == {kind: 1}


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1 and 192.168.0.1 and ::1 are nobody's",
        "in 1914-1918, at 12:30:15, 3.141592653589793",
        "order 4111 1111 1111 1112 fails the checksum",
        "version 2.8.10 of 2026-11-25 has 1,234,567 lines",
        "std::vector<int> at http://example.org:8080/a-b",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    counts: Counter[str] = Counter()
    assert redacted(text, counts) == text
    assert not counts


def test_the_side_of_a_sample_never_changes() -> None:
    held = [number for number in range(2000) if is_held_out(Text(f"text {number}", ""))]
    assert held[:5] == [106, 108, 110, 111, 123], "as in every version of the program"
    assert 60 < len(held) < 140
    one = Dialogue((Turn("user", "text 1"), Turn("assistant", "yes")), "here")
    fork = Dialogue((Turn("system", "s"), Turn("user", " TEXT 1 "), Turn("assistant", "no")), "there")
    assert is_held_out(one) == is_held_out(fork) == is_held_out(Text("text 1", ""))


def test_what_is_held_out_is_in_no_row_that_is_trained_on(tmp_path: Path) -> None:
    path = lines(tmp_path / "chats.jsonl", chats(200))
    base = small_model(tmp_path / "base")
    report = Report()
    data = prepare(
        finetuning("lora", data=(str(path),), base_folder=str(base), block=128),
        tmp_path / "data", [], report, silent, silent,
    )  # fmt: skip
    tokenizer = data.tokenizer()
    learned = "".join(tokenizer.decode(data.train[row]["input_ids"]) for row in range(len(data.train)))
    held = "".join(tokenizer.decode(data.held[row]["input_ids"]) for row in range(len(data.held)))
    assert report.held_out > 2
    for entry in chats(200):
        question = entry["messages"][0]["content"]
        assert (question in learned, question in held) in ((True, False), (False, True))


def with_store(act: Callable[[Store], object]) -> None:
    async def run() -> None:
        async with open_store(Settings.load()) as store:
            await act(store)  # type: ignore[misc]  # it is awaited in each case

    asyncio.run(run())


async def said(store: Store, person: str, question: str, reply: str, status: str = "complete") -> str:
    conversation = await store.conversations.create("Be kind.", person=person)
    turn = await store.conversations.add_turn(conversation.id, question)
    await store.conversations.end_reply(turn.reply.id, reply, status)  # type: ignore[arg-type]  # one of them, by name
    return turn.reply.id


def test_only_what_people_allowed_and_nothing_forgotten_is_learned() -> None:
    async def act(store: Store) -> None:
        other = await store.people.get_or_add("telegram", "7", "Ada")
        await said(store, LOCAL, "mine", "my reply")
        kept = await said(store, other.id, "hers", "her reply")
        bad = await said(store, other.id, "again", "a bad reply")
        await store.ratings.rate(bad, -1, person=other.id)
        await said(store, other.id, "cut", "a cut", "stopped")
        report = Report()
        assert await own_conversations(store, report) == []
        assert report.left_out == {"conversations of people who did not allow it": 4}
        await store.people.allow_learning(other.id, True)
        [found] = await own_conversations(store, report)
        assert found.turns == (Turn("system", "Be kind."), Turn("user", "hers"), Turn("assistant", "her reply"))
        assert kept in found.ids
        learning = Settings.load().learning_folder
        (learning / "run").mkdir(parents=True)
        await store.forgetting.person(other.id)
        assert await own_conversations(store, Report()) == []
        assert not learning.exists(), "what training keeps of conversations is forgotten with them"

    with_store(act)


def test_in_a_group_everyone_who_spoke_has_to_allow_it() -> None:
    async def act(store: Store) -> None:
        group = await store.people.get_or_add("telegram", "-5001", "Tea")
        ada, bob = [await store.people.get_or_add("telegram", number, "") for number in ("7", "8")]
        for one in (group, ada):
            await store.people.allow_learning(one.id, True)
        replies = []
        for author in (ada, bob):
            replies.append(await said(store, group.id, f"said by {author.id}", "a reply"))
            [question, _] = await store.conversations.path(replies[-1])
            await store.chats.said_by(question.id, author.id)
            await store.ratings.rate(replies[-1], 1, person=ada.id)
        report = Report()
        [found] = await own_conversations(store, report)
        assert found.turns[1].content == f"said by {ada.id}"
        assert report.left_out == {"conversations in which someone spoke who did not allow it": 1}
        [rated] = await own_preferences(store)
        assert rated.ids == found.ids
        paths = [[message.id for message in await store.conversations.path(reply)] for reply in replies]
        assert [await store.conversations.learnable(path) for path in paths] == [True, False]

    with_store(act)


def test_cleaning_counts_what_it_leaves_out() -> None:
    report = Report()
    text = prose(9, 40)
    given = [
        Text(text, "1"),
        Text(text, "2"),
        Text(text + " End.", "3"),
        Text("mail a@example.org", "4"),
        Text(" ", "5"),
    ]
    kept = list(clean(given, report))
    assert len(kept) == 2
    assert report.left_out == {"duplicates": 1, "near duplicates": 1, "empty": 1}
    assert report.redacted == {"e-mail": 1}
    assert report.learned + report.held_out == 2
