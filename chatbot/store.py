"""What stands on an open database."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from chatbot.engines.prompt_cache import forget_prompts
from chatbot.registry import Registry
from chatbot.settings import Settings
from storage.attachments import Attachments
from storage.chats import Chats
from storage.conversations import Conversations
from storage.database import Database
from storage.feedback import Ratings
from storage.forgetting import After, Forgetting
from storage.people import People
from storage.search import Search
from storage.summaries import Summaries
from storage.versions import Versions


@dataclass(frozen=True, slots=True)
class Store:
    """Everything that is kept, a subject each."""

    database: Database
    conversations: Conversations
    attachments: Attachments
    people: People
    chats: Chats
    ratings: Ratings
    forgetting: Forgetting
    search: Search
    summaries: Summaries
    registry: Registry


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Open the database, bring it up to date, and mark replies whose process died as interrupted.

    Raises:
        StorageError: it cannot be opened.
    """
    async with await Database.open(settings.database) as database:
        conversations = Conversations(database)
        await conversations.mark_interrupted()
        folder = await Attachments.folder_of(database, settings.home / "attachments")
        attachments = Attachments(database, folder)
        forgetting = Forgetting(database, attachments)

        async def prompts(connection: object, message_ids: object) -> After:
            return partial(asyncio.to_thread, forget_prompts, settings.prompts_folder)

        async def learning(connection: object, message_ids: object) -> After:
            return partial(asyncio.to_thread, shutil.rmtree, settings.learning_folder, ignore_errors=True)

        forgetting.add(prompts)
        forgetting.add(learning)
        await forgetting.resume()
        yield Store(
            database,
            conversations,
            attachments,
            People(database),
            Chats(database),
            Ratings(database),
            forgetting,
            Search(database),
            Summaries(database),
            Registry(Versions(database), settings),
        )
