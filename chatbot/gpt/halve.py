"""Writes an adapter in half precision, as the one that ships: `python -m chatbot.gpt.halve FOLDER OUT`.

FOLDER is that of a retrained version, `models/NAME/VERSION` in the home; its base is the default chat model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from chatbot.catalog import DEFAULTS
from chatbot.engines.weights import transformers_folder
from chatbot.errors import UserError, exit_code
from chatbot.gpt.export import export_adapter
from chatbot.gpt.versions import ADAPTER_GGUF, ADAPTER_WEIGHTS
from chatbot.settings import Settings
from chatbot.store import open_store


def halve(folder: Path, base: Path, out: Path) -> None:
    """Write the adapter in `folder`, which belongs to the model in `base`, into the new folder `out`.

    Raises:
        UserError: there is no adapter in `folder`, or `out` cannot be written.
    """
    try:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        out.mkdir(parents=True)
        save_file({name: tensor.half() for name, tensor in tensors.items()}, out / ADAPTER_WEIGHTS)
        config["base_model_name_or_path"] = DEFAULTS["gpt"].ref  # not a folder of whoever trained it
        kept = {name: value for name, value in sorted(config.items()) if value is not None}
        (out / "adapter_config.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"Cannot halve {folder} into {out}: {error}") from None
    export_adapter(out, base, out / ADAPTER_GGUF, DEFAULTS["gpt"].ref)


async def _run(folder: Path, out: Path) -> None:
    settings = Settings.load()
    async with open_store(settings) as store:
        base = await store.registry.find(DEFAULTS["gpt"].ref)
        halve(folder, await transformers_folder(store.registry, settings, base, lambda text, fraction: None), out)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chatbot.gpt.halve", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the adapter")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    arguments = parser.parse_args()
    return exit_code(lambda: asyncio.run(_run(arguments.folder, arguments.out)))


if __name__ == "__main__":
    sys.exit(main())
