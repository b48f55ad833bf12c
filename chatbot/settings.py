"""The one settings object: defaults, then a TOML file, then `CHATBOT_*` variables, then flags; the later wins."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from chatbot.errors import UserError


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


CommaList = Annotated[list[str], NoDecode, BeforeValidator(_split)]
"""A list that an environment variable gives as plain comma-separated text."""


def _ids(value: Any) -> Any:
    return [str(part) if type(part) is int else part for part in value] if isinstance(value, list) else _split(value)


Ids = Annotated[list[str], NoDecode, BeforeValidator(_ids)]
"""People and groups by their numbers, as text or, in the TOML file, as they are."""


FolderPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A folder, `~` allowed."""


def home_folder() -> Path:
    """Where configuration, database, pictures and trained versions live (`CHATBOT_HOME` moves it)."""
    return Path(os.environ.get("CHATBOT_HOME") or platformdirs.user_data_dir("chatbot")).expanduser()


def cache_folder() -> Path:
    """Where downloaded models live, apart from the home (`CHATBOT_CACHE` moves it)."""
    return Path(os.environ.get("CHATBOT_CACHE") or platformdirs.user_cache_dir("chatbot")).expanduser()


def config_file() -> Path:
    """The TOML file of the settings."""
    return home_folder() / "config.toml"


class Settings(BaseSettings):
    """Every setting there is. Field names are the keys of the TOML file, and in capitals after
    `CHATBOT_` the names of the variables."""

    model_config = SettingsConfigDict(
        env_prefix="CHATBOT_", env_ignore_empty=True, extra="forbid", frozen=True, validate_default=True
    )

    home: FolderPath = Field(default_factory=home_folder, description="configuration, database, trained versions")
    cache: FolderPath = Field(default_factory=cache_folder, description="downloaded models")
    database_url: str = Field("", description="postgresql://USER:PASSWORD@HOST/DATABASE; empty: SQLite in the home")
    model: str = Field("", description="model that answers, NAME[@VERSION]; empty: the one in use")
    system: str = Field("You are a helpful assistant.", description="system prompt of new conversations")
    temperature: float = Field(0.2, ge=0, le=5, description="sampling temperature; 0 takes the likeliest token")
    top_p: float = Field(0.9, gt=0, le=1, description="nucleus sampling: probability mass kept")
    repeat_penalty: float = Field(1.0, ge=1, le=2, description="penalty on tokens said lately; 1: none")
    seed: int | None = Field(None, ge=0, lt=2**32, description="seed of the sampling; none: a new one each time")
    max_tokens: int = Field(1024, ge=1, description="longest reply, in tokens")
    stop: CommaList = Field([], description="texts that end a reply")
    context: int = Field(8192, ge=64, description="most context to use, in tokens, where the model has more")
    engine: Literal["", "llamacpp", "hf"] = Field("", description="engine of local models; empty: the model's own")
    speculate: bool = Field(True, description="of llama.cpp: guess repeated text ahead; the reply stays the same")
    graphics: Literal["", "kitty", "sixel", "cells"] = Field(
        "", description="how the terminal shows pictures; empty: as it is known to"
    )
    device: str = Field("", description="of the hf engine: cuda, mps, cpu; empty: the best there is")
    loaded_models: int = Field(1, ge=1, le=64, description="models kept in memory, where conversations have several")
    timeout: float = Field(120, gt=0, description="seconds to wait for an endpoint's next word")
    slots: int = Field(0, ge=0, le=64, description="conversations one model answers at once; 0: as measured to pay")
    threads: int = Field(0, ge=0, description="threads of the model; 0: as measured to be quickest")

    telegram_token: SecretStr = Field(SecretStr(""), description="of the Telegram bot, as BotFather gives it")
    telegram_api_url: str = Field("", description="of a Bot API server of your own, without /bot; empty: Telegram's")
    telegram_allow: Ids = Field([], description="ids of people and groups that may talk to the bot; *: everyone")
    telegram_admins: Ids = Field([], description="ids of people who may, and who decide about others")
    telegram_groups: Literal["mentions", "all"] = Field(
        "mentions", description="what is answered in groups: mentions of the bot and replies to it, or all"
    )
    telegram_pending: int = Field(20, ge=1, description="messages of one chat that may wait to be answered")
    telegram_messages: int = Field(0, ge=0, description="messages that a person or a group may send a day; 0: any")
    telegram_tokens: int = Field(0, ge=0, description="tokens of the replies to them a day; 0: any")
    telegram_pictures: int = Field(0, ge=0, description="pictures made for them a day; 0: any")

    @cached_property
    def database(self) -> str | Path:
        """URL of the database, or the path of an SQLite file."""
        return self.database_url or self.home / "chatbot.db"

    @property
    def shown_database(self) -> str:
        """The database, without a password that its URL may hold."""
        # Up to the last @: a password is hidden too where its odd characters were not encoded.
        shown = re.sub(r"(?s)(://[^:/@]*):.*@", r"\1:***@", str(self.database))
        return re.sub(r"(password=)[^&]*", r"\1***", shown)

    @property
    def models_folder(self) -> Path:
        """Where downloaded models live."""
        return self.cache / "models"

    @property
    def tuning_file(self) -> Path:
        """What was measured of models on this machine."""
        return self.cache / "tuning.json"

    @property
    def last_loaded_file(self) -> Path:
        """What the server of the chat model was given when it last started for one question."""
        return self.home / "last-loaded.json"

    @property
    def prompts_folder(self) -> Path:
        """Where models keep what they have read of conversations."""
        return self.home / "prompts"

    @property
    def learning_folder(self) -> Path:
        """Where training keeps what it has read of people's conversations, while it lasts."""
        return self.home / "learning"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())

    @classmethod
    def load(cls, **flags: Any) -> Settings:
        """Read the settings; a flag that is None was not given.

        Raises:
            UserError: a value that does not fit, an unknown key, or a TOML file that cannot be read.
        """
        try:
            return cls(**{name: value for name, value in flags.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise UserError(f"Unknown setting '{name}' in {config_file()}.") from None
            got = "" if name == "telegram_token" else f" (got {first['input']!r})"
            raise UserError(f"Setting '{name}': {first['msg']}{got}.") from None
        except (ValueError, OSError) as error:  # TOML that does not parse is a ValueError
            raise UserError(f"Cannot read {config_file()}: {error}") from None
