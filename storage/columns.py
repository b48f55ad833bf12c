"""Types of columns that SQLite and PostgreSQL store alike."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import JSON as AnyJson
from sqlalchemy import Text as AnyText
from sqlalchemy import TypeDecorator


class Text(TypeDecorator[str]):
    """Any text. Left out is what PostgreSQL cannot store, NUL, and what UTF-8 cannot say, unpaired surrogates."""

    impl = AnyText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        if value is None:
            return None
        return value.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")


class JSON(TypeDecorator[Any]):
    """What JSON can say. PostgreSQL takes no numbers but those: there, NaN and infinities become null."""

    impl = AnyJson
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if dialect.name != "postgresql":
            return value
        return json.loads(json.dumps(value), parse_constant=lambda name: None)
