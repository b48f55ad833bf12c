"""What both retrainings share: one at a time, and how their end is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from chatbot.cli.progress import say
from chatbot.cli.run import run_async
from chatbot.errors import UserError

if TYPE_CHECKING:
    from chatbot.retrain.conclude import Conclusion
    from chatbot.retrain.verdict import Verdict
    from chatbot.settings import Settings
    from chatbot.store import Store
    from storage.versions import Version

Result = TypeVar("Result")


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """No two retrainings of one home at once, in whatever process."""
    from filelock import FileLock, Timeout

    from chatbot.retrain.background import LOCK

    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise UserError("Another retraining is at work; wait for it, or stop it.") from None
    except OSError as error:
        raise UserError(f"Nothing can be written in {home}: {error.strerror}.") from None
    try:
        yield
    finally:
        lock.release()


def with_store(settings: Settings, act: Callable[[Store], Awaitable[Result]]) -> Result:
    """What `act` gives, while the database is open."""

    async def run() -> Result:
        from chatbot.store import open_store

        async with open_store(settings) as store:
            return await act(store)

    return run_async(run())


def said_of(ended: Conclusion, verdict: Verdict, before: Version) -> str:
    """What follows, in a sentence."""
    ref = ended.version.ref
    if ended.version.state == "current":
        return (
            f"{ref} is better than {before.ref}, and {'draws' if before.kind == 'aigc' else 'answers'} from now on; "
            f"`chatbot models rollback --kind {before.kind}` brings the other back."
        )
    if verdict.promote:
        why = f"{ended.against} " if ended.against else ""
        return f"{ref} is better than {before.ref}. {why}`chatbot models promote {ref}` puts it to use."
    return f"{ref} stays a candidate. {' '.join(verdict.reasons)}"


def tell_end(ended: Conclusion, verdict: Verdict, said: str, place: Path) -> None:
    """Print every condition, a line each, what follows from them, and where the report is."""
    for check in verdict.checks:
        print(f"{'passed' if check.passed else 'FAILED'}  {check} ({check.rule})")
    for one in ended.gone:
        say(f"{one.ref} is removed, being one of many.")
    say(f"Report: {place}")
    print(said)
