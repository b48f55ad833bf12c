"""The stages of retraining the chat model, from the conversations that may be learned from to the verdict.

Every retraining begins anew with the model from before any learning from conversations, and learns from all that may
be learned from now: what was forgotten since is in no later version, and nothing drifts from one to the next.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from chatbot.engines.load import Notify
from chatbot.engines.weights import transformers_folder
from chatbot.errors import UserError
from chatbot.gpt.corpus import Report, own_conversations
from chatbot.gpt.evaluate import Candidate, Measured, held_out, measure
from chatbot.gpt.learned import LEARNED, check_learned
from chatbot.gpt.options import Options, preferring
from chatbot.gpt.preferences import own_preferences
from chatbot.gpt.prepare import check_learnable, count_preferences
from chatbot.gpt.reading import files, read
from chatbot.gpt.rows import fingerprint
from chatbot.gpt.run import Outcome
from chatbot.gpt.samples import Dialogue, Predicted, Preference
from chatbot.gpt.versions import candidate_of, register
from chatbot.registry import Registry
from chatbot.retrain.conclude import Conclusion, put_to_use
from chatbot.retrain.gate import FEWEST, GENERAL, TARGET, Margins, decide
from chatbot.retrain.general import general
from chatbot.retrain.keep import MARK
from chatbot.retrain.verdict import Verdict
from chatbot.settings import Settings
from chatbot.store import Store
from storage.versions import Version

NAME = "retrained"
"""Of the versions that come of it."""

Tell = Callable[[str, float | None], None]
Complain = Callable[[str], None]

PREFER = "prefer"
"""Folder in that of a retraining: its second stage, what people prefer."""

ENOUGH_PREFERENCES = 32

_OUTCOME = "outcome.json"
_MOST_SAMPLES = 200


@dataclass(frozen=True, slots=True)
class Ground:
    """What a retraining stands on.

    Attributes:
        current: the version in use, which the candidate has to beat; `in_use` is the same as it is measured.
        base: what is fine-tuned: its ancestor from before any learning from conversations; `base_folder` holds it.
        own: the conversations that may be learned from.
        preferences: what people thought of replies in them.
        report: what of the conversations was left out.
    """

    current: Version
    in_use: Candidate
    base: Version
    base_folder: Path
    own: Sequence[Dialogue]
    preferences: Sequence[Preference]
    report: Report


async def survey(store: Store, settings: Settings, since: datetime | None, tell: Tell) -> Ground:
    """Find out what there is.

    Raises:
        UserError: the model in use runs elsewhere, or cannot be fetched or read.
    """
    current = await store.registry.current("gpt")
    base = await _unlearned(store.registry, current)
    if base.settings["engine"] == "openai":
        raise UserError(f"{base.ref} runs elsewhere; `chatbot models use` one that is here, and retrain that.")
    report = Report()
    in_use = await candidate_of(store.registry, settings, current, tell)
    folder = await transformers_folder(store.registry, settings, base, tell)
    own = await own_conversations(store, report, since=since)
    return Ground(current, in_use, base, folder, own, await own_preferences(store, since=since), report)


async def _unlearned(registry: Registry, version: Version) -> Version:
    """The nearest ancestor of a version that is whole and, with all before it, has learned from no conversation."""
    line = await _line(registry, version)
    for one in line:
        before = await _line(registry, one)
        learned = any(each.settings.get("trained", {}).get("conversations") for each in before)
        if "base" not in one.settings and not learned:
            return one
    return line[-1]


async def _line(registry: Registry, version: Version) -> list[Version]:
    """A version and all that it was made from, the nearest first."""
    line, known = [version], {version.ref}
    for one in line:  # which grows meanwhile
        for ref in (one.parent, one.settings.get("base")):
            if ref and ref not in known:
                known.add(ref)
                line.append(await registry.find(ref))
    return line


def samples_of(
    data: Sequence[Path], own: Sequence[Dialogue], more: Sequence[Path], tell: Tell
) -> dict[str, list[Predicted]]:
    """What a candidate is judged on: held-out conversations, and what it must not forget.

    The conversations are the own ones; what is held out of `data` counts where those are too few for a verdict.

    Raises:
        UserError: data that cannot be used.
    """
    tell("Reading what there is to learn from", None)
    for sample in read(files(data)):
        check_learnable(sample)
    found = held_out(data, own, _MOST_SAMPLES, tell)
    target = found.pop("own", [])
    if len(target) < FEWEST:
        target += [sample for some in found.values() for sample in some]
    return {TARGET: target, **general(more)}


def too_few(samples: dict[str, list[Predicted]]) -> str:
    """What to say before anything is trained, where no verdict can come of it; else nothing."""
    count = len(samples[TARGET])
    if count >= FEWEST:
        return ""
    return (
        f"Of what there is to learn from, {count} are held out; {FEWEST} are needed for a verdict, so that whatever "
        "comes of it will stay a candidate."
    )


def enough_preferences(found: Sequence[Preference], base_folder: Path, system: str) -> bool:
    """Whether what people thought of replies is enough to learn from, of what can be learned."""
    options = preferring(base_folder=str(base_folder), system=system)
    return len(found) >= ENOUGH_PREFERENCES and count_preferences(options, found) >= ENOUGH_PREFERENCES


def joined(first: Outcome, then: Outcome) -> Outcome:
    """A fine-tuning and what was learned after it, as one."""
    how = {name: getattr(then.options, name) for name in ("beta", "rate", "epochs", "batch_tokens")}
    return replace(
        first,
        model=then.model,
        options=replace(first.options, conversations=first.options.conversations or then.options.conversations),
        figures=first.figures | {PREFER: then.figures | how},
        fingerprint=fingerprint((first.fingerprint, then.fingerprint)),
        corpus=first.corpus | {PREFER: then.corpus},
    )


def compare(
    current: Candidate,
    outcome: Outcome,
    samples: dict[str, list[Predicted]],
    margins: Margins,
    settings: Settings,
    precision: str,
    tell: Tell,
) -> tuple[Measured, Measured, Verdict]:
    """Measure the model in use and the candidate on the same samples, and judge.

    What must not be forgotten is compared with the base, where that is another: small losses would add up.

    Raises:
        ModelError: one of them does not load.
    """
    folder = Path(outcome.options.base_folder)
    candidate = Candidate("candidate", folder, outcome.model)

    def measured(one: Candidate, some: dict[str, list[Predicted]]) -> Measured:
        return measure(one, some, system=settings.system, precision=precision, tell=tell)

    before, after = measured(current, samples), measured(candidate, samples)
    base = before
    if (current.folder, current.adapter) != (folder, None):
        base = measured(Candidate(outcome.options.base_ref, folder), {kind: samples[kind] for kind in GENERAL})
    return before, after, decide(after, before, base, margins)


async def conclude(
    store: Store,
    settings: Settings,
    ground: Ground,
    outcome: Outcome,
    measured: tuple[Measured, Measured],
    verdict: Verdict,
    learned: Sequence[str],
    *,
    may_promote: bool,
    keep: int,
    notify: Notify,
) -> Conclusion:
    """Register the candidate, and let it answer where it passed and loads.

    Raises:
        UserError: something of what it learned was forgotten meanwhile, or it cannot be copied.
    """
    await check_learned(store, learned)
    before, after = measured
    registry = store.registry
    figures = outcome.figures | after.figures() | {"before": before.figures(), "verdict": verdict.as_json()}
    version = await register(
        registry, settings.home, replace(outcome, figures=figures), NAME, {MARK: True}, again=True
    )
    return await put_to_use(
        store, settings, version, ground.current, verdict, may_promote=may_promote, keep=keep, notify=notify
    )


def clear(run: Path) -> None:
    """Leave the reports and statistics of a run that is concluded; its model is registered."""
    for stage in (run, run / PREFER):
        for name in (_OUTCOME, LEARNED):
            (stage / name).unlink(missing_ok=True)
        for name in ("checkpoints", "best", "model", "data"):
            shutil.rmtree(stage / name, ignore_errors=True)


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
