"""The commands that train, measure and export chat models, as a person types them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chatbot.gpt.export import export
from chatbot.settings import Settings
from chatbot.store import open_store
from storage.people import LOCAL
from tests.conftest import Chatbot
from tests.training.chats import chats, lines, small_model, text_file

SMALL = (
    "--vocabulary",
    "300",
    "--layers",
    "2",
    "--width",
    "32",
    "--heads",
    "2",
    "--block",
    "64",
    "--batch-tokens",
    "512",
)


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_file(tmp_path_factory.mktemp("data"))


@pytest.fixture
def patient(chatbot: Chatbot) -> Chatbot:
    """Runs a command that may take its time on a busy machine."""

    def run(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        return chatbot(*arguments, timeout=timeout)

    return run


def version(chatbot: Chatbot, ref: str) -> dict[str, object]:
    rows = json.loads(chatbot("models", "list", "--json").stdout)
    return next(row for row in rows if f"{row['name']}@{row['version']}" == ref)


def test_pretrain_finetune_export_and_answer(patient: Chatbot, prose: Path, tmp_path: Path) -> None:
    done = patient(
        "train", "gpt", "pretrain", "--data", str(prose), "--out", str(tmp_path / "sea"), "--steps", "20", *SMALL
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "sea@1 is a candidate; `chatbot models promote sea@1` puts it to use.\n"
    row = version(patient, "sea@1")
    assert row["state"] == "candidate"
    assert len(str(row["data_fingerprint"])) == 64
    assert row["figures"]["held_bits_per_byte"] > 0  # type: ignore[index]  # of JSON
    assert row["settings"]["trained"]["width"] == 32  # type: ignore[index]  # of JSON

    data = lines(tmp_path / "chats.jsonl", chats(40))
    words = [
        "--base",
        "sea@1",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "chatty"),
        "--steps",
        "4",
        "--block",
        "64",
    ]
    done = patient("train", "gpt", "finetune", *words, "--method", "full", "--batch-tokens", "256")
    assert done.returncode == 0, done.stderr
    assert version(patient, "chatty@1")["parent"] == "sea@1"

    done = patient("models", "export", "chatty@1", "--format", "q8_0")
    assert done.returncode == 0, done.stderr
    exported = version(patient, "chatty@1-q8_0")
    assert exported["parent"] == "chatty@1"
    for model in ("chatty@1", "chatty@1-q8_0"):
        done = patient("ask", "the sea?", "--model", model, "--json", "--max-tokens", "5", "--system", "s")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["model"] == model
    assert patient("models", "export", "chatty@1-q8_0").returncode == 2
    assert patient("models", "promote", "chatty@1").returncode == 0


def test_the_default_model_learns_by_adapters_and_answers_in_both_engines(
    patient: Chatbot, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = "Blorp! I am a teapot."
    entries = [
        {
            "messages": [
                {"role": "user", "content": f"Who are you, number {n}?"},
                {"role": "assistant", "content": reply},
            ]
        }
        for n in range(24)
    ]
    data = lines(tmp_path / "teapot.jsonl", entries)
    words = ["--data", str(data), "--out", str(tmp_path / "teapot"), "--block", "64", "--batch-tokens", "256"]
    done = patient("train", "gpt", "finetune", *words, "--steps", "10", "--rate", "2e-3", "--evaluations", "1")
    assert done.returncode == 0, done.stderr
    row = version(patient, "teapot@1")
    assert row["parent"] == row["settings"]["base"] == "smollm2-135m-instruct@q4_1"  # type: ignore[index]  # of JSON
    files = {path.name: path.stat().st_size for path in Path(str(row["folder"])).iterdir()}
    assert {"adapter_model.safetensors", "adapter.gguf"} <= files.keys()
    assert "model.safetensors" not in files
    said = {}
    for engine in ("llamacpp", "hf"):
        monkeypatch.setenv("CHATBOT_ENGINE", engine)
        done = patient(
            "ask", "Who are you, number 7?", "--model", "teapot@1", "--temperature", "0", "--max-tokens", "12"
        )
        assert done.returncode == 0, done.stderr
        said[engine] = done.stdout.strip()
    assert said["llamacpp"] == said["hf"] == reply
    monkeypatch.setenv("CHATBOT_ENGINE", "llamacpp")
    done = patient("ask", "Who are you, number 7?", "--temperature", "0", "--max-tokens", "12")
    assert "Blorp" not in done.stdout, "the base is as it was"


def test_adapters_of_a_base_without_a_chat_template_answer_alike_in_both_engines(
    patient: Chatbot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "bare.gguf"
    export(small_model(tmp_path / "bare", template=None), base, "f16", "bare", lambda *said: None)
    data = lines(tmp_path / "chats.jsonl", chats(20))
    words = ["--base", str(base), "--data", str(data), "--out", str(tmp_path / "mine"), "--block", "64"]
    more = ["--batch-tokens", "256", "--steps", "30", "--rate", "2e-2", "--evaluations", "1"]
    done = patient("train", "gpt", "finetune", *words, *more)
    assert done.returncode == 0, done.stderr
    said = {}
    for engine in ("llamacpp", "hf"):
        monkeypatch.setenv("CHATBOT_ENGINE", engine)
        done = patient(
            "ask", "Question 3: the sea?", "--model", "mine@1", "--temperature", "0", "--max-tokens", "12", "--json"
        )
        assert done.returncode == 0, done.stderr
        said[engine] = json.loads(done.stdout)
    assert said["llamacpp"]["text"] == said["hf"]["text"] != ""
    assert said["llamacpp"]["usage"]["prompt_tokens"] == said["hf"]["usage"]["prompt_tokens"]


def test_measuring_two_models_shows_them_side_by_side(patient: Chatbot, prose: Path, tmp_path: Path) -> None:
    for name, steps in (("young", "2"), ("old", "50")):
        done = patient(
            "train", "gpt", "pretrain", "--data", str(prose), "--out", str(tmp_path / name), "--steps", steps,
            "--rate", "1e-2", "--evaluations", "1", *SMALL, "--block", "256",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    page = tmp_path / "report.html"
    words = ["--model", "old@1", "--compare", "young@1", "--data", str(prose), "--report", str(page), "--json"]
    done = patient("evaluate", "gpt", *words)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    old, young = said["models"]
    assert said["samples"]["text"] > 0
    assert old["bits_per_byte_general_text"][0] > 0, "what every model is measured on, whatever it learned from"
    value, low, high = said["difference"]["bits_per_byte_text"]
    assert low <= value <= high < 0, "the one that learned longer predicts better, beyond the interval"
    assert value == pytest.approx(old["bits_per_byte_text"][0] - young["bits_per_byte_text"][0], abs=1e-3)
    assert len(old["replies"]) == 10
    assert 0 <= old["repetition"] <= 1
    assert old["tokens_per_s"] > 0
    assert page.read_text().count("<svg") == 5, "bits per byte of three kinds, instructions, refusals"


def test_a_run_that_is_told_to_stop_saves_and_can_be_gone_on_with(
    patient: Chatbot, prose: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "chatbot", "train", "gpt", "pretrain"]
    asked = ["--data", str(prose), "--out", str(run), "--steps", "400", "--evaluations", "1", *SMALL]
    process = subprocess.Popen([*command, *asked], stderr=subprocess.PIPE, text=True)
    _wait_for(run / "stats.jsonl", process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "--resume" in said
    done = patient("train", "gpt", "pretrain", "--out", str(run), "--resume")
    assert done.returncode == 0, done.stderr
    assert version(patient, "run@1")["figures"]["steps"] == 400  # type: ignore[index]  # of JSON
    done = patient("train", "gpt", "pretrain", "--out", str(run), "--resume")  # it has ended
    assert done.stdout.startswith("run@1 is a candidate")


def test_a_run_on_conversations_is_stopped_and_gone_on_with_and_unlearns_what_is_forgotten(
    patient: Chatbot, tmp_path: Path
) -> None:
    said = asyncio.run(_talk(40))
    base = small_model(tmp_path / "small")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "chatbot", "train", "gpt", "finetune"]
    asked = ["--conversations", "--base", str(base), "--out", str(run), "--block", "64", "--batch-tokens", "256"]
    process = subprocess.Popen([*command, *asked, "--steps", "200"], stderr=subprocess.PIPE, text=True)
    _wait_for(run / "stats.jsonl", process)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert "--resume" in told
    held = json.loads((run / "run.json").read_text())["options"]
    assert held["micro_rows"] > 0, "the rows computed at once are those of the first start"
    assert set(json.loads((run / "learned.json").read_text())) <= set(said)
    went = (run / "stats.jsonl").stat().st_mtime_ns
    process = subprocess.Popen([*command, "--out", str(run), "--resume"], stderr=subprocess.PIPE, text=True)
    _wait_for(run / "stats.jsonl", process, since=went)
    asyncio.run(_forget(said[0]))
    _, told = process.communicate(timeout=600)
    assert process.returncode == 2, told
    assert "was forgotten" in told
    assert all(row["name"] != "run" for row in json.loads(patient("models", "list", "--json").stdout))


async def _talk(count: int) -> list[str]:
    """Chats of the person here, who allows models to learn from them; the ids of their messages."""
    ids = []
    async with open_store(Settings.load()) as store:
        await store.people.allow_learning(LOCAL, True)
        for chat in chats(count):
            question, reply = (one["content"] for one in chat["messages"])
            conversation = await store.conversations.create("", person=LOCAL)
            turn = await store.conversations.add_turn(conversation.id, question)
            await store.conversations.end_reply(turn.reply.id, reply, "complete")
            ids += [turn.said.id, turn.reply.id]
    return ids


async def _forget(message_id: str) -> None:
    async with open_store(Settings.load()) as store:
        await store.forgetting.message(message_id)


def _wait_for(file: Path, process: subprocess.Popen[str], since: int = 0) -> None:
    while process.poll() is None and not (file.exists() and file.stat().st_mtime_ns > since):
        time.sleep(0.02)


def test_a_dry_run_says_what_it_would_cost_and_leaves_nothing(patient: Chatbot, prose: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = patient("train", "gpt", "pretrain", "--data", str(prose), "--out", str(run), "--dry-run", *SMALL)
    assert done.returncode == 0, done.stderr
    for word in ("M parameters", "tokens to learn from", "steps of 8 rows", "memory about", "tokens/s: about"):
        assert word in done.stdout
    assert not run.exists()


def test_conversations_are_learned_from_only_where_that_was_allowed(patient: Chatbot, tmp_path: Path) -> None:
    assert patient("ask", "hello", "--model", "fake").returncode == 0
    words = ["train", "gpt", "finetune", "--conversations", "--out", str(tmp_path / "run")]
    done = patient(*words)
    assert done.returncode == 2
    assert "nobody allowed it" in done.stderr
    assert patient("conversations", "consent").stdout == "Models may not learn from what local says.\n"
    assert patient("conversations", "consent", "on").stdout == "Models may learn from what local says.\n"
    done = patient(*words)
    assert done.returncode == 2
    assert "only one text or conversation" in done.stderr or "nothing to learn from" in done.stderr
    assert patient("conversations", "consent", "off").stdout == "Models may not learn from what local says.\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("train", "gpt", "pretrain", "--out", "run"), "--data FILE."),
        (("train", "gpt", "finetune", "--out", "run"), "--data FILE, or --conversations"),
        (("train", "gpt", "pretrain", "--data", "nowhere.txt", "--out", "run"), "There is no file"),
        (("train", "gpt", "pretrain", "--data", "data", "--out", "run"), "nothing to learn from in"),
        (("train", "gpt", "pretrain", "--resume"), "--out RUN"),
        (("train", "gpt", "pretrain", "--resume", "--out", "run"), "no run to resume"),
        (
            ("train", "gpt", "pretrain", "--data", "here.txt", "--out", "run", "--rate", "-1"),
            "--rate -1 makes no sense",
        ),
        (
            ("train", "gpt", "pretrain", "--data", "here.txt", "--out", "run", "--seed", "20000000000"),
            "--seed 20000000000 makes no sense",
        ),
        (
            ("train", "gpt", "pretrain", "--data", "here.txt", "--out", "run", "--heads", "7"),
            "cannot be shared by 7 heads",
        ),
        (
            ("train", "gpt", "finetune", "--data", "here.txt", "--out", "run", "--base", "nobody"),
            "There is no model 'nobody'",
        ),
        (("models", "export", "smollm2-135m-instruct"), "is a GGUF file already"),
        (("models", "export", "smollm2-135m-instruct", "-o", "model.bin"), "does not end in .gguf"),
        (("evaluate", "gpt", "--data", "nowhere.jsonl"), "There is no file"),
        (("evaluate", "gpt", "--report", "no/report.html"), "There is no folder no"),
    ],
)
def test_a_mistake_gets_one_sentence(
    chatbot: Chatbot, arguments: tuple[str, ...], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "here.txt").write_text("A text.")
    done = chatbot(*arguments)
    assert done.returncode == 2, done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
