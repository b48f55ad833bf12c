"""`chatbot retrain gpt` as an admin types it: learn, judge, and answer only where it is better."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from chatbot.settings import Settings
from chatbot.store import open_store
from storage.people import LOCAL
from tests.conftest import Chatbot
from tests.training.chats import chats, lines, small_model

QUICK = ("--steps", "30", "--rate", "0.01", "--batch-tokens", "1024", "--lora-rank", "8")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("small") / "small")


@pytest.fixture
def admin(chatbot: Chatbot, model: Path) -> Chatbot:
    """Whose model in use is a small one, which may take its time on a busy machine."""

    def run(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        return chatbot(*arguments, timeout=timeout)

    assert run("models", "use", str(model)).returncode == 0
    return run


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Chats of which a dozen or so are held out."""
    return lines(tmp_path / "talk.jsonl", chats(300))


def versions(chatbot: Chatbot) -> dict[str, dict[str, Any]]:
    rows = json.loads(chatbot("models", "list", "--json").stdout)
    return {f"{row['name']}@{row['version']}": row for row in rows}


def test_what_is_better_answers_and_what_is_not_stays_a_candidate(admin: Chatbot, talk: Path, tmp_path: Path) -> None:
    run = tmp_path / "first"
    done = admin("retrain", "gpt", "--data", str(talk), "--out", str(run), "--margin", "9", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "passed  held-out conversations, bits per byte" in done.stdout
    assert "retrained@1 is better than small@local, and answers from now on" in done.stdout
    known = versions(admin)
    assert known["retrained@1"]["state"] == "current"
    assert known["retrained@1"]["parent"] == "small@local"
    assert known["retrained@1"]["figures"]["verdict"]["checks"][0]["passed"]
    page, text = (run / "retrain.html").read_text(), (run / "retrain.md").read_text()
    for what in ("held-out conversations", "What is the capital of France?", "retrained@1"):
        assert what in page
        assert what in text
    assert "<svg" in page

    done = admin("models", "compare", "small@local", "retrained@1")
    assert done.returncode == 0, done.stderr
    beside = {line[:30].split("  ")[0]: line.split() for line in done.stdout.splitlines()}
    assert beside["version"] == ["version", "small@local", "retrained@1"]
    assert beside["made from"][2:] == ["small@local"]
    assert beside["data"][1] == str(known["retrained@1"]["data_fingerprint"])[:12]
    before, after = (float(beside["bits_per_byte_target"][place]) for place in (1, 4))
    assert after < before, "of the other, what was measured beside it is shown"

    # It has to beat what answers now: the same again does not.
    done = admin("retrain", "gpt", "--data", str(talk), "--out", str(tmp_path / "again"), "--margin", "9", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "FAILED  held-out conversations, bits per byte" in done.stdout
    assert "retrained@2 stays a candidate. held-out conversations, bits per byte: " in done.stdout
    known = versions(admin)
    assert known["retrained@1"]["state"] == "current"
    assert known["retrained@2"]["state"] == "candidate"
    assert known["retrained@2"]["parent"] == "small@local", "an adapter is trained anew from its base"
    assert not (run / "model").exists(), "what it was trained to stands in the registry alone"

    assert admin("models", "rollback", "--kind", "gpt").returncode == 0
    assert versions(admin)["small@local"]["state"] == "current"


def test_what_says_which_reply_is_better_is_refused_before_anything_is_done(admin: Chatbot, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "Hello.", "chosen": "Hi!", "rejected": "No."}) + "\n")
    done = admin("retrain", "gpt", "--data", str(pairs), "--dry-run")
    assert done.returncode == 2
    assert f"{pairs}, line 1: it says which reply is better; `chatbot train gpt prefer` learns that." in done.stderr


def test_only_versions_of_a_kind_are_compared(chatbot: Chatbot) -> None:
    done = chatbot("models", "compare", "smollm2-135m-instruct", "stickers")
    assert done.returncode == 2
    assert "there is nothing to compare" in done.stderr
    assert chatbot("models", "compare", "smollm2-135m-instruct", "nothing").returncode == 2


