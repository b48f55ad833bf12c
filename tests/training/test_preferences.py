"""Learning what people prefer: what is learned from, the arithmetic, and runs."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from chatbot.errors import UserError
from chatbot.gpt.corpus import Report, clean
from chatbot.gpt.dry_run import estimate
from chatbot.gpt.networks import base_model, compute_targets_only
from chatbot.gpt.options import Options, begin_with, finetuning, preferring
from chatbot.gpt.prefer import Preferences, losses, rewards
from chatbot.gpt.preferences import balanced, counted, own_preferences
from chatbot.gpt.prepare import count_preferences
from chatbot.gpt.reading import read
from chatbot.gpt.run import Stopped
from chatbot.gpt.samples import Preference, Turn
from chatbot.settings import Settings
from chatbot.store import Store, open_store
from storage.people import LOCAL
from tests.training.chats import chats, lines, small_model
from tests.training.test_gpt_run import after, same, start, weights

POLITE, RUDE = "I would be glad to help you with that.", "No."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("small") / "small")


@pytest.fixture(autouse=True)
def threads() -> None:
    torch.set_num_threads(1)


def pairs(count: int = 80) -> list[dict[str, Any]]:
    return [
        {"prompt": chat["messages"][0]["content"], "chosen": f"{POLITE} {number}", "rejected": f"{RUDE} {number}"}
        for number, chat in enumerate(chats(count))
    ]


def thumbs(count: int = 80) -> list[dict[str, Any]]:
    return [
        {"prompt": one["prompt"], "completion": one["chosen" if good else "rejected"], "label": good}
        for number, one in enumerate(pairs(count))
        for good in (number % 2 == 0,)
    ]


def options(model: Path, data: Path, **changes: Any) -> Options:
    asked: dict[str, Any] = {
        "data": (str(data),), "base": "small", "base_folder": str(model), "block": 128, "batch_tokens": 1024,
        "lora_rank": 4, "rate": 1e-2, "steps": 20, "evaluations": 2, "precision": "fp32",
    }  # fmt: skip
    return preferring(**asked | changes)


# what is learned from


async def answered(store: Store, question: str, *texts: str) -> tuple[str, list[str]]:
    """A conversation with several replies to the same; ids of it and of them. The last is shown."""
    conversation = await store.conversations.create("", person=LOCAL)
    turn = await store.conversations.add_turn(conversation.id, question)
    await store.conversations.end_reply(turn.reply.id, texts[0], "complete")
    made = [turn.reply.id]
    for text in texts[1:]:
        turn = await store.conversations.add_reply(conversation.id, made[-1])
        await store.conversations.end_reply(turn.reply.id, text, "complete")
        made.append(turn.reply.id)
    return conversation.id, made


def found_by(act: Any) -> list[Preference]:
    async def run() -> list[Preference]:
        async with open_store(Settings.load()) as store:
            await act(store)
            return await own_preferences(store)

    return asyncio.run(run())


def test_the_reply_that_someone_kept_is_better_than_those_beside_it() -> None:
    async def act(store: Store) -> None:
        await store.people.allow_learning(LOCAL, True)
        conversation, made = await answered(store, "Why?", "first", "second", "third")
        await store.conversations.switch(conversation, made[1])

    found = found_by(act)
    assert {(one.good, one.bad) for one in found} == {("second", "first"), ("second", "third")}
    assert all(one.turns == (Turn("user", "Why?", learns=False),) for one in found)


def test_thumbs_say_more_than_what_is_shown() -> None:
    async def act(store: Store) -> None:
        await store.people.allow_learning(LOCAL, True)
        _, made = await answered(store, "Why?", "first", "second")
        await store.ratings.rate(made[0], 1)
        _, made = await answered(store, "And now?", "one", "two")
        await store.ratings.rate(made[0], -1)
        await store.ratings.rate(made[1], -1)

    found = found_by(act)
    assert {(one.good, one.bad) for one in found} == {
        ("first", "second"), ("first", None), (None, "one"), (None, "two")
    }  # fmt: skip


def test_nothing_is_learned_of_those_who_did_not_allow_it_nor_of_what_was_not_finished() -> None:
    async def act(store: Store) -> None:
        await answered(store, "Why?", "first", "second")

    assert found_by(act) == []

    async def allowed(store: Store) -> None:
        await store.people.allow_learning(LOCAL, True)
        conversation, made = await answered(store, "Cut?", "first")
        turn = await store.conversations.add_reply(conversation, made[0])
        await store.conversations.end_reply(turn.reply.id, "half a", "stopped")

    assert {(one.good, one.bad) for one in found_by(allowed)} == {("second", "first")}


def thumb(number: int, good: bool) -> Preference:
    text = f"reply {number}"
    return Preference((Turn("user", "x"),), text if good else None, None if good else text, "here")


def test_thumbs_of_one_side_are_not_learned_and_no_side_outweighs_the_other() -> None:
    left_out: Counter[str] = Counter()
    alone = [thumb(number, True) for number in range(500)] + [thumb(number, False) for number in range(7)]
    pair = Preference((Turn("user", "x"),), "a", "b", "here")
    assert list(balanced(dict.fromkeys([*alone, pair]), left_out)) == [pair]
    assert left_out == {"thumbs that are too few": 507}
    left_out.clear()
    some = [thumb(number, True) for number in range(500)] + [thumb(number, False) for number in range(10)]
    kept = list(balanced(dict.fromkeys(some), left_out))
    assert counted(kept) == {"good": 40, "bad": 10}
    assert left_out == {"thumbs that are too many of one side": 460}
    numbers = [int(one.good.split()[1]) for one in kept if one.good]
    assert numbers[0] < 20
    assert numbers[-1] > 480, "spread over all of them"


def said(asked: str, reply: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same"),
        ({"prompt": "a", "chosen": "b"}, "is no text"),
        ({"prompt": "a", "completion": "b", "label": "yes"}, "neither true nor false"),
        ({"prompt": [], "chosen": "b", "rejected": "c"}, "nobody asks"),
        ({"prompt": "a", "chosen": " ", "rejected": "c"}, "a reply of the assistant"),
        ({"prompt": "a", "chosen": [], "rejected": "c"}, "a reply of the assistant"),
        ({"prompt": "a", "chosen": [{"role": "user", "content": "b"}], "rejected": "c"}, "a reply"),
        ({"chosen": [{"role": "assistant", "content": "b"}], "rejected": "c"}, "nobody asks"),
        ({"chosen": said("a", "b"), "rejected": said("x", "c")}, "different conversations"),
    ],
)
def test_a_bad_preference_gets_a_sentence_that_names_its_line(entry: Any, reason: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "some.jsonl", [pairs(1)[0], entry])
    with pytest.raises(UserError, match=f"some.jsonl, line 2: .*{reason}"):
        list(read([path]))


@pytest.mark.parametrize(
    "entry",
    [
        {"prompt": "hello", "chosen": "hi", "rejected": "no"},
        {"chosen": said("hello", "hi"), "rejected": said("hello", "no")},
        {"prompt": "hello", "chosen": said("hello", "hi"), "rejected": said("hello", "no")},
        {"prompt": said("hello", "x")[:1], "chosen": said("hello", "hi")[1:], "rejected": "no"},
    ],
)
def test_a_prompt_may_stand_beside_the_sides_or_in_both(entry: Any, tmp_path: Path) -> None:
    [found] = read([lines(tmp_path / "some.jsonl", [entry])])
    assert found == Preference((Turn("user", "hello", learns=False),), "hi", "no", found.place)


def test_a_thumb_may_be_on_a_conversation(tmp_path: Path) -> None:
    [found] = read([lines(tmp_path / "some.jsonl", [{"completion": said("hello", "no"), "label": False}])])
    assert found == Preference((Turn("user", "hello", learns=False),), None, "no", found.place)


def test_each_kind_of_data_is_sent_to_its_own_command(model: Path, tmp_path: Path) -> None:
    said = lines(tmp_path / "chats.jsonl", chats(10))
    with pytest.raises(UserError, match=r"line 1: .*`chatbot train gpt finetune`"):
        start(tmp_path / "one", options(model, said))
    rated = lines(tmp_path / "pairs.jsonl", pairs(10))
    asked = finetuning("lora", data=(str(rated),), base="small", base_folder=str(model), block=128)
    with pytest.raises(UserError, match=r"line 1: .*`chatbot train gpt prefer`"):
        start(tmp_path / "two", asked)


# the arithmetic


def test_the_losses_are_those_of_the_papers() -> None:
    beta = 0.1
    gained = torch.tensor([[2.0, -1.0], [3.0, 0.0], [0.0, 5.0]])
    log_p = torch.tensor([[-8.0, -9.0], [-4.0, 0.0], [0.0, -6.0]])
    tokens = torch.tensor([[4, 3], [2, 0], [0, 3]])

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    dpo = -math.log(sigmoid(beta * (2.0 + 1.0))) + 8.0 / 4
    expected = [dpo, 1 - sigmoid(beta * 3.0), 1 - sigmoid(-beta * 5.0)]
    assert losses(gained, log_p, tokens, beta).tolist() == pytest.approx(expected)


def test_rewards_are_the_log_probabilities_of_the_replies_alone(model: Path, tmp_path: Path) -> None:
    """Beside transformers' own forward pass over each reply by itself."""
    data = lines(tmp_path / "mixed.jsonl", pairs(12) + thumbs(40)[20:])
    asked = options(model, data, steps=1, evaluations=1)
    start(tmp_path / "run", asked)
    split = Preferences(tmp_path / "run" / "data" / "train", 128)
    network = base_model(model, "small").eval()
    compute_targets_only(network)
    some = split.batch(range(len(split)))
    with torch.no_grad():
        ours = rewards(network, some)
        for number in range(len(split)):
            for side in range(2):
                ids, labels = some["input_ids"][number, side], some["labels"][number, side]
                learned = labels != -100
                if not learned.any():
                    assert ours[number, side] == 0
                    continue
                logits = network(input_ids=ids[None]).logits[0].log_softmax(-1)
                expected = logits[learned].gather(1, labels[learned][:, None]).sum()
                assert float(ours[number, side]) == pytest.approx(float(expected), rel=1e-4)
    assert torch.allclose(ours, torch.from_numpy(split._reference), atol=1e-3)
    sides = (some["labels"] != -100).any(2)
    ups, downs = (some["weight"][sides[:, side] & ~sides[:, 1 - side]] for side in range(2))
    assert float(ups.sum()) == pytest.approx(float(downs.sum())), "the sides weigh the same"


