"""The stages of retraining the picture model, from a folder of pictures to the verdict.

The model in use is trained further, with its assistants where they were kept, and judged beside itself on pictures
that neither was trained on.
"""

from __future__ import annotations

import html
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chatbot.aigc.dataset import ITEMS, Item, load
from chatbot.aigc.further import options_for
from chatbot.aigc.jury import Looked, kid_difference, retrieval_difference
from chatbot.aigc.model import PictureModel
from chatbot.aigc.options import Options
from chatbot.aigc.train import Outcome
from chatbot.aigc.versions import register
from chatbot.engines.load import Notify
from chatbot.engines.load_pictures import model_folder
from chatbot.errors import UserError
from chatbot.retrain.conclude import Conclusion, put_to_use
from chatbot.retrain.keep import MARK
from chatbot.retrain.verdict import Check, Verdict, markdown, rows
from chatbot.settings import Settings
from chatbot.store import Store
from chatbot.training.stats import page, table
from storage.versions import Version

NAME = "retrained-pictures"
"""Of the versions that come of it."""

MOST_KID, MOST_RETRIEVAL, LEAST_DIVERSITY = 0.03, 0.05, 0.9
"""How much worse a candidate may be at the one while it is better at the other: KID-like, at the upper bound of the
difference; share of captions found; and the share of the diversity that it has to keep."""

Tell = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class Ground:
    """What a retraining begins with: the version in use, and the folder of its model."""

    current: Version
    folder: Path

    @property
    def channels(self) -> int:
        """Of its pictures. Raises ModelError where the model cannot be read."""
        return PictureModel(self.folder).shape.channels

    def options(self, data: Path, minutes: float, seed: int) -> Options:
        """Raises ModelError where the model cannot be read, UserError where it was trained without captions."""
        options = options_for(self.folder, data=str(data), minutes=minutes, seed=seed)
        if options.conditioning != "text":
            raise UserError(
                f"{self.current.ref} was trained without captions, and what is judged is whether it shows them; "
                "`chatbot train aigc` trains a new one."
            )
        return options


async def survey(store: Store, tell: Tell) -> Ground:
    """Find out what is in use. Raises ModelError where it cannot be had."""
    current = await store.registry.current("aigc")
    folder, _ = await model_folder(store.registry, tell, current.ref)
    return Ground(current, folder)


def check_resumed(run: Path, options: Options, ground: Ground, items: Sequence[Item]) -> None:
    """Raises UserError where the model in use is another than when the run began, or its pictures are: it would be
    judged by some of those that it was trained on."""
    if options.base != str(ground.folder):
        raise UserError(
            f"The run in {run} does not begin with {ground.current.ref}, which is in use; begin anew, or go on with "
            "it by `chatbot train aigc`."
        )
    if (run / "data" / ITEMS).exists() and load(run / "data").items != tuple(items):
        raise UserError(f"The pictures in {options.data} are others than when the run began; begin anew.")


def decide(candidate: Looked, current: Looked) -> Verdict:
    """Judge a candidate beside the model in use, both looked at by the same judge on the same held-out pictures.

    It has to be better, beyond the 95 % interval of the difference, in likeness or in captions found, and no worse,
    but for the margins, in the other and in the diversity of a caption.
    """
    before, after = current.figures(), candidate.figures()
    kid, found = kid_difference(candidate, current), retrieval_difference(candidate, current)
    kept = after["diversity"] / max(1e-9, before["diversity"])
    checks = (
        ("better at one", "", "", f"KID-like {kid.signed()}, captions {found.signed()}",
         "the whole interval of KID-like has to be below 0, or that of the captions above 0",
         kid.high < 0 or found.low > 0),
        ("KID-like of held-out pictures", before["kid_like"], after["kid_like"], kid.signed(),
         f"the upper bound may be {MOST_KID:+g} at most", kid.high <= MOST_KID),
        ("captions found among a hundred, or all there are", before["retrieval"], after["retrieval"], found.signed(),
         f"a share of {MOST_RETRIEVAL:g} may be lost at most", found.value >= -MOST_RETRIEVAL),
        ("diversity of a caption", before["diversity"], after["diversity"], f"x {kept:.2f}",
         f"a share of {LEAST_DIVERSITY:g} has to stay", kept >= LEAST_DIVERSITY),
    )  # fmt: skip
    return Verdict(
        tuple(
            Check(what, current.name, _shown(one), _shown(other), difference, rule, passed)
            for what, one, other, difference, rule, passed in checks
        )
    )


async def conclude(
    store: Store,
    settings: Settings,
    ground: Ground,
    outcome: Outcome,
    looked: tuple[Looked, Looked],
    verdict: Verdict,
    *,
    may_promote: bool,
    keep: int,
    notify: Notify,
) -> Conclusion:
    """Register the candidate, and put it to use where it passed and loads. Raises UserError: it cannot be copied."""
    before, after = looked
    figures = outcome.figures | after.figures() | {"before": before.figures(), "verdict": verdict.as_json()}
    outcome = replace(outcome, figures=figures)
    version = await register(store.registry, settings.home, outcome, NAME, {MARK: True}, ground.current.ref, True)
    return await put_to_use(
        store, settings, version, ground.current, verdict, may_promote=may_promote, keep=keep, notify=notify
    )


def report(run: Path, looked: Sequence[Looked], verdict: Verdict, said: str) -> Path:
    """Write retrain.html and retrain.md into the folder of the run; returns the path of the page."""
    for one, name in zip(looked, ("before", "after"), strict=True):
        one.sheet.save(run / f"{name}.png")
    figures = [("", *(one.name for one in looked))]
    figures += [(key, *(f"{one.figures()[key]:.4g}" for one in looked)) for key in looked[0].figures()]
    pictures = "".join(
        f'<h3>{html.escape(one.name)}</h3><img src="{name}.png" alt="">'
        for one, name in zip(looked, ("before", "after"), strict=True)
    )
    body = (
        f"<p><b>{html.escape(said)}</b></p>{table(rows(verdict))}<h2>Before and after</h2>{table(figures)}"
        f"<h2>Held-out captions</h2>{pictures}"
        '<p><a href="report.html">How it was trained, with curves</a></p>'
    )
    title = f"Retraining report: {run.name}"
    text = "\n\n".join((f"# {title}", said, markdown(rows(verdict)), markdown(figures)))
    (run / "retrain.md").write_text(text + "\n", encoding="utf-8")
    place = run / "retrain.html"
    place.write_text(page(html.escape(title), body), encoding="utf-8")
    return place


def clear(run: Path) -> None:
    """Leave the reports and statistics of a run that is concluded; its model is registered."""
    (run / "run.json").unlink(missing_ok=True)  # first: it is not gone on with any more
    for name in ("checkpoints", "best", "model", "data"):
        shutil.rmtree(run / name, ignore_errors=True)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
