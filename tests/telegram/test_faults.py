"""Bad days of Telegram and of the network: nothing is lost, nothing comes twice that might be there, nobody waits for
another's trouble."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from adapters.telegram.bot import TelegramBot
from chatbot.session import open_service
from chatbot.settings import Settings
from storage.access import Access
from storage.errors import StorageError
from storage.inbox import Inbox
from tests.telegram.emulator import TOKEN
from tests.telegram.world import ADA, BOB, GROUP, Bot, Nursery, Telegram, is_whole, person

UNSURE = "My answer may not have reached you"


def wholes(telegram: Telegram, chat: int = ADA) -> list[str]:
    return [one["text"] for one in telegram.sent(chat) if is_whole(one)]


@pytest.fixture
def talking(telegram: Telegram, bot: Bot) -> Telegram:
    bot.start()
    return telegram


def test_a_chat_that_is_asked_for_patience_waits_alone(talking: Telegram) -> None:
    talking.fault("sendMessage", "429", chat=ADA, seconds=3)
    talking.say("patient")
    talking.wait(lambda: talking.calls("sendMessage", ADA))
    talking.say("others go on", BOB)
    others = talking.reply("others go on", BOB)
    assert wholes(talking) == [], "Bob did not wait for Ada"
    talking.reply("patient")
    refused, sent = talking.calls("sendMessage", ADA)
    assert others["at"] < refused["at"] + 3
    assert sent["at"] - refused["at"] >= 3
    assert wholes(talking) == ["You said: patient"]


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "502", "hang_after"])
def test_what_may_have_arrived_is_not_sent_again_and_can_be_shown(talking: Telegram, fault: str) -> None:
    talking.fault("sendMessage", fault, chat=ADA, seconds=12)
    talking.say("once")
    told = talking.told(UNSURE, seconds=40)
    arrived = fault in ("reset_after", "hang_after")
    assert wholes(talking) == ["You said: once"] * arrived
    talking.press(told, "Show it again")
    talking.wait(lambda: len(wholes(talking)) == 1 + arrived)
    talking.say("and on")
    talking.reply("and on")


def test_in_a_group_the_whole_stands_there_once_whatever_happens_to_the_edit(talking: Telegram) -> None:
    talking.say("@emulated_bot count to 8 every 0.1 s", GROUP)
    talking.wait(lambda: talking.sent(GROUP))
    talking.fault("editMessageText", "reset_after", chat=GROUP)
    talking.fault("editMessageText", "502", chat=GROUP)
    whole = talking.reply("count", GROUP)
    talking.say("@emulated_bot next", GROUP)
    talking.reply("next", GROUP)
    edits = [call for call in talking.calls("editMessageText", GROUP) if call["text"] == whole["text"]]
    assert len(edits) >= 3, "to edit twice changes nothing more: it was repeated until it was sure"
    assert not any(UNSURE in text for text in talking.texts(GROUP))


def test_edits_that_come_too_late_are_dropped_and_the_whole_never_is(talking: Telegram) -> None:
    talking.say("@emulated_bot count to 130 every 0.05 s", GROUP)
    talking.wait(lambda: talking.sent(GROUP))
    talking.fault("editMessageText", "429", chat=GROUP, seconds=4)
    whole = talking.reply("count", GROUP)
    assert whole["text"].endswith(" 130")
    refused, *after = talking.calls("editMessageText", GROUP)
    assert refused["fault"] == "429"
    assert [call["text"] for call in after] == [whole["text"]], "what had come meanwhile was not shown any more"


def test_a_draft_that_fails_or_hangs_holds_nothing_up(talking: Telegram) -> None:
    talking.fault("sendMessageDraft", "hang", chat=ADA, seconds=60)
    talking.say("a: count to 20 every 0.02 s")
    talking.reply("a: count")
    talking.fault("sendMessageDraft", "500", chat=ADA, times=50)
    talking.say("b: count to 20 every 0.02 s")
    talking.reply("b: count")
    assert len(wholes(talking)) == 2


def test_updates_that_come_twice_and_in_disorder_are_answered_once_and_in_order(telegram: Telegram, bot: Bot) -> None:
    telegram.fault("getUpdates", "shuffled", times=4)
    for number in range(3):
        telegram.say(f"number {number}")
    bot.start()
    telegram.reply("number 2")
    telegram.say("number 3")
    telegram.reply("number 3")
    assert wholes(telegram) == [f"You said: number {number}" for number in range(4)]


def test_what_was_answered_and_is_sent_once_more_is_not_answered_again(telegram: Telegram, bot: Bot) -> None:
    bot.start()
    message = {"from": person(ADA), "text": "once only"}
    update = telegram.control("say", chat=ADA, message=message)["update"]
    telegram.reply("once only")
    telegram.wait(lambda: bot.logged("done"))
    bot.kill()
    there = {"message_id": 1, "date": 0, "chat": {"id": ADA, "type": "private"}}
    telegram.control("push", updates=[{"update_id": update, "message": message | there}])
    bot.start()
    telegram.say("later")
    telegram.reply("later")
    assert telegram.texts() == ["You said: once only", "You said: later"]


@pytest.mark.parametrize("fault", ["409", "500", "502", "reset_before", "429"])
def test_asking_for_updates_goes_on_after_whatever_failed(talking: Telegram, fault: str) -> None:
    talking.fault("getUpdates", fault, times=3, seconds=1)
    talking.say("still here")
    talking.reply("still here")


def test_it_starts_while_telegram_is_down_and_sends_when_it_is_back(
    bots: Nursery, bot: Bot, telegram: Telegram
) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    bot.settings["CHATBOT_TELEGRAM_API_URL"] = f"http://127.0.0.1:{port}"
    bot.start()
    telegram.wait(lambda: len(bot.logged("Telegram cannot be reached yet")) >= 2)
    late = Telegram(port)
    try:
        late.say("at last: count to 30 every 0.1 s")
        late.wait(lambda: late.calls("sendMessageDraft"))
        late.close()
        telegram.wait(lambda: bot.logged("not sent yet"))
        late = Telegram(port)
        late.wait(lambda: any(text.endswith(" 30") for text in late.texts()), seconds=60)
        assert len(late.sent()) == 1
    finally:
        late.close()


def test_what_telegram_refuses_as_it_is_comes_in_another_way(talking: Telegram) -> None:
    asked = talking.say("@emulated_bot count to 3 every 0.2 s", GROUP)
    talking.control("forget_message", chat=GROUP, message=asked)
    talking.reply("count", GROUP)
    talking.fault("sendMessage", "400", chat=ADA)
    talking.say("**bold**")
    assert talking.reply("bold")["entities"] == []
    talking.say("@emulated_bot count to 60 every 0.1 s", GROUP)
    shown = talking.wait(lambda: [one for one in talking.sent(GROUP) if "You" in one["text"]][-1])
    talking.control("forget_message", chat=GROUP, message=shown["message_id"])
    talking.wait(lambda: any(text.endswith(" 60") for text in talking.texts(GROUP)))


def test_a_person_who_blocks_the_bot_holds_nobody_up(talking: Telegram) -> None:
    talking.control("block", chat=ADA)
    talking.say("blocked")
    talking.say("free", BOB)
    talking.reply("free", BOB)
    assert wholes(talking) == []


def test_a_chat_is_answered_in_order_and_no_chat_waits_for_another(talking: Telegram) -> None:
    talking.say("slow: count to 100 every 0.03 s")
    for number in range(3):
        talking.say(f"after {number}")
    talking.say("quick", BOB)
    talking.reply("quick", BOB)
    assert wholes(talking) == []
    talking.reply("after 2")
    assert [text.split()[2] for text in wholes(talking)] == ["slow:", "after", "after", "after"]
    assert [text[-1] for text in wholes(talking)[1:]] == ["0", "1", "2"]


def test_what_is_beyond_the_pending_is_turned_away_once_and_politely(telegram: Telegram, bot: Bot) -> None:
    bot.settings["CHATBOT_TELEGRAM_PENDING"] = "3"
    bot.start()
    telegram.say("slow: count to 50 every 0.05 s")
    telegram.wait(lambda: telegram.calls("sendMessageDraft"))
    for number in range(30):
        telegram.say(f"flood {number}")
    told = telegram.told("no more can wait")
    telegram.reply("flood 1")
    telegram.wait(lambda: len(bot.logged("done")) >= 4)
    assert [text.split()[2] for text in wholes(telegram)] == ["slow:", "flood", "flood"]
    assert telegram.texts().count(told["text"]) == 1
    telegram.say("afterwards")
    telegram.reply("afterwards")


def test_sigterm_lets_replies_end_and_what_takes_longer_is_gone_on_with(telegram: Telegram, bot: Bot) -> None:
    bot.start()
    telegram.say("short: count to 40 every 0.05 s")
    telegram.say("long: count to 300 every 0.045 s", BOB)
    telegram.wait(lambda: len({call["chat_id"] for call in telegram.calls("sendMessageDraft")}) == 2)
    bot.send_signal(signal.SIGTERM)
    assert bot.wait() == 143
    assert wholes(telegram)[0].endswith(" 40")
    assert wholes(telegram, BOB) == []
    assert bot.logged("ended in the middle of answers")
    bot.start()
    telegram.wait(lambda: wholes(telegram, BOB))
    numbers = wholes(telegram, BOB)[0].split()[-300:]
    assert numbers == [str(number) for number in range(1, 301)], "gone on with, as if it had never been cut"


def test_started_as_a_person_starts_it_and_ended_by_ctrl_c(telegram: Telegram, bot: Bot) -> None:
    bot.run()
    telegram.say("hello")
    telegram.reply("hello")
    bot.send_signal(signal.SIGINT)
    assert bot.wait() in (130, 0, -2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"CHATBOT_TELEGRAM_TOKEN": ""}, "needs its token"),
        ({"CHATBOT_TELEGRAM_TOKEN": "nonsense"}, "needs its token"),
        ({"CHATBOT_TELEGRAM_ALLOW": "", "CHATBOT_TELEGRAM_ADMINS": ""}, "Nobody may talk"),
        ({"CHATBOT_TELEGRAM_API_URL": "localhost"}, "scheme, a host and a port"),
        ({"CHATBOT_TELEGRAM_API_URL": "http://[::1"}, "scheme, a host and a port"),
    ],
)
def test_a_mistake_in_the_settings_is_said_in_a_sentence(bot: Bot, settings: dict[str, str], said: str) -> None:
    bot.settings |= settings
    bot.start()
    assert bot.wait() == 2
    [line] = bot.log.read_text().splitlines()
    assert said in line


def test_two_bots_on_one_database_share_what_waits(
    telegram: Telegram, bot: Bot, bots: Nursery, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Bot(telegram, tmp_path_factory.mktemp("other") / "log", bots)
    for one in (bot, other):
        one.settings["CHATBOT_DATABASE_URL"] = postgres_url
    bot.start()
    telegram.say("long: count to 200 every 0.05 s")
    telegram.wait(lambda: any("long" in call["text"] for call in telegram.calls("sendMessageDraft")))
    other.start()
    telegram.wait(lambda: bot.logged("another asks for the same updates") or other.logged())
    for number in range(4):
        telegram.say(f"then {number}")
        telegram.say(f"beside {number}", BOB)
    for number in range(4):
        telegram.reply(f"beside {number}", BOB)
    assert wholes(telegram) == [], "what waits in a chat is not answered before what came first, by any"
    telegram.say("/stop")
    telegram.told("Stopped.")
    telegram.reply("then 3")
    bot.kill()
    for number in range(4, 8):
        telegram.say(f"then {number}")
    telegram.reply("then 7", seconds=60)
    other.end()
    came = [text.removeprefix("You said: ").split(":")[0] for text, _ in groupby(wholes(telegram))]
    assert came == ["long", *(f"then {number}" for number in range(8))]
    assert sorted(wholes(telegram, BOB)) == [f"You said: beside {number}" for number in range(4)]


def test_help_tells_of_the_bot_and_loads_nothing_of_it() -> None:
    code = "import sys; sys.argv = ['chatbot', 'telegram', '--help']\nfrom chatbot.cli import main\n" \
           "try: main()\nexcept SystemExit: pass\nprint('LOADED', 'telegram' in sys.modules)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "run the Telegram bot" in done.stdout
    assert done.stdout.endswith("LOADED False\n")


async def test_an_answer_that_is_out_comes_once_though_noting_that_fails(
    telegram: Telegram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [3, 3]

    async def fails(left: int, then: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        if failures[left]:
            failures[left] -= 1
            raise StorageError("the disk is full")
        await then(*arguments)

    monkeypatch.setattr(Inbox, "done", lambda self, seq, done=Inbox.done: fails(0, done, self, seq))
    monkeypatch.setattr(Access, "use", lambda self, *what, use=Access.use: fails(1, use, self, *what))
    settings = Settings.load(home=tmp_path, model="fake", telegram_allow=["*"])
    async with open_service(settings) as service:
        running = asyncio.create_task(TelegramBot(service, settings, TOKEN, telegram.url).run())
        await asyncio.to_thread(telegram.say, "once")
        await asyncio.to_thread(telegram.wait, lambda: failures == [0, 0])
        await asyncio.to_thread(telegram.say, "and on")
        await asyncio.to_thread(telegram.reply, "and on")
        running.cancel()
        await asyncio.wait([running])
    assert wholes(telegram) == ["You said: once", "You said: and on"]
