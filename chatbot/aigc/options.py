"""What a run is asked for, and the presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from chatbot.aigc.networks import Shape
from chatbot.catalog import TEACHERS
from chatbot.errors import UserError


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that decides what a run does; kept in the run, so that resuming asks for nothing.

    Attributes:
        data: folder of pictures.
        conditioning: `text`, `classes` (folder names, without the text encoder) or `none`.
        minutes: total wall time; exactly one of this and `kimg` is given.
        kimg: thousands of pictures shown to the GAN.
        lambda_d, lambda_g: weights of L_AD and L_AG; 0 leaves the assistant out.
        gamma: weight of R1 and R2.
        free_nats: information the code of a picture may carry without cost.
        memory: whether G has one, of the concepts that captions name.
        teacher: name of the frozen network of D's second view, or empty.
        teacher_weight: of that view beside the first.
        base: folder of the model that is trained further; empty: a new one is.
        flips: whether pictures may be mirrored, which turns letters and arrows round.
    """

    data: str
    resolution: int = 64
    preset: str = "cpu-64"
    space: str = "latent"
    loss: str = "r3gan"
    conditioning: str = "text"
    minutes: float | None = None
    kimg: float | None = None
    lambda_d: float = 1.0
    lambda_g: float = 1.0
    gamma: float = 8.0
    free_nats: float = 6.0
    teacher: str = ""
    teacher_weight: float = 0.5
    base: str = ""
    memory: bool = True
    flips: bool = False
    batch: int = 32
    rate: float = 7e-4
    seed: int = 0
    shape: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.loss == "projected" and not self.teacher:
            raise UserError("--loss projected judges through a teacher; name one: --teacher efficientnet-lite0.")

        if self.conditioning == "classes" and not self.memory:
            raise UserError("Classes are known by G's memory; leave --no-memory out.")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


PRESETS: dict[str, dict[str, Any]] = {
    "cpu-32": {"resolution": 32, "batch": 32, "shape": {"width": 96, "mapping": 384, "autoencoder": 96}},
    "cpu-64": {"resolution": 64, "batch": 32, "shape": {"width": 128, "mapping": 512, "autoencoder": 144}},
    "gpu-64": {"resolution": 64, "batch": 256, "shape": {"width": 256, "mapping": 768, "autoencoder": 192}},
    "gpu-128": {"resolution": 128, "batch": 256, "shape": {"width": 256, "mapping": 1024, "autoencoder": 240}},
}
"""Sizes that suit a machine; every value can be set beside it."""


def from_preset(preset: str, **given: Any) -> Options:
    """The options of a preset, what is given (and not None) over it; the projected loss brings a teacher along.

    Raises:
        UserError: a resolution that is no power of two from 32 to 256.
    """
    chosen = (
        PRESETS[preset] | {"preset": preset} | {name: value for name, value in given.items() if value is not None}
    )
    if chosen.get("loss") == "projected":
        chosen = {"teacher": TEACHERS[0].name} | chosen
    options = Options(**chosen)
    if options.resolution not in (32, 64, 128, 256):
        raise UserError("--resolution is 32, 64, 128 or 256.")
    return options


def network_shape(options: Options, channels: int, styles: int, text: int, concepts: int) -> Shape:
    """The shape of a run's networks, once its pictures are known."""
    return replace(
        Shape(**options.shape),
        channels=channels,
        resolution=options.resolution,
        space=options.space,
        styles=styles,
        text=text,
        concepts=concepts if text and options.memory else 0,
    )
