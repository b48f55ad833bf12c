"""Bad input and bad days: one clear sentence, exit code 2, and nothing lost."""

from __future__ import annotations

import ctypes
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Chatbot

GGUF_JUNK = b"GGUF" + bytes(200)


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    complaint = [line for line in done.stderr.splitlines() if line.startswith("chatbot: ")]
    assert len(complaint) == 1, done.stderr
    return complaint[0]


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (["ask"], "", "nothing to ask"),
        (["ask", "   "], "", "nothing to ask"),
        (["ask", "\x1b\x07"], "", "empty"),
        (["ask"], b"caf\xe9", "not UTF-8"),
        (["ask", "hi", "--model", "nonesuch"], "", "no model 'nonesuch'"),
        (["ask", "hi", "--model", "/nowhere/x.gguf"], "", "No such file"),
        (["ask", "hi", "--conversation", "abc"], "", "no conversation 'abc'"),
        (["ask", "hi", "--temperature", "99"], "", "temperature"),
        (["ask", "hi", "--system", "\udcff"], "", "not UTF-8"),
        (["conversations", "show", "abc"], "", "no conversation 'abc'"),
        (["models", "use", "nonesuch@2"], "", "no model"),
        (["models", "rollback", "--kind", "aigc"], "", "roll back"),
    ],
)
def test_a_mistake_gets_one_sentence(chatbot: Chatbot, arguments: list[str], stdin: str | bytes, said: str) -> None:
    assert said in one_sentence(chatbot(*arguments, stdin=stdin))


@pytest.mark.parametrize("content", [b"", b"not a model", GGUF_JUNK, None])
def test_a_file_that_is_no_whole_gguf_is_refused(
    chatbot: Chatbot, tmp_path: Path, model_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(model_path.read_bytes()[:30_000_000] if content is None else content)
    assert "GGUF" in one_sentence(chatbot("ask", "hi", "--model", str(path)))
    assert "GGUF" in one_sentence(chatbot("models", "use", str(path)))


def test_a_message_of_a_megabyte_is_refused_by_its_tokens_and_kept(chatbot: Chatbot, model_path: Path) -> None:
    text = "many words " * 95_000
    assert "tokens" in one_sentence(chatbot("ask", stdin=text))
    listed = json.loads(chatbot("conversations", "list", "--json").stdout)
    said, reply = json.loads(chatbot("conversations", "show", listed[0]["id"], "--json").stdout)["messages"]
    assert said["text"] == text.strip()
    assert reply["status"] == "failed"
    assert chatbot("ask", "--continue", "hello", "--max-tokens", "3").returncode == 0


def test_markup_and_control_characters_reach_the_model_as_text(chatbot: Chatbot) -> None:
    done = chatbot("ask", "--model", "fake", "[red]x[/] <b>\x1b[31m &amp; \\n", stdin="")
    assert done.stdout == "You said: [red]x[/] <b>[31m &amp; \\n\n"


def test_without_network_and_model_the_message_is_kept_and_the_way_out_said(
    chatbot: Chatbot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATBOT_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert "cannot be reached" in one_sentence(chatbot("ask", "Are you there?"))
    listed = json.loads(chatbot("conversations", "list", "--json").stdout)
    assert listed[0]["title"] == "Are you there?"


def test_a_damaged_database_is_refused_and_left_as_it_is(chatbot: Chatbot, home: Path) -> None:
    home.mkdir()
    (home / "chatbot.db").write_bytes(b"garbage " * 1000)
    assert "damaged" in one_sentence(chatbot("ask", "hi", "--model", "fake"))
    assert (home / "chatbot.db").read_bytes() == b"garbage " * 1000


def test_a_database_of_a_newer_version_is_refused(chatbot: Chatbot, home: Path) -> None:
    chatbot("ask", "hi", "--model", "fake")
    with sqlite3.connect(home / "chatbot.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "newer version" in one_sentence(chatbot("conversations", "list"))


def test_two_processes_write_at_once(chatbot: Chatbot, home: Path) -> None:
    chatbot("ask", "first", "--model", "fake")
    command = [sys.executable, "-m", "chatbot", "ask", "--model", "fake", "side by side"]
    running = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    assert [process.communicate()[0] for process in running] == [b"You said: side by side\n"] * 4
    assert len(json.loads(chatbot("conversations", "list", "--json").stdout)) == 5


def test_a_bad_config_file_is_said(chatbot: Chatbot, home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text("temprature = 1")
    assert "Unknown setting 'temprature'" in one_sentence(chatbot("config", "show"))


if sys.platform == "linux":

    def drop_root() -> None:
        """In the child: permissions hold, even for root (CAP_DAC_OVERRIDE is left behind at exec)."""
        ctypes.CDLL(None).prctl(24, 1)

    def run_unprivileged(*arguments: str, wrap: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*wrap, sys.executable, "-m", "chatbot", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            preexec_fn=drop_root if os.geteuid() == 0 else None,
            check=False,
        )

    @pytest.mark.parametrize("folder_mode", [0o755, 0o555])
    def test_a_read_only_database_is_said(chatbot: Chatbot, home: Path, folder_mode: int) -> None:
        chatbot("ask", "hi", "--model", "fake")
        (home / "chatbot.db").chmod(0o444)
        home.chmod(folder_mode)
        try:
            complaint = one_sentence(run_unprivileged("ask", "again", "--model", "fake"))
        finally:
            home.chmod(0o755)
        assert "read-only" in complaint or "cannot be opened" in complaint

    def test_a_full_disk_while_fetching_is_said_and_leaves_no_half_model(tmp_path: Path) -> None:
        cache = tmp_path / "small"
        cache.mkdir()
        script = (
            f"mount -t tmpfs -o size=20m none {cache} && "
            f"CHATBOT_CACHE={cache} {sys.executable} -m chatbot models pull smollm2-135m-instruct; "
            f"code=$?; find {cache} -name '*.gguf'; exit $code"
        )
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "MB are free" in one_sentence(done)
        assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["conversations", "list"], ["config", "show"], ["models", "list"], ["--help"]])
def test_a_reader_that_has_left_is_no_mistake(arguments: list[str], chatbot: Chatbot) -> None:
    chatbot("conversations", "list")  # the database is there: nothing slow before the output
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "chatbot", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")


def test_a_full_disk_below_the_output_is_said(chatbot: Chatbot) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "chatbot", "config", "show"], stdout=full, stderr=subprocess.PIPE, env=environment
        )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"cannot be written" in done.stderr


