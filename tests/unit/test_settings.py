"""Defaults, then the TOML file, then the environment, then flags."""

from pathlib import Path

import pytest

from chatbot.errors import UserError
from chatbot.settings import Settings, config_file

pytestmark = pytest.mark.usefixtures("unmeasured")


def write_config(text: str) -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text(text)


def test_the_later_source_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().max_tokens == 1024
    write_config("max_tokens = 10\nthreads = 3\n")
    assert Settings.load().max_tokens == 10
    monkeypatch.setenv("CHATBOT_MAX_TOKENS", "20")
    assert Settings.load().max_tokens == 20
    assert Settings.load(max_tokens=30).max_tokens == 30
    assert Settings.load(max_tokens=None).max_tokens == 20
    assert Settings.load().threads == 3


def test_a_list_is_plain_comma_separated_text_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATBOT_STOP", "User:, ###")
    assert Settings.load().stop == ["User:", "###"]
    monkeypatch.delenv("CHATBOT_STOP")
    write_config('stop = ["a,b"]')
    assert Settings.load().stop == ["a,b"]


def test_the_home_moves_the_database_and_not_the_models(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Settings.load()
    monkeypatch.setenv("CHATBOT_HOME", "/elsewhere")
    after = Settings.load()
    assert before.database == home / "chatbot.db"
    assert after.database == Path("/elsewhere/chatbot.db")
    assert after.models_folder == before.models_folder
    monkeypatch.setenv("CHATBOT_CACHE", "/cold")
    assert Settings.load().models_folder == Path("/cold/models")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("max_tokens = 'many'", "max_tokens"),
        ("colour = 'red'", "Unknown setting 'colour'"),
        ("max_tokens =", "Cannot read"),
        ("temperature = 9", "temperature"),
    ],
)
def test_a_bad_setting_is_said_in_one_sentence(config: str, said: str) -> None:
    write_config(config)
    with pytest.raises(UserError, match=said) as caught:
        Settings.load()
    assert "\n" not in str(caught.value).strip()


def test_a_password_in_the_database_url_is_not_shown() -> None:
    settings = Settings.load(database_url="postgresql+asyncpg://ada:secret@host/db")
    assert "secret" not in settings.shown_database
