"""Which messages ask for a picture, and of what.

Rules, not a model: they answer in microseconds, on any machine, and can be read. They take what plainly asks;
whatever only speaks of drawing stays with the chat model, since a wrong picture annoys more than a missing one, for
which there is `/imagine`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 300
"""Characters; a longer message is about more than a picture."""


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """What shall be in the picture; empty: what was said last. `seed` None draws one, an empty `style` too."""

    prompt: str
    seed: int | None = None
    style: str = ""


_COMMAND = re.compile(r"/imagine\s+(?P<options>(?:--(?:seed|style)\s+\S+\s+)*)(?P<prompt>.+)", re.DOTALL | re.I)
_OPTION = re.compile(r"--(seed|style)\s+(\S+)", re.I)

_POLITE = (
    r"(?:(?:hi|hey|hello|ok(?:ay)?|so|now|and|then|please|pls|plz|great|thanks|cool|just|also|next)[\s,!.]+)*"
    r"(?:(?:can|could|would|will)\s+(?:you|u)\s+(?:please\s+|maybe\s+|quickly\s+|just\s+|try\s+to\s+|try\s+and\s+)*"
    r"|i(?:'d|\s+would)\s+(?:like|love)\s+(?:you\s+to\s+|to\s+see\s+(?:you\s+)?)|i\s+(?:want|need)\s+you\s+to\s+"
    r"|let'?s\s+(?:see\s+you\s+)?|go\s+ahead\s+and\s+|try\s+to\s+|help\s+me\s+)?(?:please\s+|pls\s+|plz\s+)?"
)
_FOR = r"(?:\s+(?:for\s+)?(?:me|us))?(?:\s+(?:a\s+)?(?:quick|quickly|just))?"
_KIND = (
    r"(?:pictures?|pics?|images?|drawings?|stickers?|emojis?|icons?|illustrations?|photos?|photographs?|paintings?"
    r"|sketch(?:es)?|doodles?|cartoons?|portraits?|clip\s?arts?)"
)
_CHINESE = re.compile("[\u4e00-\u9fff]")
_NAMED = re.compile(rf"draw|sketch|paint|doodle|illustrate|{_KIND}", re.I)
"""Without one of these words none of what follows can match; most messages have none."""

_LOOK = r"(?:[\w-]+\s+){0,3}?"
_OF = r"(?:of|showing|with|depicting|that\s+shows)\s+"
_DRAW = re.compile(
    rf"{_POLITE}(?P<verb>draw|sketch|paint|doodle|illustrate){_FOR}\s+"
    rf"(?:(?:a|an|the|some|one)\s+{_LOOK}{_KIND}\s+{_OF})?(?P<prompt>.+)",
    re.I | re.DOTALL,
)
_MAKE = re.compile(
    rf"{_POLITE}(?:make|create|generate|render|design|produce|show|give|send|get|do|draw|whip\s+up){_FOR}\s+"
    rf"(?:(?:a|an|the|some|one|another)\s+)?{_LOOK}{_KIND}\s+{_OF}(?P<prompt>.+)",
    re.I | re.DOTALL,
)
_KIND_LAST = re.compile(
    rf"{_POLITE}(?:(?:make|create|generate|draw|design|give|send){_FOR}|i(?:'d|\s+would)\s+like|i\s+(?:want|need))\s+"
    rf"(?P<prompt>(?:(?:a|an|some|one)\s+)(?:[\w'-]+\s+){{1,6}}?)(?:stickers?|emojis?|drawings?|illustrations?|doodles?|"
    r"pictures?|images?)",
    re.I,
)
_WANT = re.compile(
    rf"{_POLITE}(?:i(?:'d|\s+would)\s+(?:like|love)|i\s+(?:want|need)|i\s+wanna\s+see|i\s+want\s+to\s+see"
    rf"|(?:can|could|may)\s+(?:i|we)\s+(?:have|get|see)|how\s+about|what\s+about)\s+(?:to\s+(?:see|have|get)\s+)?"
    rf"(?:(?:a|an|the|some|one|another)\s+)?{_LOOK}{_KIND}\s+{_OF}(?P<prompt>.+)",
    re.I | re.DOTALL,
)
_BARE = re.compile(
    rf"{_POLITE}(?:(?:a|an|one|another)\s+)?(?:[\w-]+\s+){{0,1}}?{_KIND}\s+of\s+(?P<prompt>.+)", re.I | re.DOTALL
)

_NO_PICTURE = re.compile(
    r"\b(?:ascii|svg|latex|tikz|mermaid\s+(?:code|charts?|diagrams?)|matplotlib|plantuml|html|css|canvas|python|javascript"
    r"|code|script|function|program|algorithm|table|list|essay|paragraph|sentence|words|poem|prompt|text"
    r"|(?:big|bleak|grim|gloomy|rosy|fuller|different)\s+picture)\b",
    re.I,
)
_ADJECTIVE = r"(?:[\w-]+\s+)?"
_IDIOM = re.compile(
    # things that are drawn and are no pictures
    rf"(?:(?:a|an|the|some|any|more|your|own|my|their|our|his|her|its)\s+)*{_ADJECTIVE}"
    r"(?:conclusions?|attention|comparisons?|parallels?|distinctions?|inferences?|lessons?|analog(?:y|ies)|lines?|breath"
    r"|blood|bath|salary|wages|lots|straws?|cards?|crowds?|curtains?|inspiration|strength|criticism|connections?"
    r"|correlations?|insights?|boundar(?:y|ies)|contract|will|plans?|points?|blank|winner|raffle|names?|numbers?|samples?"
    r"|differences?|concepts?|ideas?|proofs?|process(?:es)?|relationships?|importance|effects?|principles?"
    r"|theor(?:y|ies))\b"
    # what is told rather than shown
    r"|(?:how|why|whether)\b"
    # stuff: "draw water", but "draw a battery" is a picture
    r"|(?:water|fire|money|cash|power|interest|heat|fluids?)\b"
    # what somebody has, is taken out or gets a coat of paint
    rf"|(?:your|my|our|his|her|their)\s+{_ADJECTIVE}(?:swords?|guns?|weapons?|fence|walls?|house|rooms?|kitchen|bedroom"
    r"|ceiling|doors?|nails|car)\b"
    # no object at all
    r"|(?:is|was|are|were|has|comes|of|up|on|from|upon|near|back|out|in|into|down|away|off|closer|together|with|between)\b",
    re.I,
)
_COAT = re.compile(
    rf"(?:the|a)\s+{_ADJECTIVE}(?:fence|walls?|house|rooms?|kitchen|bedroom|ceiling|doors?|town)\b", re.I
)
_SAID = re.compile(
    r"(?:it|that|this|them|him|her|those|these|one|what\s+(?:you|i|we)\s+(?:just\s+)?(?:said|described|wrote|told\s+me))"
    r"(?:\s+(?:for\s+me|now|then|please|pls|again))*",
    re.I,
)
_TAIL = re.compile(
    r"(?:[\s,]+(?:please|pls|plz|thanks|thank\s+you|thx|for\s+(?:me|us)|would\s+you|will\s+you|ok(?:ay)?|now|if\s+you\s+can"
    r"|real\s+quick|quickly|for\s+(?:him|her|them)|can\s+you\s+(?:make|draw|do)\s+(?:one|it|that)))+\s*\Z",
    re.I,
)
_GERUND = re.compile(r"\b(?:would|do)\s+you\s+mind\s+(draw|sketch|paint|mak|creat|generat)ing\b", re.I)
_ENDINGS = {"mak": "make", "creat": "create", "generat": "generate"}
_LAST_CLAUSE = re.compile(r".*(?:[.!?;]\s+|,\s+(?=(?:can|could|would|will|please)\b))", re.I | re.DOTALL)
_PUNCTUATION = " \t\n.,!?;:。！？，；：~～…\"'“”‘’()（）"

_POLITE_ZH = (
    r"(?:你好|嗨|请问|那么?|好的?|现在|然后)?[，,、\s]*(?:请|麻烦)?(?:你|您)?"
    r"(?:能不能|可不可以|可以|能否|能|会不会|会)?(?:请|麻烦)?"
)
_FOR_ZH = r"(?:再)?(?:帮忙|帮|给|为|替)?(?:我们|我|咱们|孩子|他|她|大家)?(?:再)?"
_COUNT_ZH = r"[一二三四五六七八九十两几0-9]*(?:张|幅|副|个|款|枚|套|组)?"
_KIND_ZH = r"(?:图片|图画|图像|图|照片|画像|画|贴纸|表情包|表情|插画|插图|卡通画|卡通|头像|图标|素描|简笔画|漫画)"
_DRAW_ZH = re.compile(
    rf"{_POLITE_ZH}{_FOR_ZH}(?:[画畫]|绘制|繪製|描绘|绘|繪)(?:一下|一画|画|出)?(?P<prompt>(?!家|面|展|廊|法|风|笔|画家|饼|蛇添足|重点"
    rf"|龙点睛|地为牢"
    rf"|饼充饥|像|册|布|框|室|报|外音|中有话|质|眉|押|完|好|得|过|了|的|不|上|下来|皮).+)"
)
_MAKE_ZH = re.compile(
    rf"{_POLITE_ZH}{_FOR_ZH}(?:想要|要|想看|看|生成|做|制作|创作|创建|来|发|设计|弄|搞|整|给|绘制|画|出|p)(?:我|我们)?(?:出|看|一下)?"
    rf"{_COUNT_ZH}(?P<prompt>.+?)(?:的)?{_KIND_ZH}"
)
_WANT_ZH = re.compile(rf"我(?:们)?(?:想要|要|想看|需要)(?:看|看看)?{_COUNT_ZH}(?P<prompt>.+?)(?:的)?{_KIND_ZH}")
_TAIL_ZH = re.compile(
    r"(?:好吗|好不好|行吗|可以吗|吧|吗|呗|呀|啊|哦|谢谢|看看|给我|给我看|给我看看|[，,。.！!？?~～\s])+\Z"
)
_NOT_ZH = re.compile(
    r"怎么|如何|什么|为什么|谁|哪|意思|介绍|解释|推荐|描述|代码|程序|ascii|步骤|教|计划|表格|列表|文案|作文|故事",
    re.I,
)
_SAID_ZH = re.compile(r"(?:它|这个|那个|刚才说的|你说的|上面说的)")


def find(text: str) -> PictureRequest | None:
    """The picture that a message asks for, or None where it is one for the chat model."""
    if (command := _COMMAND.fullmatch(text.strip())) is not None:
        return _of_command(command)
    text = " ".join(text.split())
    if not text or len(text) > LONGEST:
        return None
    if is_chinese(text):
        return _in_chinese(text)
    if not _NAMED.search(text) or _NO_PICTURE.search(text):
        return None
    text = _GERUND.sub(lambda match: f"please {_ENDINGS.get(match[1].lower(), match[1])}", text)
    bare = _TAIL.sub("", text.strip(_PUNCTUATION)).strip(_PUNCTUATION)
    if (request := _in_english(bare)) is None and (last := _LAST_CLAUSE.sub("", bare)) != bare:
        request = _in_english(last)
    return request


def _in_english(bare: str) -> PictureRequest | None:
    for pattern in (_MAKE, _WANT, _BARE, _KIND_LAST):
        if (match := pattern.fullmatch(bare)) is not None and not match["prompt"].rstrip().endswith(" of"):
            return _request(match["prompt"])
    match = _DRAW.fullmatch(bare)
    if match is None or _IDIOM.match(match["prompt"]):
        return None
    if match["prompt"].lower() in ("me", "us"):
        return None
    if match["verb"].lower() == "paint" and _COAT.match(match["prompt"]):
        return None
    return _request(match["prompt"])


def is_chinese(text: str) -> bool:
    """Whether there are Chinese characters in it."""
    return _CHINESE.search(text) is not None


def _request(prompt: str) -> PictureRequest:
    prompt = prompt.strip(_PUNCTUATION)
    return PictureRequest("" if _SAID.fullmatch(prompt) else prompt)


def _of_command(match: re.Match[str]) -> PictureRequest:
    options = {name.lower(): value for name, value in _OPTION.findall(match["options"])}
    seed = options.get("seed", "")
    return PictureRequest(match["prompt"].strip(), int(seed) if seed.isdigit() else None, options.get("style", ""))


def _in_chinese(text: str) -> PictureRequest | None:
    if _NOT_ZH.search(text) or "别画" in text or "不要" in text or "不用" in text:
        return None
    bare = _TAIL_ZH.sub("", text)
    for pattern in (_WANT_ZH, _MAKE_ZH, _DRAW_ZH):
        if (match := pattern.fullmatch(bare)) is not None:
            prompt = match["prompt"].strip(_PUNCTUATION)
            if not prompt or re.fullmatch(_KIND_ZH, prompt):  # 画画, the doing
                return None
            return PictureRequest("" if _SAID_ZH.fullmatch(prompt) else prompt)
    return None
