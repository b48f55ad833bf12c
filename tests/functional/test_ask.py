"""`chatbot ask` and piped input, on the real model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Chatbot

pytestmark = pytest.mark.usefixtures("model_path")


def test_the_reply_goes_to_stdout_and_everything_else_to_stderr(chatbot: Chatbot) -> None:
    done = chatbot("ask", "Say hello.", "--max-tokens", "12", "--temperature", "0")
    assert done.returncode == 0
    assert done.stdout.strip()
    assert "Loading" in done.stderr
    assert "Loading" not in done.stdout


def test_json_is_one_object_with_the_documented_keys(chatbot: Chatbot) -> None:
    done = chatbot("ask", "Count.", "--max-tokens", "5", "--json")
    answer = json.loads(done.stdout)
    assert set(answer) == {"conversation", "message", "text", "finish_reason", "model", "usage", "timings"}
    assert set(answer["usage"]) == {"prompt_tokens", "cached_tokens", "completion_tokens"}
    assert set(answer["timings"]) == {"load_s", "first_token_s", "decode_tokens_per_s"}
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["model"] == "smollm2-135m-instruct@q4_1"


def test_a_conversation_is_remembered_from_one_call_to_the_next(chatbot: Chatbot) -> None:
    told = chatbot("ask", "The code word is banana.", "--json", "--temperature", "0", "--max-tokens", "40")
    first = json.loads(told.stdout)
    done = chatbot(
        "ask", "--continue", "What is the code word?", "--json", "--temperature", "0", "--max-tokens", "40"
    )
    second = json.loads(done.stdout)
    assert second["conversation"] == first["conversation"]
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
    assert "banana" in second["text"]
    by_id = chatbot("ask", "--conversation", first["conversation"], "Thanks.", "--json", "--max-tokens", "5")
    assert json.loads(by_id.stdout)["usage"]["prompt_tokens"] > second["usage"]["prompt_tokens"]

    shown = json.loads(chatbot("conversations", "show", first["conversation"], "--json").stdout)
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant"] * 3
    assert {"id", "parent", "role", "text", "status", "created"} <= set(shown["messages"][0])
    assert [message["parent"] for message in shown["messages"][1:]] == [m["id"] for m in shown["messages"][:-1]]
    assert shown["messages"][1]["text"] == first["text"]
    listed = json.loads(chatbot("conversations", "list", "--json").stdout)
    assert [conversation["id"] for conversation in listed] == [first["conversation"]]


def test_piped_input_joins_the_message(chatbot: Chatbot) -> None:
    chatbot("ask", "Summarise this:", "--max-tokens", "5", stdin="the file's text\n")
    chatbot("--version")
    listed = json.loads(chatbot("conversations", "list", "--json").stdout)
    shown = json.loads(chatbot("conversations", "show", listed[0]["id"], "--json").stdout)
    assert shown["messages"][0]["text"] == "Summarise this:\n\nthe file's text"


def test_piped_input_alone_is_answered_once(chatbot: Chatbot) -> None:
    done = chatbot(stdin="What is two plus two?")
    assert done.returncode == 0
    assert done.stdout.strip()


def test_the_same_seed_gives_the_same_reply_in_another_process(chatbot: Chatbot) -> None:
    once, again = (
        chatbot("ask", "Invent a name.", "--seed", "5", "--temperature", "1", "--max-tokens", "15").stdout
        for _ in range(2)
    )
    assert once == again


def test_the_system_prompt_stays_with_its_conversation(chatbot: Chatbot) -> None:
    chatbot("ask", "Hello", "--system", "Answer like a pirate.", "--max-tokens", "5")
    listed = json.loads(chatbot("conversations", "list", "--json").stdout)
    assert json.loads(chatbot("conversations", "show", listed[0]["id"], "--json").stdout)["system"] == (
        "Answer like a pirate."
    )


def test_a_model_that_never_ends_is_cut_at_the_longest_reply(chatbot: Chatbot) -> None:
    done = chatbot("ask", "Count from 1 to 1000, one number a line.", "--max-tokens", "60", "--temperature", "0")
    assert done.returncode == 0
    assert "cut" in done.stderr


def test_a_gguf_file_of_ones_own_answers_where_it_lies(chatbot: Chatbot, tmp_path: Path, model_path: Path) -> None:
    mine = tmp_path / "my own.gguf"
    mine.symlink_to(model_path)
    used = chatbot("models", "use", str(mine))
    assert used.returncode == 0, used.stderr
    answer = json.loads(chatbot("ask", "Hi", "--max-tokens", "3", "--json").stdout)
    assert "@local" in answer["model"]
    rolled = chatbot("models", "rollback", "--kind", "gpt")
    assert "smollm2-135m-instruct@q4_1 answers again" in rolled.stdout
    assert model_path.exists()