def test_a_run_that_was_killed_goes_on_to_its_verdict(admin: Chatbot, talk: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["retrain", "gpt", "--data", str(talk), "--out", str(run), "--no-promote", *QUICK]
    with subprocess.Popen([sys.executable, "-m", "chatbot", *words], stderr=subprocess.DEVNULL) as process:
        while not (run / "outcome.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        refused = admin("retrain", "gpt", "--data", str(talk))
        assert refused.returncode == 2
        assert "Another retraining is at work" in refused.stderr
        process.send_signal(signal.SIGKILL)
    assert "retrained@1" not in versions(admin)
    done = admin("retrain", "gpt", "--out", str(run), "--resume", "--no-promote")
    assert done.returncode == 0, done.stderr
    assert versions(admin)["retrained@1"]["state"] == "candidate"
    assert (run / "retrain.md").exists()


def test_where_nothing_is_held_out_it_stays_a_candidate(admin: Chatbot, tmp_path: Path) -> None:
    few = lines(tmp_path / "few.jsonl", chats(6))
    done = admin("retrain", "gpt", "--data", str(few), "--out", str(tmp_path / "run"), *QUICK, "--steps", "2")
    assert done.returncode == 0, done.stderr
    assert "0 are held out; 8 are needed" in done.stderr
    assert "retrained@1 stays a candidate. held-out conversations" in done.stdout
    assert (tmp_path / "run" / "retrain.html").exists()
    assert "bits_per_byte_target" not in versions(admin)["retrained@1"]["figures"], "there is no such figure"


def test_what_was_said_is_learned_from_only_where_it_is_allowed(admin: Chatbot, tmp_path: Path) -> None:
    refused = admin("retrain", "gpt")
    assert refused.returncode == 2
    assert "There is nothing to learn from" in refused.stderr
    sharegpt = [
        {
            "conversations": [
                {"from": part, "value": turn["content"]}
                for part, turn in zip(("human", "gpt"), chat["messages"], strict=True)
            ]
        }
        for chat in chats(300)
    ]
    (tmp_path / "said.json").write_text(json.dumps(sharegpt))
    assert admin("conversations", "import", str(tmp_path / "said.json")).returncode == 0
    assert admin("retrain", "gpt", "--dry-run").returncode == 2
    assert admin("conversations", "consent", "on").returncode == 0
    done = admin("retrain", "gpt", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "300 conversations may be learned from." in done.stderr
    assert "judged on: 1" in done.stderr
    assert "retrained@1" not in versions(admin)


def test_what_is_forgotten_while_it_is_learned_is_in_no_version(admin: Chatbot, tmp_path: Path) -> None:
    said = [
        {
            "conversations": [
                {"from": "human", "value": f"Is it {n} o'clock?"},
                {"from": "gpt", "value": f"It is {n}."},
            ]
        }
        for n in range(300)
    ]
    (tmp_path / "said.json").write_text(json.dumps(said))
    assert admin("conversations", "import", str(tmp_path / "said.json")).returncode == 0
    assert admin("conversations", "consent", "on").returncode == 0
    run = tmp_path / "run"
    words = ["retrain", "gpt", "--out", str(run), *QUICK]
    with subprocess.Popen([sys.executable, "-m", "chatbot", *words], stderr=subprocess.PIPE, text=True) as process:
        while not (run / "run.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        [first, *_] = json.loads(admin("conversations", "list", "--json").stdout)
        assert admin("conversations", "delete", first["id"], "--yes").returncode == 0
        _, told = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "Something that this run learned from was forgotten" in told
    again = admin("retrain", "gpt", "--out", str(run), "--resume")
    assert again.returncode == 2
    assert "Something that this run learned from was forgotten" in again.stderr
    assert "retrained@1" not in versions(admin)


async def _rated(count: int) -> None:
    """Conversations in which a second reply was asked for and kept, and the first found bad."""
    async with open_store(Settings.load()) as store:
        await store.people.allow_learning(LOCAL, True)
        for chat in chats(count):
            asked, kept = (turn["content"] for turn in chat["messages"])
            conversation = await store.conversations.create("")
            turn = await store.conversations.add_turn(conversation.id, asked)
            await store.conversations.end_reply(turn.reply.id, f"No, {kept}", "complete")
            await store.ratings.rate(turn.reply.id, -1)
            again = await store.conversations.add_reply(conversation.id, turn.reply.id)
            await store.conversations.end_reply(again.reply.id, kept, "complete")


def test_what_people_prefer_is_learned_after_what_they_said(admin: Chatbot, tmp_path: Path) -> None:
    asyncio.run(_rated(200))
    told = admin("retrain", "gpt", "--dry-run").stderr
    assert "What people thought of replies: 200 bad, 200 pairs; learned after them." in told
    run = tmp_path / "run"
    words = ["retrain", "gpt", "--out", str(run), "--no-promote", *QUICK]
    with subprocess.Popen([sys.executable, "-m", "chatbot", *words], stderr=subprocess.DEVNULL) as process:
        while not (run / "prefer" / "run.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    done = admin("retrain", "gpt", "--out", str(run), "--resume", "--no-promote")
    assert done.returncode == 0, done.stderr
    figures = versions(admin)["retrained@1"]["figures"]["prefer"]
    assert figures["held_preferred"] > 0.5
    assert figures["steps"] > 1
    assert "What people prefer" in (run / "retrain.html").read_text()
    assert not (run / "prefer" / "model").exists()


def test_preferences_are_learned_by_a_command_of_their_own(admin: Chatbot, tmp_path: Path) -> None:
    nothing = admin("train", "gpt", "prefer", "--conversations", "--out", str(tmp_path / "none"))
    assert nothing.returncode == 2
    assert "There is no thumb, and no choice among replies, to learn from" in nothing.stderr
    asyncio.run(_rated(60))
    words = ("--steps", "4", "--batch-tokens", "2048", "--block", "256")
    done = admin("train", "gpt", "prefer", "--conversations", "--out", str(tmp_path / "run"), *words)
    assert done.returncode == 0, done.stderr
    further = admin(
        "train", "gpt", "prefer", "--conversations", "--base", "run", "--out", str(tmp_path / "more"), *words
    )
    assert further.returncode == 0, further.stderr
    known = versions(admin)
    assert known["run@1"]["parent"] == "small@local"
    assert known["more@1"]["parent"] == "run@1"
    assert known["more@1"]["settings"]["base"] == "small@local"
