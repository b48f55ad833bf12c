"""ChatService: one message in, a stream of typed events out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field

from chatbot import text as plain
from chatbot.context import build_context
from chatbot.engines.base import Completion, GenerationOptions
from chatbot.engines.load import Models
from chatbot.errors import UserError
from chatbot.events import Event, Failed, Finished, Started, TextDelta, Usage
from chatbot.router import ToCommand, ToModel, route
from chatbot.settings import Settings
from chatbot.trace import keep_trace
from storage.conversations import Conversations, Message, Status
from storage.errors import StorageError

SAVE_EVERY_S = 0.15
HEARTBEAT_EVERY_S = 1.0


@dataclass(slots=True)
class _Turn:
    """A reply under way."""

    events: asyncio.Queue[Event | None] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None
    text: str = ""
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
        self._turns: dict[str, _Turn] = {}

    async def send(
        self, conversation_id: str | None, text: str, *, commands: bool = True
    ) -> AsyncGenerator[Event, None]:
        """Answer one message in a conversation; None begins a new one.

        Without `commands`, a text that begins with `/` is a message like any other.

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
            if conversation_id in self._turns:
                raise UserError("The reply before is still coming; wait for its end, or stop it.")
            if conversation_id is None:
                conversation_id = (await self.conversations.create(plain.clean(self._settings.system))).id
            turn = self._turns[conversation_id] = _Turn()
            try:
                said, reply = await self.conversations.add_turn(conversation_id, routed.text)
            except BaseException:
                del self._turns[conversation_id]
                raise
        except (UserError, StorageError) as error:
            yield Failed(str(error))
            return
        turn.emit(Started(conversation_id, said.id, reply.id))
        turn.task = asyncio.create_task(self._answer(turn, said, reply))
        try:
            while (next_event := await turn.events.get()) is not None:
                yield next_event
        finally:
            await _cancel(turn)

    async def stop(self, conversation_id: str) -> bool:
        """Stop the reply under way in a conversation, keep what came; False where there is none."""
        turn = self._turns.get(conversation_id)
        if turn is None or turn.task is None:
            return False
        await _cancel(turn)
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

    async def close(self) -> None:
        """End all replies, as interrupted, and give the model's memory back."""
        for turn in list(self._turns.values()):
            turn.ended_as = "interrupted"
            await _cancel(turn)
        await self.models.close()

    async def _answer(self, turn: _Turn, said: Message, reply: Message) -> None:
        saver = asyncio.create_task(self._keep_saving(turn, reply.id))
        status: Status = "failed"
        end: Finished | Failed
        model: str | None = None
        usage: Usage | None = None
        turn.running.set()
        try:
            try:
                model = await self.models.name()
                usage, end = await self._generate(turn, said, reply, saver)
                status = "complete"
            except asyncio.CancelledError:
                status = turn.ended_as
                end = Finished(reply.id, turn.text, "stopped", model or "")
            except (UserError, StorageError) as error:
                end = Failed(str(error))
            except Exception as error:  # whatever it was: the reply has an end, and the person a sentence
                end = Failed(keep_trace(error))
            finally:
                turn.ended.set()
                turn.changed.set()
                with suppress(StorageError):  # the end is saved below, and tells
                    await saver
            try:
                await self.conversations.end_reply(
                    reply.id,
                    turn.text,
                    status,
                    model=model,
                    finish_reason=end.reason if isinstance(end, Finished) else None,
                    usage=None if usage is None else asdict(usage),
                    error=end.text if isinstance(end, Failed) else None,
                )
            except StorageError as error:
                end = Failed(str(error))
            turn.emit(end)
        finally:
            self._turns.pop(said.conversation_id, None)
            turn.events.put_nowait(None)

    async def _generate(
        self, turn: _Turn, said: Message, reply: Message, saver: asyncio.Task[None]
    ) -> tuple[Usage, Finished]:
        began = time.perf_counter()
        responder = await self.models.responder(turn.emit)
        load_s = time.perf_counter() - began
        system = (await self.conversations.get(said.conversation_id)).system
        context = await build_context(self.conversations, said.id, system, responder, self._settings.max_tokens)
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
                    turn.add(piece)
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
        turn.emit(usage)
        return usage, Finished(reply.id, turn.text, completion.finish_reason, responder.name)

    async def _keep_saving(self, turn: _Turn, reply_id: str) -> None:
        """Save the first piece at once, then what came since at least five times a second; show that this
        process lives when nothing comes."""
        while not turn.ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(turn.changed.wait(), HEARTBEAT_EVERY_S)
            turn.changed.clear()
            if not turn.ended.is_set():
                await self.conversations.save_reply(reply_id, turn.text)
            with suppress(TimeoutError):
                await asyncio.wait_for(turn.ended.wait(), SAVE_EVERY_S)


async def _cancel(turn: _Turn) -> None:
    if turn.task is not None:
        await turn.running.wait()
        if not turn.cancelled:  # once: a second one would hit the saving of what came
            turn.cancelled = True
            turn.task.cancel()
        await asyncio.wait([turn.task])
