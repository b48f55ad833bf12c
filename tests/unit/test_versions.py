"""Which version answers: use, promote, roll back."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot.catalog import CATALOG, TEACHERS
from chatbot.errors import ModelError
from chatbot.registry import Registry
from chatbot.settings import Settings
from storage.database import Database
from storage.errors import StorageError
from storage.versions import Kind, Version, Versions
from tests.tiny_models import tiny_gguf


def nothing(text: str, fraction: float | None) -> None:
    pass


def version(name: str, number: str, kind: Kind = "gpt") -> Version:
    settings = {"engine": "llamacpp", "file": "model.gguf", "context_length": 64}
    return Version(kind, name, number, folder="/nowhere", checksum="", code_version="1", settings=settings)


@pytest.fixture
def versions(database: Database) -> Versions:
    return Versions(database)


@pytest.fixture
def registry(versions: Versions) -> Registry:
    return Registry(versions, Settings.load())


async def test_the_default_answers_as_long_as_nothing_was_chosen(registry: Registry) -> None:
    assert (await registry.current("gpt")).ref == CATALOG[0].ref


async def test_a_registered_candidate_changes_nothing(registry: Registry, versions: Versions) -> None:
    await versions.add(version("mine", "1"))
    assert (await registry.current("gpt")).ref == CATALOG[0].ref


async def test_promoting_and_rolling_back_walk_the_same_way(registry: Registry, versions: Versions) -> None:
    for number in ("1", "2"):
        await versions.add(version("mine", number))
        await registry.promote(f"mine@{number}")
    assert (await registry.current()).ref == "mine@2"
    assert (await registry.find("mine")).ref == "mine@2"
    assert (await registry.rollback("gpt")).ref == "mine@1"
    assert (await registry.rollback("gpt")).ref == CATALOG[0].ref
    with pytest.raises(StorageError, match="roll back"):
        await registry.rollback("gpt")
    assert [entry.action for entry in await registry.history("gpt")] == ["rollback", "rollback", "promote", "promote"]
    assert {row.version.ref: row.state for row in await registry.list("gpt")} == {
        "mine@1": "retired",
        "mine@2": "retired",
        CATALOG[0].ref: "current",
        "smollm2-135m-answers@1": "available",
    }


async def test_kinds_do_not_mix(registry: Registry, versions: Versions) -> None:
    await versions.add(version("painter", "1", kind="aigc"))
    await registry.promote("painter@1")
    assert (await registry.current("aigc")).ref == "painter@1"
    assert (await registry.current("gpt")).ref == CATALOG[0].ref
    states = {row.version.ref: row.state for row in await registry.list("aigc")}
    assert states == {"painter@1": "current", "stickers@2": "available"}


async def test_what_ships_with_the_program_is_there_and_cannot_be_removed(registry: Registry) -> None:
    assert (await registry.current("aigc")).ref == "stickers@2"
    assert registry.path(await registry.current("aigc")).is_file()
    with pytest.raises(ModelError, match="part of chatbot"):
        await registry.remove("stickers")


async def test_only_a_candidate_is_promoted(registry: Registry, versions: Versions) -> None:
    await versions.add(version("mine", "1"))
    await registry.promote("mine@1")
    for ref in ("mine@1", CATALOG[0].ref, "mine"):
        with pytest.raises(ModelError):
            await registry.promote(ref)


async def test_the_version_in_use_is_not_removed(registry: Registry, versions: Versions) -> None:
    await versions.add(version("mine", "1"))
    await registry.promote("mine@1")
    with pytest.raises(StorageError, match="in use"):
        await registry.remove("mine")
    await registry.rollback("gpt")
    await registry.remove("mine")
    with pytest.raises(ModelError, match="no model"):
        await registry.find("mine")


async def test_removing_leaves_everything_alone_that_is_not_ours(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious").write_text("mine")
    remote = await registry.pull("llama3@http://localhost:11434/v1", nothing)
    await registry.remove(remote.ref)
    assert (tmp_path / "precious").is_file()


async def test_the_default_is_not_removed_while_it_answers(registry: Registry, model_path: Path) -> None:
    with pytest.raises(ModelError, match="in use"):
        await registry.remove(CATALOG[0].ref)
    assert model_path.is_file()


async def test_the_url_of_an_endpoint_holds_no_key(registry: Registry) -> None:
    for url in ("https://me:secret@example.org/v1", "https://example.org/v1?key=secret"):
        with pytest.raises(ModelError, match="holds no key"):
            await registry.find(f"m@{url}")


@pytest.mark.parametrize("name", ["my m@del.gguf", "fake.gguf", "smollm2-135m-instruct.gguf"])
async def test_a_file_of_any_name_has_a_ref_that_finds_it_again(
    registry: Registry, tmp_path: Path, name: str
) -> None:
    tiny_gguf(tmp_path / name, "nothing")
    registered = await registry.find(str(tmp_path / name))
    assert (await registry.find(registered.ref)).folder == str(tmp_path)
    assert (await registry.find(CATALOG[0].name)).ref == CATALOG[0].ref


async def test_the_same_version_is_not_registered_twice(versions: Versions) -> None:
    await versions.add(version("mine", "1"))
    with pytest.raises(StorageError, match="already"):
        await versions.add(version("mine", "1"))


async def test_an_unknown_model_is_refused_with_the_nearest_name(registry: Registry) -> None:
    with pytest.raises(ModelError, match="did you mean smollm2-135m-instruct"):
        await registry.find("smollm-135m-instruct")


async def test_using_a_version_whose_file_is_gone_changes_nothing(registry: Registry, versions: Versions) -> None:
    await versions.add(version("mine", "1"))
    with pytest.raises(ModelError, match="missing"):
        await registry.use("mine", nothing)
    assert (await registry.current()).ref == CATALOG[0].ref


async def test_a_teacher_is_in_no_list_and_cannot_be_let_answer(registry: Registry) -> None:
    assert TEACHERS[0].ref not in {row.version.ref for row in await registry.list()}
    with pytest.raises(ModelError, match="answers nothing"):
        await registry.use(TEACHERS[0].name, nothing)
    with pytest.raises(ModelError, match="There is no model"):
        await registry.find(TEACHERS[0].name)
