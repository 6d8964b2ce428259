"""Text of unknown origin made safe to show and to keep: names of files and classes, what was typed, values of a CSV.

A name can hold what a terminal obeys (colors, moving the cursor, another direction of writing) and what a spreadsheet
computes. And what was typed can hold a password that must not end up in a run folder, which people share.

All that trainkit prints goes through `say`, `say_json` and `pass_on`: no other module prints.
"""

from __future__ import annotations

import json
import math
import re
import sys
import unicodedata
from typing import Any, TextIO

HIDDEN = "???"  # stands for a secret: to Hydra "missing", so whoever composes it again is asked for the value
# Cc: control characters. Cs: bytes of a name that are not UTF-8, which cannot be printed. Zl, Zp: ends of lines.
_UNSAFE = ("Cc", "Cs", "Zl", "Zp")
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # turn the direction of writing
_SECRET = re.compile(r"(?:^|_)(?:api)?(?:key|token)$|secret|passw|passphrase|credential", re.IGNORECASE)
_IN_URL = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")
_FORMULA = re.compile(r"[=+\-@\t\r]")


def visible(text: str) -> str:
    """`text` as one line that a terminal only shows: what it would obey is written as its escape, `\\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_safe(char) else char.encode("unicode_escape").decode("ascii") for char in text)


def _is_safe(char: str) -> bool:
    return unicodedata.category(char) not in _UNSAFE and char not in _BIDI


def say(*lines: str, stream: TextIO | None = None) -> None:
    """Print lines to a stream (stdout), as a terminal only shows them."""
    chosen = stream or sys.stdout
    chosen.write("".join(f"{visible(line)}\n" for line in lines))
    chosen.flush()


def say_json(value: Any, indent: int | None = None) -> None:
    """Print JSON for a program to read."""
    say(*to_json(value, indent).split("\n"))


def pass_on(text: str) -> None:
    """Print whole lines that a program may read: into a file or a pipe as they are, on a terminal as `say` does."""
    if sys.stdout.isatty():
        say(*text.removesuffix("\n").split("\n"))
    else:
        sys.stdout.write(text)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON in which letters of all scripts are themselves, and what a terminal would obey is `\\u001b`."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    if text.isascii():  # in which json has escaped all but the newlines of an indent and \x7f
        return text.replace("\x7f", "\\u007f")
    return "".join(char if char == "\n" or _is_safe(char) else f"\\u{ord(char):04x}" for char in text)


def written(value: float) -> str:
    """A number as people write it: 44,610 or 0.0123, of four digits and all of those before the point."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    size = math.floor(math.log10(abs(value)))
    if not -6 < size < 15:
        return f"{value:.3g}"
    text = f"{value:,.{max(3 - size, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_plain(text: str) -> bool:
    """Whether a text, of a path say, holds nothing that `visible` would change."""
    return visible(text) == text


def is_secret(name: str) -> bool:
    """Whether a key or a variable is called like a secret: `token`, `api_key`, `AWS_SECRET_ACCESS_KEY`."""
    return _SECRET.search(name) is not None


def without_secrets(value: Any) -> Any:
    """Config data with the values of keys that are called like secrets replaced by `???`."""
    if isinstance(value, dict):
        return {
            key: HIDDEN if isinstance(item, str) and is_secret(str(key)) else without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return word_without_secrets(value) if isinstance(value, str) else value


def word_without_secrets(word: str) -> str:
    """A word of a command line with its secret replaced by `???`: `model.token=x`, or a password inside a URL."""
    key, equals, _ = word.partition("=")
    name = re.split(r"[./@+~]", key)[-1]
    if equals and is_secret(name.lstrip("-")):
        return f"{key}={HIDDEN}"
    return _IN_URL.sub(rf"\g<1>{HIDDEN}", word)


def cell(value: Any) -> Any:
    """A value of a CSV file; text that a spreadsheet would take for a formula gets a quote before it."""
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
