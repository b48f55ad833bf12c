"""`chatbot config`: the settings in force, and where they come from."""

from __future__ import annotations

import argparse
import json

HELP = "show the settings in force"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser("show", help="every setting, as the TOML file would hold it")
    show.set_defaults(act=_show)
    path = actions.add_parser("path", help="where the TOML file is, or would be")
    path.set_defaults(act=_path)


def run(arguments: argparse.Namespace) -> int:
    arguments.act()
    return 0


def _show() -> None:
    from chatbot.settings import Settings

    settings = Settings.load()
    values = settings.model_dump(mode="json")
    if settings.database_url:
        values["database_url"] = settings.shown_database
    for name, field in Settings.model_fields.items():
        # JSON writes strings, numbers, booleans and lists as TOML does; TOML has no null: a comment stands there.
        line = f"{name} = {json.dumps(values[name], ensure_ascii=False)}"
        print(f"# {field.description}\n{line if values[name] is not None else f'# {name} ='}")


def _path() -> None:
    from chatbot.settings import config_file

    print(config_file())
