"""What is heavy is loaded only where it is used, seen in a fresh interpreter."""

import subprocess
import sys

import pytest

FRONT_AND_HEAVY = ("torch", "transformers", "textual", "telegram", "sqlalchemy", "pydantic")


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import chatbot", FRONT_AND_HEAVY),
        ("import sys; sys.argv = ['chatbot', '--help']\nfrom chatbot.cli import main\n"
         "try: main()\nexcept SystemExit: pass", FRONT_AND_HEAVY),
        ("import tui.app", ("sqlalchemy", "pydantic", "torch", "transformers")),
        ("import tui.app, chatbot.session, chatbot.engines.llamacpp", ("torch", "transformers")),
        ("import chatbot.engines.llamacpp_server, xllamacpp", ("torch", "transformers", "sqlalchemy", "pydantic")),
    ],
    ids=["import chatbot", "chatbot --help", "the first screen", "the terminal chat", "the model's process"],
)  # fmt: skip
def test_nothing_heavy_is_loaded_early(code: str, unwanted: tuple[str, ...]) -> None:
    report = f"\nimport sys; print('LOADED', [name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"
