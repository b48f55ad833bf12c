"""ChatService: one message in, a stream of typed events out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict

from chatbot import answers
from chatbot import text as plain
from chatbot.commands import Call
from chatbot.context import Context, build_context
from chatbot.engines.load import Models
from chatbot.errors import MessageError, UserError
from chatbot.events import ConversationChanged, Event, Failed, Finished, Progress, Started, Usage
from chatbot.live import LiveReply
from chatbot.picture_requests import PictureRequest
from chatbot.router import ToCommand, ToModel, ToPictures, route, route_said
from chatbot.saving import Saver
from chatbot.settings import Settings
from chatbot.store import Store
from chatbot.summarise import FULL, summarise
from chatbot.trace import keep_trace
from storage.copies import copy
from storage.errors import StorageError
from storage.feedback import Value
from storage.people import LOCAL
from storage.records import Conversation, Status, Turn
from storage.search import Hit, Query

STILL_READ = "It is deleted, but another chatbot reads the database: its log keeps traces until that one is closed."
LOOK_BACK = 32
"""Messages among which the last one of a kind is looked for."""


class ChatService:
    """Conversations with a model. Front ends turn input into one call of it and render the events.

    Args:
        store: where everything said is kept.
        models: gives the loaded model.
        settings: sampling and lengths.
    """

    def __init__(self, store: Store, models: Models, settings: Settings) -> None:
        self.store = store
        self.conversations = store.conversations
        self.models = models
        self._settings = settings
        self._live: dict[str, LiveReply] = {}
        self._saver = Saver(store.conversations)
        self._summarising: set[asyncio.Task[None]] = set()

    async def send(
        self,
        conversation_id: str | None,
        text: str,
        *,
        commands: bool = True,
        model: str = "",
        person: str = LOCAL,
        message_id: str = "",
    ) -> AsyncGenerator[Event, None]:
        """Answer one message in a conversation; None begins a new one, of `person`.

        A plain request for a picture is answered with one. Without `commands`, whatever it begins with or asks for
        is for the chat model. A `model` answers this once. A `message_id` by which a front end finds the message
        again is its id.

        The message is committed before the model starts; the reply is saved as it comes. The last event is
        Finished or Failed, or for a command whatever it tells. Closing the iterator stops the reply and
        keeps what came.
        """
        try:
            text = plain.message(text)
            routed = route(text) if commands else ToModel(text)
            if isinstance(routed, ToCommand):
                call = Call(self, conversation_id, routed.argument, person, message_id)
                async with aclosing(routed.command.run(call)) as told:
                    async for event in told:
                        yield event
                return
        except (UserError, StorageError) as error:
            yield Failed(str(error))
            return
        async with aclosing(self._say(conversation_id, routed, model, person, message_id)) as events:
            async for event in events:
                yield event

    async def imagine(
        self, conversation_id: str | None, prompt: str, *, person: str = LOCAL, message_id: str = ""
    ) -> AsyncGenerator[Event, None]:
        """Answer with a picture of `prompt`, which may begin with `--seed N` and `--style NAME`.

        The events are those of `send`. Raises MessageError where there is no prompt.
        """
        said = f"/imagine {prompt}"
        routed = route_said(said)
        if isinstance(routed, ToModel):
            raise MessageError("Say what shall be in the picture too: /imagine TEXT.")
        async with aclosing(self._say(conversation_id, routed, "", person, message_id)) as events:
            async for event in events:
                yield event

    async def _say(
        self, conversation_id: str | None, routed: ToModel | ToPictures, model: str, person: str, message_id: str
    ) -> AsyncGenerator[Event, None]:
        conversation: str | Conversation
        if conversation_id is None:
            conversation = Conversation.new(plain.clean(self._settings.system), person=person)
            conversation_id = conversation.id
        else:
            conversation = conversation_id

        async def open_turn() -> Turn:
            return await self.conversations.add_turn(conversation, routed.text, message_id=message_id)

        async with aclosing(self._turn(conversation_id, open_turn, model, routed)) as events:
            async for event in events:
                yield event

    async def regenerate(
        self, conversation_id: str, reply_id: str | None = None, *, model: str = ""
    ) -> AsyncGenerator[Event, None]:
        """Another reply beside `reply_id` (None: the last one shown), or one to a message that has none.

        The events are those of `send`.
        """

        async def open_turn() -> Turn:
            answered = reply_id or (await self.conversations.get(conversation_id)).leaf_id
            if answered is None:
                raise MessageError("There is nothing to answer yet: the conversation is empty.")
            return await self.conversations.add_reply(conversation_id, answered)

        async with aclosing(self._turn(conversation_id, open_turn, model, branched=True)) as events:
            async for event in events:
                yield event

    async def edit(
        self, conversation_id: str, message_id: str | None, text: str, *, model: str = "", new_id: str = ""
    ) -> AsyncGenerator[Event, None]:
        """Say something else in the place of what one said (None: the last shown), which stays beside it.

        The events are those of `send`; `new_id` is the id of what is said instead.
        """

        async def open_turn() -> Turn:
            cleaned = plain.message(text)
            edited = message_id or await self.last_said(conversation_id)
            if (await self.conversations.message(edited)).role != "user":
                raise MessageError("Only what you said yourself can be edited; ask for another reply instead.")
            return await self.conversations.add_turn(conversation_id, cleaned, beside=edited, message_id=new_id)

        async with aclosing(self._turn(conversation_id, open_turn, model, branched=True)) as events:
            async for event in events:
                yield event

    async def resume(
        self, conversation_id: str, reply_id: str | None = None, *, model: str = ""
    ) -> AsyncGenerator[Event, None]:
        """Go on with a reply that was cut (None: the last one shown), in another one beside it.

        The events are those of `send`; the first TextDelta is what had come already.
        """

        async def open_turn() -> Turn:
            cut = reply_id or (await self.conversations.get(conversation_id)).leaf_id
            message = None if cut is None else await self.conversations.message(cut)
            if message is None or message.role != "assistant":
                raise MessageError("There is no reply to go on with.")
            if message.status == "streaming":
                raise MessageError("The reply is still being written, by another chatbot.")
            return await self.conversations.add_reply(conversation_id, message.id, resume=True)

        async with aclosing(self._turn(conversation_id, open_turn, model, branched=True)) as events:
            async for event in events:
                yield event

    async def last_said(self, conversation_id: str) -> str:
        """Id of what the person said last on the branch shown. Raises MessageError where there is nothing."""
        leaf_id = (await self.conversations.get(conversation_id)).leaf_id
        for message in reversed(await self.conversations.path(leaf_id, LOOK_BACK)):
            if message.role == "user":
                return message.id
        raise MessageError("You have said nothing here yet.")

    async def last_reply(self, conversation_id: str) -> str:
        """Id of the last reply on the branch shown. Raises MessageError where there is none."""
        leaf_id = (await self.conversations.get(conversation_id)).leaf_id
        for message in reversed(await self.conversations.path(leaf_id, LOOK_BACK)):
            if message.role == "assistant":
                return message.id
        raise MessageError("There is no reply here yet.")

    async def switch(self, conversation_id: str, message_id: str) -> str:
        """Show the branch through a message; returns the id of its end. Raises NotFoundError."""
        return await self.conversations.switch(conversation_id, message_id)

    async def fork(self, conversation_id: str, message_id: str) -> str:
        """The branch up to a message as a conversation of its own; returns its id. Raises NotFoundError."""
        return (await copy(self.store.database, self.store.attachments, conversation_id, message_id)).id

    async def duplicate(self, conversation_id: str) -> str:
        """A conversation with all its branches once more; returns its id. Raises NotFoundError."""
        return (await copy(self.store.database, self.store.attachments, conversation_id)).id

    async def rate(self, reply_id: str, value: Value, note: str = "", *, person: str = LOCAL) -> None:
        """Say what a person thinks of a reply, 1 or -1; 0 takes it back. Raises NotFoundError."""
        await self.store.ratings.rate(reply_id, value, plain.clean(note), person=person)

    async def search(self, words: str, *, person: str | None = None, limit: int = 20) -> Sequence[Hit]:
        """The newest messages with all of `words`, in the conversations of a person (None: of everyone).

        `store.search` can narrow that further.
        """
        return await self.store.search.find(Query(words, person=person), limit)

    async def context(self, conversation_id: str | None, said: str = "", *, model: str = "") -> Context:
        """What the model would be sent if the person said that now; nothing is stored.

        Raises:
            ModelError: the model, which counts, cannot be loaded.
            MessageError: it does not fit.
        """
        conversation = (
            Conversation.new(plain.clean(self._settings.system))
            if conversation_id is None
            else await self.conversations.get(conversation_id)
        )
        async with self.models.responder(lambda progress: None, model or conversation.model) as responder:
            return await build_context(
                self.store,
                conversation.leaf_id,
                conversation.system,
                responder,
                self._settings.max_tokens,
                said=plain.clean(said),
            )

    async def pin(self, message_id: str, pinned: bool) -> None:
        """Let a message always be sent, word for word, however long the conversation grows. Raises NotFoundError."""
        await self.conversations.pin(message_id, pinned)

    async def _turn(
        self,
        conversation_id: str,
        open_turn: Callable[[], Awaitable[Turn]],
        model: str,
        routed: ToModel | ToPictures | None = None,
        *,
        branched: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """Open a turn, and tell what comes of it. What was `routed` nowhere yet is by what was said."""
        try:
            if conversation_id in self._live:
                raise UserError("The reply before is still coming; wait for its end, or stop it.")
            live = self._live[conversation_id] = LiveReply()
            for task in self._summarising:  # the model is wanted for this first
                task.cancel()
            try:
                turn = await open_turn()
            except BaseException:
                del self._live[conversation_id]
                raise
        except (UserError, StorageError) as error:
            yield Failed(str(error))
            return
        live.emit(Started(conversation_id, turn.said.id, turn.reply.id, branched))
        if turn.reply.text:
            live.add(turn.reply.text)
        routed = routed or route_said(turn.said.text)
        request = routed.request if isinstance(routed, ToPictures) else None
        live.task = asyncio.create_task(self._answer(live, turn, model, request))
        try:
            while (next_event := await live.events.get()) is not None:
                yield next_event
        finally:
            await live.cancel()

    async def stop(self, conversation_id: str) -> bool:
        """Stop the reply under way in a conversation, keep what came; False where there is none."""
        live = self._live.get(conversation_id)
        if live is None or live.task is None:
            return False
        await live.cancel()
        return True

    async def delete(self, conversation_id: str) -> str:
        """Forget a conversation with all that was said in it; returns what to tell the person, mostly nothing.

        Raises NotFoundError where there is none.
        """
        await self.stop(conversation_id)
        await self._stop_summarising()
        return _told(await self.store.forgetting.conversation(conversation_id))

    async def delete_message(self, message_id: str) -> str:
        """Forget one message; what followed it stays. Returns what to tell the person. Raises NotFoundError."""
        await self.stop((await self.conversations.message(message_id)).conversation_id)
        await self._stop_summarising()
        return _told(await self.store.forgetting.message(message_id))

    async def forget(self, person: str) -> str:
        """Forget all that belongs to a person. Returns what to tell. Raises NotFoundError."""
        for conversation_id in list(self._live):
            if (await self.conversations.get(conversation_id)).person_id == person:
                await self.stop(conversation_id)
        await self._stop_summarising()
        return _told(await self.store.forgetting.person(person))

    async def system(self, conversation_id: str | None) -> str:
        """The system prompt of a conversation."""
        if conversation_id is None:
            return self._settings.system
        return (await self.conversations.get(conversation_id)).system

    async def set_system(self, conversation_id: str | None, system: str, *, person: str = LOCAL) -> str:
        """Give a conversation (None: a new one, of `person`) another system prompt; returns its id."""
        system = plain.clean(system)
        if conversation_id is None:
            return (await self.conversations.create(system, person=person)).id
        await self.conversations.set_system(conversation_id, system)
        return conversation_id

    async def model(self, conversation_id: str | None) -> str:
        """`name@version` of what answers in a conversation."""
        own = "" if conversation_id is None else (await self.conversations.get(conversation_id)).model
        return await self.models.name(own)

    async def set_model(
        self, conversation_id: str | None, wanted: str, *, person: str = LOCAL
    ) -> AsyncGenerator[Progress | ConversationChanged, None]:
        """Let another model answer in a conversation (None: a new one, of `person`); empty: the one in use.

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
            conversation_id = (await self.conversations.create(system, model=own, person=person)).id
        else:
            await self.conversations.set_model(conversation_id, own)
        yield ConversationChanged(conversation_id)

    async def close(self) -> None:
        """End all replies, as interrupted, and give the model's memory back."""
        for live in list(self._live.values()):
            live.ended_as = "interrupted"
            await live.cancel()
        await self._stop_summarising()
        await self.models.close()

    async def _answer(self, live: LiveReply, turn: Turn, model: str, request: PictureRequest | None) -> None:
        reply = turn.reply
        wanted = model or turn.conversation.model
        self._saver.add(reply.id, live)
        status: Status = "failed"
        end: Finished | Failed
        usage: Usage | None = None
        live.running.set()
        try:
            try:
                if request is not None:
                    async with self.models.generator(live.emit) as generator:
                        live.model = generator.name
                        end = await answers.in_a_picture(self.store, live, turn, request, generator)
                else:
                    began = time.perf_counter()
                    async with self.models.responder(live.emit, wanted) as responder:
                        live.model = responder.name
                        load_s = time.perf_counter() - began
                        usage, end = await answers.in_words(self.store, self._settings, live, turn, responder, load_s)
                status = "complete"
            except asyncio.CancelledError:
                status = live.ended_as
                end = Finished(reply.id, live.text, "stopped", live.model)
            except (UserError, StorageError) as error:
                end = Failed(str(error))
            except Exception as error:  # whatever it was: the reply has an end, and the person a sentence
                end = Failed(keep_trace(error))
            finally:
                await self._saver.leave(reply.id)
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
            if live.context is not None and usage is not None:
                self._make_room(turn, wanted, usage, live.context.budget)
            live.emit(end)
        finally:
            self._live.pop(turn.said.conversation_id, None)
            live.events.put_nowait(None)

    def _make_room(self, turn: Turn, wanted: str, usage: Usage, budget: int) -> None:
        """Begin to summarise the oldest turns once the context is nearly full, while the person reads and types."""
        if usage.prompt_tokens + usage.completion_tokens > FULL * budget:
            task = asyncio.create_task(self._summarise(turn, wanted, budget))
            self._summarising.add(task)
            task.add_done_callback(self._summarising.discard)

    async def _summarise(self, turn: Turn, wanted: str, budget: int) -> None:
        """Where it fails, the oldest turns will be left out."""
        with suppress(UserError, StorageError):
            async with self.models.responder(lambda progress: None, wanted) as responder:
                await summarise(self.store, turn.reply.id, turn.conversation.system, responder, budget)

    @property
    def summarising(self) -> bool:
        """Whether older turns are being told in short."""
        return bool(self._summarising)

    async def settle(self) -> None:
        """Wait until older turns are summarised, where that is under way. Cancelling this ends it."""
        await asyncio.gather(*self._summarising)

    async def _stop_summarising(self) -> None:
        tasks = list(self._summarising)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _told(erased: bool) -> str:
    return "" if erased else STILL_READ
