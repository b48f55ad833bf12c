"""The runs of characters by which PostgreSQL finds text, against what reading the text finds."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.grams import grams_of
from tests.postgres import Server

# Letters of scripts with two cases, of those without, marks, and those whose case is odd.
LETTERS = "abzÀéßẞñÿǅДжЯΣσςΩΐ中国東ひカ한ก👍🏽é'\"\\%_ \t\n"
TEXT = st.text(st.sampled_from(LETTERS), max_size=12)


@settings(max_examples=4, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=50, max_size=60))
def test_what_reading_finds_the_index_finds(
    postgres: Server, migrated: str, said: list[tuple[str, str, str]]
) -> None:
    texts = [f"{before}{word}{after}" for before, word, after in said]
    quoted = ", ".join("({}, '{}')".format(n, text.replace("'", "''")) for n, text in enumerate(texts))
    rows = postgres.rows(
        f"SELECT n, array_to_string(chatbot_grams(t), ' ') FROM (VALUES {quoted}) AS v(n, t)", migrated
    )
    grams = {int(n): {int(gram) for gram in found.split()} for n, found in rows}
    for _, word, _ in said:
        for part in word.lower().split():
            for m, text in enumerate(texts):
                if re.search(re.escape(part), text, re.IGNORECASE):
                    assert set(grams_of(part)) <= grams[m], (part, text)
