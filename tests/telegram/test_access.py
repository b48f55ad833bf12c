"""Who may, how much, and what nobody gets to see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import Chatbot
from tests.telegram.emulator import TOKEN
from tests.telegram.world import ADA, ADMIN, BOB, GROUP, Bot, Telegram, is_whole

SECRET = TOKEN.partition(":")[2]


@pytest.fixture
def strict(telegram: Telegram, bot: Bot) -> Telegram:
    """Only Ada may, and the admin."""
    bot.settings["CHATBOT_TELEGRAM_ALLOW"] = str(ADA)
    bot.start()
    return telegram


def test_who_may_not_is_told_so_whatever_they_do(strict: Telegram) -> None:
    strict.say("mine")
    mine = strict.reply("mine")
    number = strict.say("let me in", BOB)
    strict.told(f"Your number here is {BOB}.", BOB)
    strict.edit(number, "let me in, please", BOB)
    strict.wait(lambda: len(strict.sent(BOB)) == 2)
    data = mine["reply_markup"]["inline_keyboard"][0][0]["callback_data"]
    strict.press_data({"chat": {"id": BOB}, "message_id": 1}, data, BOB)
    [answer] = strict.wait(lambda: strict.calls("answerCallbackQuery"))
    assert "You may not talk" in answer["text"]
    strict.send(BOB, document={"file_id": "F", "file_name": "x.txt"})
    strict.wait(lambda: len(strict.sent(BOB)) == 3)
    strict.say("@emulated_bot hello", GROUP, sender=BOB)
    strict.say("@emulated_bot hello from Ada", GROUP, sender=ADA)
    strict.reply("hello from Ada", GROUP)
    assert {one["answers"] for one in strict.sent(GROUP)} == {2}, "in a group, nobody is told that someone may not"
    assert not any(is_whole(one) for one in strict.sent(BOB))


def test_admins_let_people_in_and_out_and_see_them(strict: Telegram) -> None:
    strict.say(f"/allow {BOB}", ADMIN)
    strict.told(f"{BOB} may talk to the bot.", ADMIN)
    strict.say("thank you", BOB)
    strict.reply("thank you", BOB)
    strict.say("/users", ADMIN)
    assert f"{BOB}  Person{BOB}: allowed; today 1 messages, 5 tokens" in strict.told("allowed;", ADMIN)["text"]
    strict.say(f"/deny {ADA}", ADMIN)
    strict.told(f"{ADA} may not talk to the bot.", ADMIN)
    strict.say("and now?")
    strict.told("You may not talk")
    strict.say(f"/allow {ADMIN}", BOB)
    strict.told("There is no command /allow", BOB)
    strict.say("/allow everyone", 9999)
    strict.told("You may not talk", 9999)


def test_admins_see_how_the_bot_is_and_are_told_what_is_wrong(strict: Telegram) -> None:
    for command, told in (
        ("/health", "1 updates wait"),
        ("/deny", "Say whose number"),
        ("/quota 5 apples 3", "It is /quota NUMBER"),
    ):
        strict.say(command, ADMIN)
        strict.told(told, ADMIN)


def test_quotas_hold_for_people_and_groups_whatever_is_asked(telegram: Telegram, bot: Bot) -> None:
    bot.settings["CHATBOT_TELEGRAM_MESSAGES"] = "2"
    bot.start()
    telegram.say("one")
    number = telegram.say("two")
    two = telegram.reply("two")
    telegram.edit(number, "two and a half")
    telegram.told("2 messages a day")
    telegram.press(two, "🔄")
    telegram.wait(lambda: "2 messages a day" in str(telegram.calls("answerCallbackQuery")))
    for text in ("//three", "/etc/hosts four"):  # these are for the model too
        telegram.say(text)
    telegram.wait(lambda: sum("2 messages a day" in text for text in telegram.texts()) == 3)
    telegram.say("/stats")
    telegram.told("Conversations: 1")
    for sender in (3001, 3002, 3003):
        telegram.say(f"@emulated_bot from {sender}", GROUP, sender=sender)
    telegram.reply("from 3002", GROUP)
    telegram.say("elsewhere", 3003)
    telegram.reply("elsewhere", 3003)
    assert len([one for one in telegram.sent(GROUP) if is_whole(one)]) == 2, "the group has had its two"
    telegram.say(f"/quota {ADA} messages 3", ADMIN)
    telegram.told("3 messages a day", ADMIN)
    telegram.say("/retry")
    telegram.wait(lambda: any("2/2" in str(one) for one in telegram.sent()))


def test_tokens_and_pictures_have_quotas_of_their_own(telegram: Telegram, bot: Bot) -> None:
    bot.settings |= {"CHATBOT_TELEGRAM_TOKENS": "30", "CHATBOT_TELEGRAM_PICTURES": "1"}
    bot.start()
    telegram.say("draw me a fox")
    line = telegram.told("Here is a picture: a fox.")
    telegram.press(line, "Another picture")
    telegram.wait(lambda: "1 pictures a day" in str(telegram.calls("answerCallbackQuery")))
    telegram.say("/imagine a cat")
    telegram.told("1 pictures a day")
    telegram.say("words: count to 40")
    telegram.reply("words")
    telegram.say("more")
    telegram.told("30 tokens a day")


def test_forgetting_oneself_is_no_way_round_a_quota(telegram: Telegram, bot: Bot) -> None:
    bot.settings["CHATBOT_TELEGRAM_MESSAGES"] = "1"
    bot.start()
    telegram.say("one")
    telegram.reply("one")
    telegram.say("/forget")
    telegram.press(telegram.told("This cannot be undone"), "delete")
    telegram.told("Everything of yours is deleted.")
    telegram.say("two")
    telegram.told("1 messages a day")


def test_models_are_fetched_and_files_read_for_admins_only(telegram: Telegram, bot: Bot) -> None:
    bot.start()
    for sender, wanted in enumerate(
        (" /etc/passwd", " owner/repository", "\nowner/repository", " m@http://localhost:1/v1"), 3000
    ):
        telegram.say(f"/model{wanted}", sender)
        telegram.told("That model is not known here", sender)
    telegram.say("/model /nowhere/at/all.gguf", ADMIN)
    telegram.told("Something went wrong here", ADMIN)
    telegram.say("/model default")
    told = telegram.told("answers here from now on")
    telegram.press_data(told, "agree:/model owner/repository")
    telegram.wait(lambda: telegram.calls("answerCallbackQuery"))
    telegram.say("/model")
    telegram.wait(lambda: sum("fake@1 answers here" in text for text in telegram.texts()) == 2)


def test_errors_shown_to_people_carry_no_internals(telegram: Telegram, bot: Bot, home: Path) -> None:
    bot.start()
    telegram.say("hello")
    telegram.reply("hello")
    attachments = home / "attachments"
    attachments.write_text("in the way")  # so that no file can be kept
    telegram.control("file", name="F", text="a file")
    telegram.send(document={"file_id": "F", "file_name": "x.txt", "file_size": 6}, caption="broken")
    telegram.wait(lambda: bot.logged("the database failed") or bot.logged("an answer failed"))
    attachments.unlink()
    telegram.say("afterwards")
    telegram.reply("afterwards", seconds=60)
    shown = " ".join(telegram.texts())
    assert str(home) not in shown
    assert "Traceback" not in shown
    assert not re.search(r"/\w+/\w+/", shown)


def test_the_token_reaches_no_log_and_no_error(telegram: Telegram, bot: Bot, home: Path, chatbot: Chatbot) -> None:
    telegram.fault("getUpdates", "502", times=2)
    telegram.fault("getUpdates", "reset_before", times=1)
    telegram.fault("sendMessage", "reset_after", chat=ADA)
    telegram.fault("sendMessageDraft", "500", times=5)
    bot.run("debug")
    telegram.say("a secret? count to 20 every 0.05 s")
    telegram.told("My answer may not have reached you")
    telegram.control("file", name="F", text="text")
    telegram.fault("download", "reset_before")
    telegram.send(document={"file_id": "F", "file_name": "x.txt", "file_size": 4}, caption="file")
    telegram.reply("file")
    bot.end()
    assert "getUpdates" in bot.log.read_text(), "URLs are logged at this level"
    for wrong, code in ((TOKEN[:-1] + "x", 2), ("4242:" + "bad token/?", 2)):
        bot.settings["CHATBOT_TELEGRAM_TOKEN"] = wrong
        bot.run("debug")
        assert bot.wait() == code
    bot.settings |= {"CHATBOT_TELEGRAM_TOKEN": TOKEN, "CHATBOT_TELEGRAM_API_URL": "http://127.0.0.1:1"}
    bot.run("debug")
    telegram.wait(lambda: len(bot.logged("Telegram cannot be reached yet")) > 1)
    bot.end()
    (home / "config.toml").write_text(f'telegram_token = "{TOKEN}"\n')
    shown = chatbot("config", "show")
    assert "telegram_token" in shown.stdout
    (home / "config.toml").write_text("telegram_token = 424242424242\n")
    refused = chatbot("config", "show")
    assert refused.returncode == 2
    (home / "config.toml").unlink()
    everything = bot.log.read_text() + shown.stdout + refused.stderr
    everything += "".join(path.read_bytes().decode("latin-1") for path in home.rglob("*") if path.is_file())
    for secret in (SECRET, SECRET[:-1], "bad token", "424242424242"):
        assert secret not in everything
