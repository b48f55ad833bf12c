"""Other programs, each in an environment of its own under `.bench`, installed from the package registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".bench"

LLAMA_CPP_PYTHON = "llama-cpp-python==0.3.16"
"""It is built where it is installed; some later ones then end by an illegal instruction where AMX is forbidden."""


def peer(name: str, *requirements: str) -> Path:
    """The folder of executables of an environment that has `requirements`."""
    environment = FOLDER / name
    if not (environment / ".installed").exists():
        print(f"Installing {', '.join(requirements)} into {environment}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--upgrade", "pip"], check=True)
        subprocess.run([*pip, *requirements], check=True)
        (environment / ".installed").touch()
    return environment / "bin"
