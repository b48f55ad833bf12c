"""Personal data is taken out of what is learned: mail addresses, phone and card numbers, keys, IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable

_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:sk|pk|rk)[-_](?:[A-Za-z0-9]+[-_])*[A-Za-z0-9]{16,}\b"  # OpenAI, Stripe and their like
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # Amazon
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}\b|\bgithub_pat_\w{30,}\b"
    r"|\bglpat-[\w-]{20,}|\bxox[abprs]-[\w-]{10,}|\bhf_[A-Za-z0-9]{30,}\b|\bAIza[\w-]{35}"
    r"|\b\d{8,10}:[A-Za-z0-9_-]{35}\b"  # a Telegram bot
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}",  # a JSON web token
    re.DOTALL,
)
_MAIL = re.compile(r"\b[\w.+-]{1,64}@(?:[\w-]{1,63}\.)+[^\W\d_]{2,24}\b")
_IP = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4})(?![\w:]|\.\d)")
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
_PHONE = re.compile(
    r"(?<![\w.])(?:"
    r"\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,6}"  # +49 30 1234567
    r"|\(\d{2,5}\)[ .-]?\d{3,4}[ .-]?\d{3,5}"  # (555) 123-4567
    r"|\d{3}[ .-]\d{3}[ .-]\d{4}"  # 555-123-4567
    r"|0\d{2,4}[ /-]\d{3,5}(?:[ -]?\d{2,5}){1,2}"  # 030 1234 5678
    r"|1[3-9]\d{9}"  # a mobile phone in China
    r")(?![\w-]|\.\d)"
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
    ("ip", _IP, _is_someones),
    ("card", _CARD, _is_card),
    ("phone", _PHONE, _always),
)
