"""A chat program: conversations kept in SQLite, answered by a local GPT.

The core knows messages and events, never widgets or chat ids. It stands on `storage` and is used by
the front ends in `tui` and `adapters`.
"""

__version__ = "0.1.0"
