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
from chatbot.gpt.cutting import LONGEST, SHORTEST
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
    (tmp_path / "marked.json").write_text("\ufeff\n" + json.dumps([shapes["alpaca.jsonl"]], indent=1))
    lines(tmp_path / "null.jsonl", [shapes["alpaca.jsonl"] | {"input": None, "system": None, "messages": None}])
    (tmp_path / "number.jsonl").write_text(json.dumps({"messages": said})[:-1] + ', "id": ' + "1" * 5000 + "}")
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": said}]), tmp_path / "table.parquet")
    turns = (Turn("user", "What is it?"), Turn("assistant", "It is this."))
    found = samples(tmp_path)
    assert len(found) == 8
    assert all(isinstance(one, Dialogue) and one.turns == turns for one in found)


@pytest.mark.parametrize(
    "entry",
    [
        {"prompt": "What is it?", "completion": "It is this."},
        {"prompt": [ASKED], "completion": [REPLIED], "label": None},
        {"prompt": "What", "completion": [{"role": "assistant", "content": "?"}, ASKED, REPLIED]},
    ],
)
def test_a_completion_without_a_label_is_a_conversation(entry: dict[str, object], tmp_path: Path) -> None:
    [found] = samples(lines(tmp_path / "some.jsonl", [entry]))
    assert isinstance(found, Dialogue)
    assert found.turns[-2:] == (Turn("user", "What is it?", learns=False), Turn("assistant", "It is this."))
    assert found.turns[0].content.startswith("What")
    assert found.replies == ["It is this."]


def test_a_text_of_parquet_that_is_not_utf8_is_named_by_its_row(tmp_path: Path) -> None:
    texts = pyarrow.array([b"one", b"\xff", b"three"], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "bad.parquet")
    with pytest.raises(UserError, match=r"bad.parquet, row 2: it cannot be read: 'utf-8' codec can't decode"):
        samples(tmp_path)


def test_a_text_file_is_cut_at_empty_lines_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    path = text_file(tmp_path)
    found = samples(path)
    assert len(found) > 5
    assert "".join("".join(one.content.split()) for one in found) == "".join(path.read_text().split())
    assert all(SHORTEST - 2 <= len(one.content) <= LONGEST for one in found[:-1])  # without the empty line
    assert path.read_text().split("\n\n")[0] in found[0].content
    assert all(one.content.endswith(".") for one in found), "no sentence is cut"


def peak_of_reading(path: Path) -> tuple[list[int], int]:
    """The length of each sample, and bytes of memory."""
    tracemalloc.start()
    lengths = [len(one.content) for one in reading.read([path])]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return lengths, peak


