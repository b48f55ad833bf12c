"""What a model still knows of facts that no longer fit into its context: `python -m tests.benchmarks.memory`.

Facts are told one by one, then much else is talked about; what is replied is given, so that only what is measured is
the model's. Then each is asked for: with the oldest turns left out, with the rolling summary in their place, and with
the facts pinned. The model makes the summaries and the answers.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import aclosing

from sqlalchemy import delete

from chatbot.chat import ChatService
from chatbot.engines.base import Completion, GenerationOptions
from chatbot.session import open_service
from chatbot.settings import Settings
from chatbot.summarise import summarise
from storage.records import Conversation
from storage.schema import summaries

CONTEXT = 1_024
MAX_TOKENS = 60

FACTS = (
    ("My sister is called Ottilie.", "What is my sister called?", "ottilie"),
    ("I live in Trondheim.", "Which city do I live in?", "trondheim"),
    ("I keep bees; I have seven hives.", "How many hives do I have?", "seven"),
    ("My train leaves at 18:40.", "When does my train leave?", "18:40|6:40"),
    ("I am allergic to peanuts.", "What am I allergic to?", "peanut"),
    ("My dog is a beagle named Pixel.", "What is the name of my dog?", "pixel"),
    ("I play the cello.", "Which instrument do I play?", "cello"),
    ("My budget is 450 euros.", "What is my budget?", "450"),
    ("The door code is 9137.", "What is the door code?", "9137"),
    ("I was born in March.", "In which month was I born?", "march"),
)
ELSE = (
    ("How do rivers form?", "Rain and melting snow run downhill, gather in brooks, and the brooks join to a river."),
    (
        "What is a prime number?",
        "A whole number above one that only one and itself divide without a rest, such as 7.",
    ),
    (
        "How is bread made?",
        "Flour, water, salt and yeast are kneaded; the dough rises for an hour and is then baked.",
    ),
    (
        "Why do leaves change colour?",
        "In autumn the green pigment breaks down, and yellow and red ones become visible.",
    ),
    ("What does a heart do?", "It pumps blood through the body, which carries oxygen to every organ and back again."),
    (
        "How do bicycles stay upright?",
        "The rider steers a little towards the side of the fall, and so the wheels catch up.",
    ),
    ("What is a comet?", "A body of ice and dust; near the sun the ice evaporates, and that makes the long tail."),
    ("How is glass made?", "Sand, soda and lime are melted at about 1,500 degrees, then formed and cooled slowly."),
    ("What do whales eat?", "Some filter tiny shrimp from the water; others hunt fish, squid or even seals."),
    ("Why is the sea salty?", "Rivers wash salts out of rock into it, and only the water evaporates again."),
    ("How do magnets work?", "In iron the tiny fields of the electrons line up, and together they pull or push."),
    ("What is jazz?", "Music from New Orleans with swinging rhythms, in which players improvise on a tune."),
)


async def _say(service: ChatService, conversation: Conversation | str, text: str, reply: str) -> tuple[str, str]:
    """Let it be said and replied, and summarised as after every reply."""
    turn = await service.conversations.add_turn(conversation, text)
    await service.conversations.end_reply(turn.reply.id, reply, "complete")
    responder = await service.models.load(lambda progress: None)
    budget = CONTEXT - MAX_TOKENS
    await summarise(service.store, turn.reply.id, turn.conversation.system, responder, budget)
    return turn.said.conversation_id, turn.said.id


async def _known(service: ChatService, conversation: str) -> tuple[int, int]:
    """How many facts are answered rightly, and how many stand in what is sent."""
    answered = sent = 0
    for _, question, answer in FACTS:
        context = await service.context(conversation, question)
        everything = " ".join(message.content for message in context.messages).lower()
        options = GenerationOptions(max_tokens=40, temperature=0.0)
        responder = await service.models.load(lambda progress: None)
        async with aclosing(responder.reply(context.messages, options)) as reply:
            text = "".join([piece async for piece in reply if not isinstance(piece, Completion)])
        answered += any(one in text.lower() for one in answer.split("|"))
        sent += any(one in everything for one in answer.split("|"))
    return answered, sent


async def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["CHATBOT_HOME"] = home
        settings = Settings.load(context=CONTEXT, max_tokens=MAX_TOKENS, temperature=0.0, slots=1)
        async with open_service(settings) as service:
            here: Conversation | str = Conversation.new(settings.system)
            facts = []
            for fact, _, _ in FACTS:
                here, message = await _say(service, here, fact, "Thank you, I will remember that.")
                facts.append(message)
            for question, reply in ELSE * 2:
                here, _ = await _say(service, here, question, reply)
            assert isinstance(here, str)
            with_summary = await _known(service, here)
            made = await service.store.summaries.of_conversation(here)
            async with service.store.database.write() as connection:
                await connection.execute(delete(summaries))
            without = await _known(service, here)
            for message in facts:
                await service.pin(message, True)
            pinned = await _known(service, here)
            model = await service.model(here)
    print(f"{model}, context {CONTEXT}, {len(FACTS)} facts, {len(ELSE) * 2} other turns, {len(made)} summaries")
    print("| | facts answered | facts in what is sent |")
    print("|---|---|---|")
    for what, (answered, sent) in (
        ("oldest turns left out", without),
        ("rolling summary", with_summary),
        ("facts pinned", pinned),
    ):
        print(f"| {what} | {answered} of {len(FACTS)} | {sent} of {len(FACTS)} |")
    print(f"\nThe last summary:\n{made[-1].text if made else '(none)'}")


if __name__ == "__main__":
    asyncio.run(main())
