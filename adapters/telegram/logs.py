"""The bot's log: a JSON object a line on stderr, in which no secret stands, whoever wrote the line."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from chatbot.trace import without_secrets

LOG = logging.getLogger("chatbot.telegram")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "from": record.name,
            "what": record.getMessage(),
            **getattr(record, "data", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(line, ensure_ascii=False, default=str))


def start_log(level: str) -> None:
    """Let everything that is logged in this process go there: what libraries say too, URLs with the token in them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    if level == "info":  # httpx tells of every single request there, and alembic of its own start
        for name in ("telegram", "alembic", "httpx", "httpx2"):
            logging.getLogger(name).setLevel(logging.WARNING)


def tell(level: int, what: str, **data: object) -> None:
    """Log `what`, always the same words, and beside it what differs."""
    LOG.log(level, what, extra={"data": data})