def test_nobody_needs_to_read_the_errors(chatbot: Chatbot) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "chatbot", "ask", "--model", "fake", "hi"], stdout=subprocess.PIPE, stderr=full
        )
        assert (done.returncode, done.stdout) == (0, b"You said: hi\n")
        unknown = subprocess.run([sys.executable, "-m", "chatbot", "ask", "--model", "nope", "hi"], stderr=full)
        assert unknown.returncode == 2


@pytest.mark.parametrize("name", ["q?x=1", "p%20h#y"])
def test_a_home_of_any_name_holds_its_database(
    name: str, chatbot: Chatbot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATBOT_HOME", str(tmp_path / name))
    assert chatbot("conversations", "list").stderr == ""
    assert (tmp_path / name / "chatbot.db").is_file()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///x.db?timeout=abc", "nonsense", "odd://x"])
def test_a_database_url_that_is_none_is_said(url: str, chatbot: Chatbot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATBOT_DATABASE_URL", url)
    done = chatbot("conversations", "list")
    assert done.returncode == 2
    assert "database URL" in done.stderr


def test_a_pipe_is_no_model(chatbot: Chatbot, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    done = chatbot("ask", "--model", str(tmp_path / "pipe.gguf"), "hi", timeout=20)
    assert done.returncode == 2
    assert "is no file" in done.stderr


@pytest.mark.parametrize("arguments", [("chat",), ("chat", "--model", "fake")])
def test_a_chat_without_a_terminal_says_so_and_ends(chatbot: Chatbot, arguments: tuple[str, ...]) -> None:
    done = chatbot(*arguments, timeout=30)
    assert done.returncode == 2
    assert done.stderr.startswith("chatbot: The chat needs a terminal")
    assert done.stdout == ""
