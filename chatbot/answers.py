"""What answers a message: the chat model in words, or the picture model in a picture with a line beneath."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import replace

from chatbot import text as plain
from chatbot.context import build_context
from chatbot.engines.base import Completion, GenerationOptions, ImageGenerator, Picture, Responder
from chatbot.errors import MessageError
from chatbot.events import Finished, ImageReady, Progress, Usage
from chatbot.live import LiveReply
from chatbot.picture_requests import PictureRequest, is_chinese
from chatbot.settings import Settings
from chatbot.store import Store
from storage.records import Turn

SAID_LENGTH = 200
"""Characters of what was said last that a picture is made of, where it is asked for as `it` or `that`."""


async def in_words(
    store: Store, settings: Settings, live: LiveReply, turn: Turn, responder: Responder, load_s: float
) -> tuple[Usage, Finished]:
    """Let the chat model answer. Raises UserError or StorageError."""
    context = live.context = await build_context(
        store,
        turn.said.id,
        turn.conversation.system,
        responder,
        settings.max_tokens,
        begun=turn.reply.text,
        first=turn.said if turn.said.parent_id is None else None,
    )
    options = GenerationOptions(
        max_tokens=context.reply_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        repeat_penalty=settings.repeat_penalty,
        seed=settings.seed,
        stop=tuple(settings.stop),
    )
    asked = time.perf_counter()
    first_token_s = 0.0
    completion: Completion | None = None
    async with aclosing(responder.reply(context.messages, options)) as pieces:
        async for piece in pieces:
            live.check()
            if isinstance(piece, Completion):
                completion = piece
            elif piece := plain.clean(piece):
                first_token_s = first_token_s or time.perf_counter() - asked
                live.add(piece)
    assert completion is not None, "an engine ends its reply with a Completion"
    usage = Usage(
        prompt_tokens=completion.prompt_tokens,
        cached_tokens=completion.cached_tokens,
        completion_tokens=completion.completion_tokens,
        context_length=responder.context_length,
        load_s=load_s,
        first_token_s=first_token_s,
        decode_tokens_per_s=completion.decode_tokens_per_s,
    )
    live.emit(usage)
    return usage, Finished(turn.reply.id, live.text, completion.finish_reason, responder.name)


async def in_a_picture(
    store: Store, live: LiveReply, turn: Turn, request: PictureRequest, generator: ImageGenerator
) -> Finished:
    """Let the picture model answer; the picture is kept before it is told of. Raises UserError or StorageError."""
    if not request.prompt:
        request = replace(request, prompt=await _said_last(store, turn))
    live.emit(Progress(f"Drawing {request.prompt}"))
    notices: list[str] = []
    answers = generator.imagine(request.prompt, seed=request.seed, style=request.style)
    async with aclosing(answers) as made:
        async for answer in made:
            live.check()
            if isinstance(answer, Picture):
                await _keep(store, live, turn, request.prompt, answer, generator.name)
            else:
                notices.append(answer)
    live.add(" ".join([_told(request.prompt), *notices]))
    return Finished(turn.reply.id, live.text, "stop", generator.name)


async def _keep(store: Store, live: LiveReply, turn: Turn, prompt: str, picture: Picture, model: str) -> None:
    details = {"prompt": prompt, "seed": picture.seed, "style": picture.style, "version": model}
    kept = await store.attachments.add(turn.reply.id, "picture.png", "image/png", picture.png, details)
    path = store.attachments.path(kept.id)
    live.emit(ImageReady(kept.id, path, prompt, picture.seed, picture.style, model))


async def _said_last(store: Store, turn: Turn) -> str:
    """The beginning of what stands before the message that asks for a picture of it."""
    for message in reversed(await store.conversations.path(turn.said.parent_id, 2)):
        if said := " ".join(message.text.split()):
            end = max(said.rfind(mark, 0, SAID_LENGTH) for mark in ".!?。！？") + 1
            return said[: end or SAID_LENGTH]
    raise MessageError("Nothing was said yet that could be drawn; say what shall be in the picture.")


def _told(prompt: str) -> str:
    """A line that search finds, and by which the chat model knows what was drawn."""
    line = prompt.rstrip(" .。!！")
    return f"画好了：{line}。" if is_chinese(prompt) else f"Here is a picture: {line}."
