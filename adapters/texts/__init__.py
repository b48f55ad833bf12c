"""What adapters say, in the languages of people: English is what the program says, every other one is a file here.

Such a file has `SENTENCES`, from English, a line each; `{}` stands for what differs, in the same order. Of two that
fit, the first is taken.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec

_ENTRY = re.compile(r"(/\w.*?) {2,}(\S.*)")


def languages() -> list[str]:
    """Codes of the languages there are beside English."""
    from pkgutil import iter_modules

    return sorted(module.name for module in iter_modules(__path__))


def in_language(code: str, text: str) -> str:
    """A sentence, or a list of commands with what they do, in the language of `code` (IETF) where that is known."""
    known = _known(code.split("-")[0].lower())
    if known is None:
        return text
    if "\n" in text:
        return "\n".join(in_language(code, line) for line in text.split("\n"))
    exact, patterns = known
    if text in exact:
        return exact[text]
    for pattern, translation in patterns:
        if match := pattern.fullmatch(text):
            return translation.format(*(exact.get(part, part) for part in match.groups()))
    if entry := _ENTRY.fullmatch(text):
        return f"{entry[1]}  {exact.get(entry[2], entry[2])}"
    return text


@cache
def _known(code: str) -> tuple[dict[str, str], list[tuple[re.Pattern[str], str]]] | None:
    if not code.isalpha() or find_spec(f"{__name__}.{code}") is None:
        return None
    sentences: dict[str, str] = import_module(f"{__name__}.{code}").SENTENCES
    patterns = []
    for english, translation in sentences.items():
        if "{}" in english:
            parts = (re.escape(part) for part in english.split("{}"))
            patterns.append((re.compile("(.*)".join(parts)), translation))
    return sentences, patterns
