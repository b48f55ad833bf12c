"""kill -9 at every point where something could be lost or come twice, placed there by the server."""

from __future__ import annotations

import signal
from itertools import cycle, groupby

from tests.telegram.world import Bot, Telegram, is_whole

ROUNDS = 15
POINTS: dict[str, dict[str, object]] = {
    "before it is stored": {"method": "getUpdates", "do": "kill_half"},
    "stored, and not confirmed": {"method": "getUpdates", "do": "kill_before", "skip": 1},
    "confirmed, and not answered": {"method": "getUpdates", "do": "kill_after", "skip": 1},
    "while the model thinks": {"method": "sendChatAction", "do": "kill_before"},
    "in mid stream": {"method": "sendMessageDraft", "do": "kill_before", "skip": 2},
    "before the answer is out": {"method": "sendMessage", "do": "kill_before"},
    "the answer is out, and not noted": {"method": "sendMessage", "do": "kill_after"},
}
PACED = {"while the model thinks": " count to 25 after 1 s", "in mid stream": " count to 25 every 0.04 s"}
TWICE = "an answer may come twice: a process died between sending and noting it"
CHATS = range(2000, 2030)


def expected(said: str) -> str:
    return f"You said: {said}" + "".join(f" {number}" for number in range(1, 26)) * ("count to 25" in said)


def test_a_hundred_kills_lose_nothing_and_keep_the_order(telegram: Telegram, bot: Bot) -> None:
    said: dict[int, list[str]] = {chat: [] for chat in CHATS}
    chats = cycle(CHATS)
    updates = window = 0
    for number in range(ROUNDS):
        for point, fault in POINTS.items():
            window += point == "the answer is out, and not noted"
            telegram.control("fault", **fault)
            for chat in [next(chats) for _ in range(3)]:
                text = f"{point} {number} in {chat}"
                said[chat].append(text + PACED.get(point, ""))
                telegram.say(said[chat][-1], chat)
                updates += 1
            bot.start()
            assert bot.wait() == -signal.SIGKILL, point
            assert telegram.look()["faults"] == [], point
    bot.start()
    wanted = {chat: [expected(text) for text in texts] for chat, texts in said.items()}

    def everything() -> bool:
        return all({one.get("text") for one in telegram.sent(chat)} >= set(texts) for chat, texts in wanted.items())

    telegram.wait(everything, seconds=120)
    twice = 0
    for chat, texts in wanted.items():
        came = [one["text"] for one in telegram.sent(chat) if is_whole(one)]
        assert [text for text, _ in groupby(came)] == texts, "nothing is lost, and all is in order"
        twice += len(came) - len(texts)
    assert sum(len(texts) for texts in wanted.values()) == updates
    assert twice <= len(bot.logged(TWICE)), "what came twice is said"
    assert twice >= window // 2, "the window is real, and the server hit it"
    telegram.wait(lambda: telegram.look()["unconfirmed"] == 0)
