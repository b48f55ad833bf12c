"""A message that asks for a picture is answered with one, which belongs to the reply."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from chatbot.events import Event, ImageReady, TextDelta
from storage.errors import NotFoundError
from tests.scripted import failure, listen, scripted_service


async def heard(events: object) -> list[Event]:
    async with aclosing(events) as stream:  # type: ignore[type-var]  # any stream of events
        return [event async for event in stream]


async def test_a_picture_is_kept_with_its_prompt_its_seed_and_its_version() -> None:
    async with scripted_service() as service:
        events = await heard(service.send(None, "Could you draw a red fox, please?"))
        (image,) = [event for event in events if isinstance(event, ImageReady)]
        assert (image.prompt, image.model) == ("a red fox", "fake-pictures@1")
        assert image.path.read_bytes().startswith(b"\x89PNG")
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        assert text == "Here is a picture: a red fox."
        (conversation,) = await service.conversations.list()
        said, reply = await service.conversations.path(conversation.leaf_id)
        assert (said.text, reply.text, reply.status) == ("Could you draw a red fox, please?", text, "complete")
        assert (reply.model, reply.attached) == ("fake-pictures@1", 1)
        (kept,) = await service.store.attachments.of_messages([reply.id])
        assert kept.details == {
            "prompt": "a red fox",
            "seed": image.seed,
            "style": image.style,
            "version": "fake-pictures@1",
        }
        assert [hit.message_id for hit in await service.search("red fox picture")] == [reply.id]


async def test_another_reply_is_another_picture_and_the_command_takes_its_options() -> None:
    async with scripted_service() as service:
        started, _ = await listen(service.send(None, "/imagine --seed 3 --style round a sun"))
        (first,) = await service.store.attachments.of_messages([started.reply])
        assert (first.details["seed"], first.details["style"]) == (3, "round")
        started, _ = await listen(service.send(started.conversation, "画一只猫"))
        again, finished = await listen(service.regenerate(started.conversation))
        assert finished.text == "画好了：一只猫。"
        of_both = await service.store.attachments.of_messages([started.reply, again.reply])
        assert len({kept.details["seed"] for kept in of_both}) == 2
        assert "what shall be in the picture" in await failure(service.send(started.conversation, "/imagine"))
        assert "does not know the style 'oil'" in await failure(service.send(None, "/imagine --style oil a cat"))


async def test_words_and_pictures_answer_each_other() -> None:
    async with scripted_service(lambda messages: "A fox is a small animal. " + messages[-2].content) as service:
        assert "Nothing was said yet" in await failure(service.send(None, "draw it"))
        started, _ = await listen(service.send(None, "/imagine blorg"))
        _, finished = await listen(service.send(started.conversation, "What did you draw?"))
        assert finished.text.endswith("Here is a picture: blorg. fake-pictures@1 may not know what this is.")
        drawn, _ = await listen(service.send(started.conversation, "Now draw that"))
        (kept,) = await service.store.attachments.of_messages([drawn.reply])
        assert kept.details["prompt"].startswith("A fox is a small animal.")


async def test_a_script_that_asks_for_words_gets_words() -> None:
    async with scripted_service() as service:
        _, finished = await listen(service.send(None, "draw a cat", commands=False))
        assert finished.text == "You said: draw a cat"
        _, finished = await listen(service.send(None, "Draw a conclusion from this."))
        assert finished.text.startswith("You said")


async def test_a_picture_is_forgotten_with_its_conversation() -> None:
    async with scripted_service() as service:
        started, _ = await listen(service.send(None, "/imagine a red fox"))
        (kept,) = await service.store.attachments.of_messages([started.reply])
        path = service.store.attachments.path(kept.id)
        assert path.exists()
        await service.delete(started.conversation)
        assert not path.exists()
        assert not await service.store.attachments.of_messages([started.reply])
        with pytest.raises(NotFoundError):
            await service.store.attachments.read(kept.id)


async def test_a_picture_that_is_stopped_leaves_the_conversation_in_order() -> None:
    async with scripted_service() as service:
        service.models.pictures._delay = 30  # type: ignore[attr-defined]  # the scripted one
        async with aclosing(service.send(None, "/imagine a red fox")) as events:
            started = await anext(events)
            assert await service.stop(started.conversation)  # type: ignore[union-attr]  # it has begun
            rest = [event async for event in events]
        assert rest[-1].reason == "stopped"  # type: ignore[union-attr]  # it ended so
        assert (await service.conversations.message(started.reply)).status == "stopped"  # type: ignore[union-attr]  # it has begun
