"""What one can do in a chat with the bot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.texts import languages
from chatbot.commands import COMMANDS
from tests.telegram.world import ADA, ADMIN, BOB, GROUP, Bot, Telegram, is_whole, person


@pytest.fixture
def talking(telegram: Telegram, bot: Bot) -> Telegram:
    bot.start()
    return telegram


def labels(message: dict[str, Any]) -> list[str]:
    return [button["text"] for row in message["reply_markup"]["inline_keyboard"] for button in row]


def test_a_private_reply_streams_as_drafts_and_comes_whole_with_its_entities(talking: Telegram) -> None:
    talking.say("**bold** count to 40 every 0.05 s")
    whole = talking.reply("bold")
    drafts = talking.calls("sendMessageDraft", ADA)
    assert len(drafts) >= 2
    assert all(draft["text"].endswith("…") for draft in drafts)
    assert len({draft["draft_id"] for draft in drafts}) == 1
    assert whole["text"].endswith(" 39 40")
    assert whole["entities"] == [{"type": "bold", "offset": 10, "length": 4}]
    assert talking.calls("sendChatAction", ADA)[0]["action"] == "typing"


def test_in_a_group_a_mention_is_answered_by_a_message_that_grows(talking: Telegram) -> None:
    talking.say("nobody asked", GROUP)
    asked = talking.say("@Emulated_Bot count to 30 every 0.15 s", GROUP)
    whole = talking.reply("count", GROUP)
    assert whole["answers"] == asked
    assert {one["message_id"] for one in talking.sent(GROUP)} == {whole["message_id"]}
    assert len(talking.sent(GROUP)) > 2
    assert not talking.calls("sendMessageDraft", GROUP)
    reply = {"reply_to_message": {"from": {"id": 4242}, "message_id": whole["message_id"]}}
    talking.say("a reply to the bot", GROUP, **reply)
    talking.reply("a reply to the bot", GROUP)
    assert not any("nobody asked" in text for text in talking.texts(GROUP))


def test_where_all_is_to_be_answered_in_groups_it_is(telegram: Telegram, bot: Bot) -> None:
    bot.settings["CHATBOT_TELEGRAM_GROUPS"] = "all"
    bot.start()
    telegram.say("just so", GROUP)
    telegram.reply("just so", GROUP)
    telegram.say("/help@another_bot", GROUP)
    telegram.say("and again", GROUP)
    telegram.reply("and again", GROUP)


def test_topics_of_a_group_are_conversations_of_their_own(talking: Telegram) -> None:
    for topic in (7, 8):
        told = {"message_thread_id": topic, "is_topic_message": True}
        talking.say(f"@emulated_bot in topic {topic}", GROUP, **told)
        assert talking.reply(f"in topic {topic}", GROUP)["answers"]
        assert talking.calls("sendMessage", GROUP)[-1]["message_thread_id"] == topic
    talking.say("/chats", GROUP, message_thread_id=8, is_topic_message=True)
    listed = talking.told("/chats NUMBER", GROUP)["text"]
    assert "→ 1  in topic 8" in listed
    assert "  2  in topic 7" in listed


def test_every_command_of_the_registry_is_offered_in_every_language_there_is(talking: Telegram) -> None:
    wanted = {"", *languages()}
    offered = talking.wait(lambda: (found := talking.look()["commands"]).keys() >= wanted and found)
    for language in wanted:
        assert [command["command"] for command in offered[language]] == list(COMMANDS)
    chinese = {command["command"]: command["description"] for command in offered["zh"]}
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in chinese[name]) for name in COMMANDS)
    everything = talking.wait(lambda: (found := talking.look()["commands"]).get(f"zh{ADMIN}") and found)
    assert {"health", "quota"} <= {command["command"] for command in everything[str(ADMIN)]}


def test_commands_change_what_was_said_and_answered(talking: Telegram) -> None:
    talking.say("the first")
    talking.reply("the first")
    talking.say("/edit the second")
    talking.reply("the second")
    talking.say("/retry")
    talking.wait(lambda: any("2/2" in str(message) for message in talking.sent()))
    talking.say("/continue")
    talking.wait(lambda: any("3/3" in str(message) for message in talking.sent()))


def test_commands_show_and_choose(talking: Telegram) -> None:
    for sender, (command, told) in enumerate(
        (
            ("/start", "Hello!"),
            ("/system Be brief.", "System prompt from now on: Be brief."),
            ("/model", "fake@1 answers here"),
            ("/stats", "Conversations: 0"),
            ("/continue", "There is nothing here yet"),
            ("/nonesuch", "There is no command /nonesuch"),
        ),
        3000,
    ):
        talking.say(command, sender)
        talking.told(told, sender)


def test_conversations_are_left_found_and_carried_away(talking: Telegram) -> None:
    talking.say("the first thing")
    talking.reply("the first thing")
    talking.say("/export")
    talking.say("/new")
    [document] = talking.wait(lambda: [one for one in talking.sent() if "document" in one])
    assert document["document"]["name"] == "the-first-thing.md"
    talking.told("begins a new conversation")
    talking.say("elsewhere")
    talking.reply("elsewhere")
    talking.say("/chats 2")
    talking.told("Here again: the first thing")
    talking.say("/search ELSEWHERE")
    talking.told("You said: elsewhere\n")


def test_what_is_told_comes_in_the_language_of_the_person(talking: Telegram) -> None:
    talking.say("/new", language="zh-hans")
    talking.told("你的下一条消息会开始一个新对话")
    talking.say("/help", language="zh")
    talking.told("/new — 开始一个新对话")
    talking.say("/new", BOB, language="xx")
    talking.told("begins a new conversation", BOB)


def test_editing_ones_message_answers_it_anew_beside_what_was_there(talking: Telegram) -> None:
    number = talking.say("helo")
    talking.reply("helo")
    talking.edit(number, "hello")
    talking.reply("hello")
    talking.edit(number, "hello")  # a link preview came: nothing was said anew
    talking.say("/previous")
    talking.wait(lambda: talking.texts().count("You said: helo") == 2)
    talking.say("last")
    talking.reply("last")
    assert talking.texts().count("You said: hello") == 1


def test_buttons_ask_again_turn_over_and_rate(talking: Telegram) -> None:
    talking.say("one")
    first = talking.reply("one")
    talking.press(first, "🔄")
    second = talking.wait(lambda: next((m for m in talking.sent() if "2/2" in str(m)), None))
    assert second is not None
    talking.press(second, "‹")
    turned = talking.wait(lambda: next((m for m in talking.sent() if m.get("edited") and "1/2" in str(m)), None))
    assert turned is not None
    assert turned["message_id"] == second["message_id"]
    talking.press(turned, "👎")
    talking.press(turned, "👎")
    said = talking.wait(lambda: [c["text"] for c in talking.calls("answerCallbackQuery") if c.get("text")][1:])
    assert said == ["Taken back."]
    talking.press_data(turned, "retry:0123456789abcdef")
    talking.wait(lambda: "That reply is gone." in str(talking.texts()) + str(talking.calls("answerCallbackQuery")))


def test_the_buttons_of_one_persons_reply_do_nothing_for_another(talking: Telegram) -> None:
    talking.say("mine")
    mine = talking.reply("mine")
    talking.say("yours", BOB)
    yours = talking.reply("yours", BOB)
    data = mine["reply_markup"]["inline_keyboard"][0][0]["callback_data"]
    talking.press_data(yours, data, BOB)
    talking.wait(lambda: "That reply is gone." in str(talking.look()))
    assert not any("2/2" in str(message) for message in talking.sent(None))


def test_stop_passes_what_waits_and_keeps_what_came(talking: Telegram) -> None:
    talking.say("long: count to 2000 every 0.02 s")
    talking.wait(lambda: any("long" in call["text"] for call in talking.calls("sendMessageDraft")))
    talking.say("waiting")
    talking.say("/stop")
    stopped = talking.reply("long")
    assert not stopped["text"].endswith("2000")
    talking.told("Stopped.")
    talking.reply("waiting")
    talking.say("/stop")
    talking.told("No reply is coming.")


def test_text_files_are_read_and_kept_as_attachments(talking: Telegram, home: Path) -> None:
    talking.control("file", name="F1", text="three little words")
    document = {"file_id": "F1", "file_name": "notes.txt", "mime_type": "text/plain", "file_size": 18}
    talking.send(document=document, caption="look at this")
    assert "three little words" in talking.reply("look at this")["text"]
    [kept] = (path for path in (home / "attachments").rglob("*") if path.is_file())
    assert kept.read_text() == "three little words"
    talking.control("file", name="F2", text="\x89PNG\x00\xff")
    talking.send(document={"file_id": "F2", "file_name": "x.png", "mime_type": "image/png", "file_size": 6})
    talking.told("text and text files only")
    talking.send(document={"file_id": "F3", "file_name": "big.txt", "file_size": 10**9})
    talking.told("too large")
    talking.send(voice={"file_id": "V"})
    talking.wait(lambda: talking.texts().count("I can read text and text files only.") == 2)


def test_forget_asks_first_and_leaves_nothing_of_that_person(talking: Telegram, bot: Bot, home: Path) -> None:
    talking.say("zanzibar secret")
    talking.reply("zanzibar")
    talking.say("@emulated_bot zanzibar in the group", GROUP, sender=ADA)
    talking.reply("zanzibar in the group", GROUP)
    talking.say("@emulated_bot of somebody else", GROUP, sender=BOB)
    talking.reply("of somebody else", GROUP)
    talking.say("/forget")
    asked = talking.told("This cannot be undone")
    talking.press(asked, "delete")
    talking.told("Everything of yours is deleted.")
    bot.end()
    content = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"zanzibar" not in content
    assert str(ADA).encode() not in content
    assert b"of somebody else" in content


def test_a_group_that_moves_keeps_its_conversation(talking: Telegram) -> None:
    talking.say("@emulated_bot before", GROUP)
    talking.reply("before", GROUP)
    moved = -100_500
    talking.control("say", chat=GROUP, message={"from": person(ADA), "migrate_to_chat_id": moved})
    talking.say("/search@emulated_bot before", moved)
    talking.wait(lambda: talking.sent(moved))
    talking.say("/retry@emulated_bot", moved)
    talking.wait(lambda: any("2/2" in str(one) for one in talking.sent(moved)))


def test_long_replies_come_in_pieces_with_buttons_under_the_last(telegram: Telegram, bot: Bot) -> None:
    bot.settings["CHATBOT_MAX_TOKENS"] = "2000"
    bot.start()
    telegram.say("😀 count to 1900")
    telegram.wait(lambda: (sent := telegram.sent()) and is_whole(sent[-1]))
    pieces = telegram.sent()
    assert len(pieces) == 3
    assert not any("reply_markup" in piece for piece in pieces[:-1])
    joined = " ".join(piece["text"] for piece in pieces)
    assert joined.split() == f"You said: 😀 count to 1900 {' '.join(map(str, range(1, 1901)))}".split()


def test_pictures_come_as_photo_or_transparent_sticker_and_again_with_another_seed(talking: Telegram) -> None:
    talking.say("draw me a red fox")
    talking.told("Here is a picture: a red fox.")
    talking.say("/imagine --style round a blue whale", BOB)
    line = talking.told("Here is a picture: a blue whale.", BOB)
    [sticker] = [one for one in talking.sent(BOB) if "sticker" in one]
    assert sticker["sticker"]["pixels"] == [512, 512, True]
    talking.press(line, "Another picture", BOB)
    talking.wait(lambda: any("2/2" in str(one) for one in talking.sent(BOB)))
    first, second = [one["sticker"]["digest"] for one in talking.sent(BOB) if "sticker" in one]
    assert first != second
    talking.say("/imagine --style flat a tree", BOB)
    talking.wait(lambda: any("photo" in one for one in talking.sent(BOB)))
    assert "upload_photo" in {call["action"] for call in talking.calls("sendChatAction")}
