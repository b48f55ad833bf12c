"""What a run is asked for, and the sizes that a model can have."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from chatbot.errors import UserError

Stage = Literal["pretrain", "finetune", "prefer"]


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that decides what a run does; kept in the run, so that resuming asks for nothing.

    Attributes:
        data: files and folders.
        conversations: learn from the conversations of people who allowed it, too.
        base: the model that is fine-tuned, as it was named, and `base_ref`, what that is; `base_folder` holds it.
        adapter: folder of the adapter beside the base that is trained further, and `adapter_ref`, what that is, where
            it is a version; empty: a new one is, or all weights are.
        tokenizer: folder of the tokenizer to reuse in pretraining; empty: one is trained.
        vocabulary, layers, width, heads: of a new model.
        block: tokens of a row, and of the longest text the model sees in training.
        batch_tokens: tokens that are read before each step, over all processes: the token budget.
        micro_rows: rows computed at once; 0: as many as the memory allows.
        steps: 0: as many as `epochs` passes over the data take.
        rate: learning rate at its highest; it rises over `warmup` of the steps and falls along a cosine to a tenth.
        lora_rank: of the adapters; 0: all weights are trained.
        beta: how closely preferences are learned beside what the model was: the less, the closer.
        system: system prompt of conversations that have none.
        evaluations: how often the held-out rows are looked at in the whole run.
        patience: evaluations without a better one after which it stops; 0: never.
        precision: `bf16` or `fp32`.
    """

    stage: Stage
    data: tuple[str, ...] = ()
    conversations: bool = False
    since: str = ""
    base: str = ""
    base_ref: str = ""
    base_folder: str = ""
    adapter: str = ""
    adapter_ref: str = ""
    tokenizer: str = ""
    size: str = "nano"
    vocabulary: int = 2048
    layers: int = 4
    width: int = 128
    heads: int = 4
    block: int = 256
    batch_tokens: int = 2048
    micro_rows: int = 0
    steps: int = 0
    epochs: float = 1.0
    rate: float = 3e-3
    warmup: float = 0.03
    decay: float = 0.1
    lora_rank: int = 0
    beta: float = 0.1
    system: str = ""
    evaluations: int = 20
    patience: int = 0
    precision: Literal["bf16", "fp32"] = "fp32"
    compile: bool = False
    fsdp: bool = False
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def rows_a_step(self) -> int:
        return max(1, round(self.batch_tokens / self.block))


SIZES: dict[str, dict[str, Any]] = {
    "nano": {
        "vocabulary": 2048, "layers": 4, "width": 128, "heads": 4,
        "block": 256, "batch_tokens": 2048, "rate": 3e-3, "epochs": 2.0,
    },
    "micro": {
        "vocabulary": 8192, "layers": 6, "width": 384, "heads": 6,
        "block": 512, "batch_tokens": 16_384, "rate": 2e-3, "epochs": 2.0,
    },
    "small": {
        "vocabulary": 16_384, "layers": 8, "width": 512, "heads": 8,
        "block": 512, "batch_tokens": 65_536, "rate": 1.5e-3, "epochs": 1.0,
    },
    "124m": {
        "vocabulary": 50_304, "layers": 12, "width": 768, "heads": 12,
        "block": 1024, "batch_tokens": 524_288, "rate": 1e-3, "epochs": 1.0,
    },
}  # fmt: skip
"""The dial of pretraining; every value can be set beside it."""

FULL: dict[str, Any] = {"block": 512, "batch_tokens": 8192, "rate": 3e-5, "epochs": 2.0, "decay": 0.01, "patience": 3}
LORA: dict[str, Any] = FULL | {"lora_rank": 16, "rate": 5e-4, "decay": 0.0}
"""Fine-tuning: of all weights, and of adapters beside them (Hu et al. 2021)."""

PREFER: dict[str, Any] = LORA | {"rate": 5e-5, "epochs": 1.0, "evaluations": 4, "patience": 0}
"""Learning preferences: a row of the budget is an example, of two replies or one."""


def pretraining(size: str, **given: Any) -> Options:
    """The options of a size, what is given (and not None) over it. Raises UserError."""
    return _checked(SIZES[size] | {"stage": "pretrain", "size": size}, given)


def finetuning(method: Literal["lora", "full"], **given: Any) -> Options:
    """The options of a way of fine-tuning, what is given (and not None) over it. Raises UserError."""
    return _checked((LORA if method == "lora" else FULL) | {"stage": "finetune", "size": ""}, given)


def preferring(**given: Any) -> Options:
    """The options of learning preferences, what is given (and not None) over them. Raises UserError."""
    return _checked(PREFER | {"stage": "prefer", "size": ""}, given)


def begin_with(adapter: Path) -> dict[str, Any]:
    """The options of training the adapter in a folder further. Raises UserError where there is none."""
    try:
        rank = int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"There is no adapter in {adapter}.") from None
    return {"adapter": str(adapter), "lora_rank": rank}


def _checked(chosen: dict[str, Any], given: dict[str, Any]) -> Options:
    options = Options(**chosen | {name: value for name, value in given.items() if value is not None})
    if options.width % (2 * options.heads):
        raise UserError(f"A width of {options.width} cannot be shared by {options.heads} heads evenly, two by two.")
    if options.block > options.batch_tokens:
        raise UserError(f"--batch-tokens {options.batch_tokens} is less than a row (--block {options.block}).")
    return options
