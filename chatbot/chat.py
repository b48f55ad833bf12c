"""ChatService: one message in, a stream of typed events out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field

from chatbot import text as plain
from chatbot.context import build_context
from chatbot.engines.base import Completion, GenerationOptions, Responder
from chatbot.engines.load import Models
from chatbot.errors import UserError
from chatbot.events import ConversationChanged, Event, Failed, Finished, Progress, Started, TextDelta, Usage
from chatbot.router import ToCommand, ToModel, route
from chatbot.settings import Settings
from chatbot.trace import keep_trace
from storage.conversations import Conversation, Conversations, Status, Turn
from storage.errors import StorageError

SAVE_EVERY_S = 0.18
HEARTBEAT_EVERY_S = 1.0


@dataclass(slots=True)
class _LiveReply:
    """A reply under way."""

    events: asyncio.Queue[Event | None] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None
    text: str = ""
    model: str = ""  # `name@version`, once it is loaded
    cancelled: bool = False
    running: asyncio.Event = field(default_factory=asyncio.Event)  # its task may be cancelled from now on
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_as: Status = "stopped"  # what a cancellation means: the person stopped it, or the program ends

    def emit(self, event: Event) -> None:
        self.events.put_nowait(event)

    def add(self, piece: str) -> None:
        self.text += piece
        self.changed.set()
        self.emit(TextDelta(piece))


class ChatService:
    """Conversations with a model. Front ends turn input into one call of it and render the events.

    Args:
        conversations: where everything said is kept.
        models: gives the loaded model.
        settings: sampling and lengths.
    """

    def __init__(self, conversations: Conversations, models: Models, settings: Settings) -> None:
        self.conversations = conversations
        self.models = models
        self._settings = settings
        self._live: dict[str, _LiveReply] = {}

    async def send(
        self, conversation_id: str | None, text: str, *, commands: bool = True, model: str = ""
    ) -> AsyncGenerator[Event, None]:
        """Answer one message in a conversation; None begins a new one.

        Without `commands`, a text that begins with `/` is a message like any other. A `model` answers this once.

        The message is committed before the model starts; the reply is saved as it comes. The last event is
        Finished or Failed, or for a command whatever it tells. Closing the iterator stops the reply and
        keeps what came.
        """
        try:
            text = plain.message(text)
            routed = route(text) if commands else ToModel(text)
            if isinstance(routed, ToCommand):
                async for event in routed.command.run(self, conversation_id, routed.argument):
                    yield event
                return
            if conversation_id in self._live:
                raise UserError("The reply before is still coming; wait for its end, or stop it.")
            conversation: str | Conversation
            if conversation_id is None:
                conversation = Conversation.new(plain.clean(self._settings.system))
                conversation_id = conversation.id
            else:
                conversation = conversation_id
            live = self._live[conversation_id] = _LiveReply()
            try:
                turn = await self.conversations.add_turn(conversation, routed.text)
            except BaseException:
                del self._live[conversation_id]
                raise
        except (UserError, StorageError) as error:
            yield Failed(str(error))
            return
        live.emit(Started(conversation_id, turn.said.id, turn.reply.id))
        live.task = asyncio.create_task(self._answer(live, turn, model))
        try:
            while (next_event := await live.events.get()) is not None:
                yield next_event
        finally:
            await _cancel(live)

    async def stop(self, conversation_id: str) -> bool:
        """Stop the reply under way in a conversation, keep what came; False where there is none."""
        live = self._live.get(conversation_id)
        if live is None or live.task is None:
            return False
        await _cancel(live)
        return True

    async def delete(self, conversation_id: str) -> None:
        """Delete a conversation with all that was said in it. Raises NotFoundError where there is none."""
        await self.stop(conversation_id)
        await self.conversations.delete(conversation_id)

    async def system(self, conversation_id: str | None) -> str:
        """The system prompt of a conversation."""
        if conversation_id is None:
            return self._settings.system
        return (await self.conversations.get(conversation_id)).system

    async def set_system(self, conversation_id: str | None, system: str) -> str:
        """Give a conversation (None: a new one) another system prompt; returns its id."""
        system = plain.clean(system)
        if conversation_id is None:
            return (await self.conversations.create(system)).id
        await self.conversations.set_system(conversation_id, system)
        return conversation_id

    async def model(self, conversation_id: str | None) -> str:
        """`name@version` of what answers in a conversation."""
        own = "" if conversation_id is None else (await self.conversations.get(conversation_id)).model
        return await self.models.name(own)

    async def set_model(
        self, conversation_id: str | None, wanted: str
    ) -> AsyncGenerator[Progress | ConversationChanged, None]:
        """Let another model answer in a conversation (None: a new one); empty: the one in use.

        It is loaded first, and tells how that goes. Where it fails, the one before goes on answering.

        Raises:
            ModelError: it cannot be loaded.
        """
        progress: asyncio.Queue[Progress | None] = asyncio.Queue()
        loading = asyncio.create_task(self.models.load(progress.put_nowait, wanted))
        loading.add_done_callback(lambda _: progress.put_nowait(None))
        try:
            while (step := await progress.get()) is not None:
                yield step
        finally:
            loading.cancel()
        await loading
        own = await self.models.name(wanted) if wanted else ""  # a path means something else in another folder
        if conversation_id is None:
            system = plain.clean(self._settings.system)
            conversation_id = (await self.conversations.create(system, model=own)).id
        else:
            await self.conversations.set_model(conversation_id, own)
        yield ConversationChanged(conversation_id)

    async def close(self) -> None:
        """End all replies, as interrupted, and give the model's memory back."""
        for live in list(self._live.values()):
            live.ended_as = "interrupted"
            await _cancel(live)
        await self.models.close()

    async def _answer(self, live: _LiveReply, turn: Turn, model: str) -> None:
        reply = turn.reply
        saver = asyncio.create_task(self._keep_saving(live, reply.id))
        status: Status = "failed"
        end: Finished | Failed
        usage: Usage | None = None
        live.running.set()
        try:
            try:
                wanted = model or turn.conversation.model
                began = time.perf_counter()
                async with self.models.responder(live.emit, wanted) as responder:
                    live.model = responder.name
                    load_s = time.perf_counter() - began
                    usage, end = await self._generate(live, turn, responder, load_s, saver)
                status = "complete"
            except asyncio.CancelledError:
                status = live.ended_as
                end = Finished(reply.id, live.text, "stopped", live.model)
            except (UserError, StorageError) as error:
                end = Failed(str(error))
            except Exception as error:  # whatever it was: the reply has an end, and the person a sentence
                end = Failed(keep_trace(error))
            finally:
                live.ended.set()
                live.changed.set()
                with suppress(StorageError):  # the end is saved below, and tells
                    await saver
            try:
                await self.conversations.end_reply(
                    reply.id,
                    live.text,
                    status,
                    model=live.model or None,
                    finish_reason=end.reason if isinstance(end, Finished) and status != "interrupted" else None,
                    usage=None if usage is None else asdict(usage),
                    error=end.text if isinstance(end, Failed) else None,
                )
            except StorageError as error:
                end = Failed(str(error))
            live.emit(end)
        finally:
            self._live.pop(turn.said.conversation_id, None)
            live.events.put_nowait(None)

    async def _generate(
        self, live: _LiveReply, turn: Turn, responder: Responder, load_s: float, saver: asyncio.Task[None]
    ) -> tuple[Usage, Finished]:
        context = await build_context(
            self.conversations, turn.said.id, turn.conversation.system, responder, self._settings.max_tokens
        )
        options = GenerationOptions(
            max_tokens=context.reply_tokens,
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
            repeat_penalty=self._settings.repeat_penalty,
            seed=self._settings.seed,
            stop=tuple(self._settings.stop),
        )
        asked = time.perf_counter()
        first_token_s = 0.0
        completion: Completion | None = None
        async with aclosing(responder.reply(context.messages, options)) as pieces:
            async for piece in pieces:
                if saver.done():
                    saver.result()  # raises what ended it: a reply that cannot be kept goes no further
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

    async def _keep_saving(self, live: _LiveReply, reply_id: str) -> None:
        """Save the first piece at once, then what came since at least five times a second; show that this
        process lives when nothing comes."""
        while not live.ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(live.changed.wait(), HEARTBEAT_EVERY_S)
            live.changed.clear()
            if not live.ended.is_set():
                await self.conversations.save_reply(reply_id, live.text)
            with suppress(TimeoutError):
                await asyncio.wait_for(live.ended.wait(), SAVE_EVERY_S)


async def _cancel(live: _LiveReply) -> None:
    if live.task is not None:
        await live.running.wait()
        if not live.cancelled:  # once: a second one would hit the saving of what came
            live.cancelled = True
            live.task.cancel()
        await asyncio.wait([live.task])