@pytest.mark.parametrize("between", [" ", ""])
def test_a_huge_line_of_text_is_streamed(between: str, tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text(between.join(f"{number * 7919 % 100_003:05d}" for number in range(500_000)))
    lengths, peak = peak_of_reading(path)
    assert len(lengths) > 300
    assert max(lengths) <= LONGEST
    assert peak < path.stat().st_size / 4


def test_a_huge_array_of_json_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    path.write_text(json.dumps([{"text": f"{number} " * 100} for number in range(10_000)]))
    lengths, peak = peak_of_reading(path)
    assert len(lengths) == 10_000
    assert peak < path.stat().st_size / 4


@pytest.mark.parametrize("between", ["\n\n", "\r\n\r\n", "\n", " ", ""])
def test_what_is_inserted_into_a_text_changes_only_the_parts_near_it(between: str, tmp_path: Path) -> None:
    text = prose(3, 6000).replace("\n\n", between)
    if not between:
        text = text.replace(" ", "")
    middle = text.index("." + between, len(text) // 2) + 1 + len(between)
    added = " ".join(prose(4, 30).split()) + between
    path = tmp_path / "text.txt"
    found = []
    for content in (text, added + text, text[:middle] + added + text[middle:]):
        path.write_bytes(content.encode())
        found.append([one.content for one in samples(path)])
    before, *after = found
    assert len(before) > 40
    for parts in after:
        assert len(set(before) - set(parts)) < 8
        assert len(set(parts) - set(before)) < 8


def test_a_mark_ends_a_text_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "marked.txt"
    texts = ["a " * length + "b\n\nend." for length in (2150, 250, LONGEST // 2 - 4, 10, 40_000, 70)]
    path.write_text("<|endoftext|>".join(texts))
    found = [one.content for one in samples(path)]
    assert found[:4] == texts[:4]
    assert found[-1] == texts[-1]
    assert "".join("".join(found[4:-1]).split()) == "".join(texts[4].split())


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
    "deep.jsonl": (b'{"text": "a"}\n' + b"[" * 200_000, "deep.jsonl, line 2: it is nested too deeply"),
    "deep.json": (b'[{"text": "a"},\n' + b"[" * 200_000, "deep.json, line 2: it is nested too deeply"),
    "broken.json": (b'[{"text": "a"},\n\n{"text": "b"]', "broken.json, line 3: it is no JSON: Expecting ','"),
    "cut.json": (b'[{"text": "a"},\n{"text": "b"}\n', "cut.json, line 3: it is no JSON: Expecting ','"),
    "more.json": (b'[{"text": "a"},\n{"text": "b"}]\n{"text": "c"}', "more.json, line 2: something follows the end"),
    "mixed.json": (b'[{"text": "\xc3\xbc"},\n{"text": "\xfc"}]', "mixed.json, line 2: it is not UTF-8 (0xfc)"),
    "none.json": (b"\xef\xbb\xbf [ ]", "nothing to learn from"),
    "unsaid.jsonl": (b'{"prompt": "a", "completion": " "}', "line 1: completion does not end with a reply"),
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


def test_an_entry_of_an_array_too_long_to_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_LINE", 2**20)
    path = tmp_path / "long.json"
    path.write_text('[{"text": "a"},\n{"text": "' + "a" * 2**22 + '"}]')
    with pytest.raises(UserError, match=r"long.json, line 2: it is no JSON: .*, or an entry of more than 1 MiB"):
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
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ\n-----END PGP PRIVATE KEY BLOCK-----", "key"),
        ("at 8.8.8.8:53", "ip"),
        ("http://93.184.216.34:8080/x", "ip"),
        ("IP:8.8.8.8", "ip"),
        ("call 01601234567", "phone"),
        ("call 015112345678", "phone"),
        ("call 06 12 34 56 78", "phone"),
        ("call 06.12.34.56.78", "phone"),
        ("call 0470 12 34 56", "phone"),
        ("call 138-1234-5678", "phone"),
        ("我的电话是13812345678吗", "phone"),
        ("卡号4111111111111111。", "card"),
        ("密钥sk-proj-abcdefghij0123456789XYZ是我的", "key"),
        ("令牌glpat-abcdefghij0123456789是我的", "key"),
        ("地址8.8.8.8是我的", "ip"),
        ("jürgen@müller.de", "e-mail"),
        ("张三@example.org", "e-mail"),
        ("제 번호는 +82 10 1234 5678입니다", "phone"),
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
        "+100 points, +5.25%, 上涨+5.25%, $1,234,567.89",
        "at 2024-05-06 07:08:09.123456, 1714953600 or 1714953600009",
        "ISBN 0-306-40615-2, 0306406152, 978-0-306-40615-7, 9780306402098",
        "order 5551234567, article 012345678905",
        "version 1.2.3.4, 版本1.2.3.4, v1.2.3.4, 10.0.0.1:80",
        "2**64 = 18446744073709551616, 圆周率是3.141592653589793, 2的50次方是1125899906842624",
        "01 02 03 04 05 06 07 08, 在2024-05-06到2025-06-07",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    counts: Counter[str] = Counter()
    assert redacted(text, counts) == text
    assert not counts


def test_what_touches_an_address_stays() -> None:
    after = "是我的邮箱请在收到以后尽快回复我谢谢你的帮助我们下周再见面讨论这个问题"
    assert redacted(f"联系ada@example.org{after}", Counter()) == f"联系[e-mail]{after}"


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
