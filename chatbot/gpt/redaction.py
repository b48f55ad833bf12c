"""Personal data is taken out of what is learned: mail addresses, phone and card numbers, keys, IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable

# Letters of scripts that put spaces between words: Chinese and the like touch a number, and are no part of it.
_WORD = r"\dA-Za-z_À-ԯ"
_BEFORE = rf"(?<![{_WORD}.])"
_AFTER = rf"(?![{_WORD}-]|\.\d)"

_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"
    r"|\b(?:sk|pk|rk)[-_](?:[A-Za-z0-9]+[-_])*[A-Za-z0-9]{16,}\b"  # OpenAI, Stripe and their like
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # Amazon
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}\b|\bgithub_pat_\w{30,}\b"
    r"|\bglpat-[\w-]{20,}|\bxox[abprs]-[\w-]{10,}|\bhf_[A-Za-z0-9]{30,}\b|\bAIza[\w-]{35}"
    r"|\b\d{8,10}:[A-Za-z0-9_-]{35}\b"  # a Telegram bot
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}",  # a JSON web token
    re.DOTALL | re.ASCII,
)
_MAIL = re.compile(rf"(?<![{_WORD}])[{_WORD}.+-]{{1,64}}@(?:[{_WORD}-]{{1,63}}\.)+[A-Za-zÀ-ԯ]{{2,24}}(?![{_WORD}])")
_MAIL_OF_ANY_SCRIPT = re.compile(r"\b[\w.+-]{1,64}@(?:[\w-]{1,63}\.)+[^\W\d_]{2,24}\b")
_IP = re.compile(
    r"(?<!ersion )(?<!版本)(?<!版本号)"  # 1.2.3.4
    rf"{_BEFORE}\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?![{_WORD}]|\.\d)"
    rf"|(?<![{_WORD}.:])(?:[0-9A-Fa-f]{{0,4}}:){{2,7}}[0-9A-Fa-f]{{0,4}}(?![{_WORD}:]|\.\d)"
)
_CARD = re.compile(rf"(?<!-){_BEFORE}[2-6](?:[ -]?\d){{12,18}}{_AFTER}")  # a time or a book begins with another
# Ten digits in a row are no phone: as often they are the number of an order or a book, or a time.
_PHONE = re.compile(
    _BEFORE + r"(?:"
    r"\+(?=(?:[ .()-]{0,2}\d){8})[1-9]\d{0,2}(?:[ .-]?\(?\d{1,5}\)?){2,6}"  # +49 30 1234567, not +5.25
    r"|\(\d{2,5}\)[ .-]?\d{3,4}[ .-]?\d{3,5}"  # (555) 123-4567
    r"|\d{3}[ .-]\d{3}[ .-]\d{4}"  # 555-123-4567
    r"|0\d{2,4}[ /-]\d{3,5}(?:[ -]?\d{2,5}){1,2}"  # 030 1234 5678
    r"|0(?:1[5-7]|[1-9])\d{9}"  # 01601234567, 015112345678
    r"|(?<!\d[ .-])0(?:\d(?:[ .-]\d\d){4}|\d\d\d(?:[ .-]\d\d){3})(?![ .]\d)"  # 06 12 34 56 78, 0470 12 34 56
    r"|1[3-9]\d[ -]?\d{4}[ -]?\d{4}"  # a mobile phone in China
    r")" + _AFTER
)


def redacted(text: str, counts: Counter[str]) -> str:
    """The text with a word in brackets in the place of each; `counts` is told how many of each kind there were."""
    for kind, pattern, is_one in _KINDS:

        def replace(match: re.Match[str], kind: str = kind, is_one: Callable[[str], bool] = is_one) -> str:
            if not is_one(match[0]):
                return match[0]
            counts[kind] += 1
            return f"[{kind}]"

        text = pattern.sub(replace, text)
    return text


def _is_card(digits: str) -> bool:
    """Luhn's checksum, which one number in ten has by chance."""
    total = 0
    for place, digit in enumerate(int(character) for character in reversed(digits) if character.isdigit()):
        doubled = digit * (1 + place % 2)
        total += doubled - 9 * (doubled > 9)
    return total % 10 == 0 and len({character for character in digits if character.isdigit()}) > 1


def _is_someones(address: str) -> bool:
    """Whether it is an address of the internet: 127.0.0.1 and its like are nobody's."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _always(text: str) -> bool:
    return True


_KINDS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("key", _KEY, _always),
    ("e-mail", _MAIL, _always),
    ("e-mail", _MAIL_OF_ANY_SCRIPT, _always),
    ("ip", _IP, _is_someones),
    ("card", _CARD, _is_card),
    ("phone", _PHONE, _always),
)
