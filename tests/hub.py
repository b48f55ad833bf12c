"""The Hugging Face hub, emulated on loopback: what `huggingface_hub` asks for a model, and no more."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(slots=True)
class Hub:
    """Repositories by name, each a folder, as they are at `COMMIT`; by now, `main` holds something else. `outside`
    are names that it gives for files beside. `seen` holds (method, path, range) of all requests."""

    url: str
    repos: dict[str, Path]
    gguf: dict[str, Any] = field(default_factory=dict)
    bytes_per_s: float = 1e12
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    damage: bool = False
    outside: Sequence[str] = ()

    def ranges(self) -> list[str]:
        return [given for method, _, given in self.seen if method == "GET" and given]


@contextmanager
def emulated(repos: dict[str, Path]) -> Iterator[Hub]:
    """A hub that serves `repos` until the block ends."""
    hub = Hub("", repos)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._serve(body=False)

        def do_GET(self) -> None:
            self._serve(body=True)

        def _serve(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.seen.append((self.command, path, self.headers.get("Range")))
            parts = path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self._info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
            elif parts[-1] in {Path(name).name for name in hub.outside}:
                self._send(200, b"evil", {"ETag": '"1"', "X-Repo-Commit": COMMIT}, body=body)
            elif len(parts) > 4 and parts[2] == "resolve":
                self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body=body)
            else:
                self._refuse(404)

        def _info(self, repo: str, revision: str) -> None:
            if repo not in hub.repos:
                self._refuse(404, "RepoNotFound")
            elif revision not in ("main", COMMIT):
                self._refuse(404, "RevisionNotFound")
            else:
                siblings = []
                for file in sorted(hub.repos[repo].rglob("*")):
                    content = {"rfilename": str(file.relative_to(hub.repos[repo])), "size": file.stat().st_size}
                    if file.suffix in (".safetensors", ".gguf"):
                        content["lfs"] = {"sha256": _sha256(file), "size": file.stat().st_size, "pointerSize": 134}
                    siblings.append(content)
                siblings += [{"rfilename": name, "size": 4} for name in hub.outside]
                answer = {
                    "_id": "1",
                    "id": repo,
                    "sha": COMMIT,
                    "tags": ["license:apache-2.0"],
                    "siblings": siblings,
                    "gguf": hub.gguf or None,
                }
                self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, body=True)

        def _file(self, repo: str, revision: str, name: str, *, body: bool) -> None:
            file = hub.repos.get(repo, Path("/nowhere")) / name
            if not file.is_file():
                self._refuse(404, "EntryNotFound")
                return
            content = file.read_bytes()
            if revision != COMMIT:
                content = content[::-1]
            if hub.damage:
                content = content[:-1] + bytes([content[-1] ^ 1])
            headers = {"ETag": f'"{_sha256(file)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            status = 200
            if given := self.headers.get("Range"):
                start = int(given.removeprefix("bytes=").split("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                content, status = content[start:], 206
            self._send(status, content, headers, body=body)

        def _refuse(self, status: int, code: str = "") -> None:
            self._send(status, b"{}", {"X-Error-Code": code}, body=self.command == "GET")

        def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            step = 1 << 20
            for start in range(0, len(content) if body else 0, step):
                self.wfile.write(content[start : start + step])
                if len(content) > step:
                    time.sleep(step / hub.bytes_per_s)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]  # it says nothing
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


_known: dict[Path, str] = {}


def _sha256(file: Path) -> str:
    if file not in _known:
        with file.open("rb") as content:
            _known[file] = hashlib.file_digest(content, "sha256").hexdigest()
    return _known[file]
