"""The stages of retraining the chat model, from the conversations that may be learned from to the verdict.

Every retraining begins anew with the model that the one in use was trained from, and learns from all that may be
learned from now: what was forgotten since is in no later version, and nothing drifts from one to the next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from chatbot.engines.weights import transformers_folder
from chatbot.errors import UserError
from chatbot.gpt.corpus import Report, own_conversations
from chatbot.gpt.evaluate import Candidate, Measured, held_out, measure
from chatbot.gpt.options import Options
from chatbot.gpt.run import Outcome
from chatbot.gpt.samples import Dialogue, Sample
from chatbot.gpt.versions import candidate_of, register
from chatbot.registry import Registry
from chatbot.retrain.gate import FEWEST, GENERAL, TARGET, Margins, Verdict, decide
from chatbot.retrain.general import general
from chatbot.retrain.keep import prune
from chatbot.settings import Settings
from chatbot.store import Store
from storage.versions import Version

NAME = "retrained"
"""Of the versions that come of it."""

Tell = Callable[[str, float | None], None]
Complain = Callable[[str], None]

_OUTCOME = "outcome.json"
_MOST_SAMPLES = 200


@dataclass(frozen=True, slots=True)
class Ground:
    """What a retraining stands on.

    Attributes:
        current: the version in use, which the candidate has to beat.
        base: what is fine-tuned: the same, or what that is an adapter of; `base_folder` holds it.
        own: the conversations that may be learned from.
        report: what of the conversations was left out.
    """

    current: Version
    base: Version
    base_folder: Path
    own: Sequence[Dialogue]
    report: Report


async def survey(store: Store, settings: Settings, since: datetime | None, tell: Tell) -> Ground:
    """Find out what there is.

    Raises:
        UserError: the model in use runs elsewhere, or cannot be fetched or read.
    """
    current = await store.registry.current("gpt")
    base = await store.registry.find(current.settings["base"]) if "base" in current.settings else current
    if base.settings["engine"] == "openai":
        raise UserError(f"{base.ref} runs elsewhere; `chatbot models use` one that is here, and retrain that.")
    report = Report()
    folder = await transformers_folder(store.registry, settings, base, tell)
    return Ground(current, base, folder, await own_conversations(store, report, since=since), report)


def samples_of(
    data: Sequence[Path], own: Sequence[Dialogue], more: Sequence[Path], tell: Tell
) -> dict[str, list[Sample]]:
    """What a candidate is judged on: held-out conversations, and what it must not forget.

    The conversations are the own ones; what is held out of `data` counts where those are too few for a verdict.

    Raises:
        UserError: data that cannot be used, or nothing of it is held out.
    """
    found = held_out(data, own, _MOST_SAMPLES, tell)
    target = found.pop("own", [])
    if len(target) < FEWEST:
        target += [sample for some in found.values() for sample in some]
    return {TARGET: target, GENERAL: general(more)}


def too_few(samples: dict[str, list[Sample]]) -> str:
    """What to say before anything is trained, where no verdict can come of it; else nothing."""
    count = len(samples[TARGET])
    if count >= FEWEST:
        return ""
    return (
        f"Of what there is to learn from, {count} are held out; {FEWEST} are needed for a verdict, so that whatever "
        "comes of it will stay a candidate."
    )


def compare(
    ground: Ground,
    current: Candidate,
    model: Path,
    samples: dict[str, list[Sample]],
    margins: Margins,
    settings: Settings,
    precision: str,
    tell: Tell,
) -> tuple[Measured, Measured, Verdict]:
    """Measure the model in use and the candidate in the folder `model` on the same samples, and judge.

    Raises:
        ModelError: one of them does not load.
    """
    candidate = Candidate("candidate", ground.base_folder, model)
    before, after = (
        measure(one, samples, system=settings.system, precision=precision, tell=tell) for one in (current, candidate)
    )
    return before, after, decide(after, before, margins)


async def conclude(
    registry: Registry,
    settings: Settings,
    outcome: Outcome,
    measured: tuple[Measured, Measured],
    verdict: Verdict,
    *,
    may_promote: bool,
    keep: int,
) -> tuple[Version, Sequence[Version]]:
    """Register the candidate, and let it answer where it passed; also the versions that were removed for it.

    Raises:
        UserError: it cannot be copied.
    """
    before, after = measured
    figures = outcome.figures | after.figures() | {"before": before.figures(), "verdict": asdict(verdict)}
    version = await register(registry, settings.home, replace(outcome, figures=figures), NAME)
    if verdict.promote and may_promote:
        version = await registry.promote(version.ref)
    return version, await prune(registry, "gpt", NAME, keep)


async def in_use(registry: Registry, settings: Settings, ground: Ground, tell: Tell) -> Candidate:
    """The model in use as it is measured."""
    return await candidate_of(registry, settings, ground.current, tell)


def keep_outcome(run: Path, outcome: Outcome) -> None:
    """Note that the training is done: who goes on with the run begins with the measuring."""
    held = asdict(outcome) | {"model": str(outcome.model), "options": outcome.options.as_json()}
    part = run / f"{_OUTCOME}.partial"
    part.write_text(json.dumps(held), encoding="utf-8")
    os.replace(part, run / _OUTCOME)


def kept_outcome(run: Path) -> Outcome | None:
    """What the training of a run gave, where it is done."""
    try:
        held = json.loads((run / _OUTCOME).read_text(encoding="utf-8"))
        options = Options(**held["options"] | {"data": tuple(held["options"]["data"])})
        return Outcome(**held | {"model": Path(held["model"]), "options": options})
    except (OSError, ValueError, KeyError, TypeError):
        return None