# runs


@pytest.mark.parametrize("kind", [pairs, thumbs])
def test_what_is_held_out_is_preferred_as_people_do(kind: Any, model: Path, tmp_path: Path) -> None:
    outcome, _ = start(tmp_path / "run", options(model, lines(tmp_path / "some.jsonl", kind(160))))
    rows = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    held = [row for row in rows if "held_loss" in row]
    assert held[-1]["held_preferred"] == 1
    assert held[-1]["held_loss"] < (math.log(2) + 4 if kind is pairs else 0.5)
    assert outcome.figures["held_preferred"] == 1
    assert (outcome.model / "adapter.gguf").exists()
    assert "held_preferred" in (tmp_path / "run" / "report.html").read_text()


def test_an_adapter_is_trained_further_and_a_stopped_run_goes_on_to_the_same_end(model: Path, tmp_path: Path) -> None:
    said = lines(tmp_path / "chats.jsonl", chats(40))
    shape = {"base": "small", "base_folder": str(model), "block": 128, "batch_tokens": 512, "precision": "fp32"}
    asked = finetuning("lora", data=(str(said),), lora_rank=4, steps=3, rate=1e-2, **shape)
    first, _ = start(tmp_path / "first", asked)
    begun = begin_with(first.model)
    assert begun["lora_rank"] == 4
    rated = lines(tmp_path / "pairs.jsonl", pairs(40))
    asked = options(model, rated, **begun, steps=6, batch_tokens=512)
    whole, _ = start(tmp_path / "whole", asked)
    assert not same(weights(tmp_path / "whole"), weights(tmp_path / "first"))
    with pytest.raises(Stopped, match="train gpt prefer"):
        start(tmp_path / "parts", asked, after(2, tmp_path / "parts"))
    start(tmp_path / "parts", None)
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert whole.figures["trained_parameters"] == first.figures["trained_parameters"]


def test_what_it_would_cost_is_said_before_and_what_is_too_long_does_not_count(model: Path, tmp_path: Path) -> None:
    asked = options(model, lines(tmp_path / "some.jsonl", pairs(40)))
    told = estimate(asked, lambda report: [], lambda *said: None, lambda said: None)
    assert any("20 steps of 8 rows" in line for line in told)
    found = [Preference((Turn("user", f"{n}?"),), f"yes {n}", f"no {n}", "here") for n in range(60)]
    long = [Preference((Turn("user", f"{n}!"),), f"yes {n}" * 200, f"no {n}", "here") for n in range(60)]
    some = count_preferences(asked, found)
    assert 40 < some < 60, "some are held out"
    assert count_preferences(asked, found + long) == some


def test_pairs_that_differ_in_personal_data_alone_are_left_out() -> None:
    report = Report()
    one = Preference((Turn("user", "whom?"),), "write to a@b.org", "write to c@d.org", "here")
    assert list(clean([one], report)) == []
    assert report.left_out == {"pairs that differ in personal data alone": 1}
