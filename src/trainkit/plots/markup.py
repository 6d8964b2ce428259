"""HTML out of values: every text is escaped unless it is markup already, so that nothing can be forgotten."""

from __future__ import annotations

import base64
import html
import io
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.text import visible

# Not letters in any version of Unicode; HTML does not allow them.
_NONCHARACTERS = re.compile(
    "[\ufdd0-\ufdef" + "".join(chr((plane << 16) + low) for plane in range(17) for low in (0xFFFE, 0xFFFF)) + "]"
)
_VOID = {"br", "img", "meta", "col"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def clean(value: Any) -> str:
    """A value as text, with the escape of each character that would reorder, hide or end the text around it."""
    lines = (visible(line) for line in str(value).split("\n"))
    return _NONCHARACTERS.sub("\ufffd", "\n".join(lines))


def escape(value: Any) -> str:
    """A value as it may stand in an element or in a quoted attribute."""
    return str(value) if isinstance(value, Markup) else html.escape(clean(value), quote=True)


def element(tag: str, /, *children: Any, **attributes: Any) -> Markup:
    """<tag attributes>children</tag>; `class_` and `for_` lose their underscore, None is left out."""
    pairs = [(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None]
    words = "".join(f' {key}="{escape(value)}"' for key, value in pairs)
    if tag in _VOID:
        return Markup(f"<{tag}{words}>")
    return Markup(f"<{tag}{words}>{''.join(map(escape, children))}</{tag}>")


def join(*parts: Any) -> Markup:
    """The parts one after the other, each on a line."""
    return Markup("\n".join(escape(part) for part in parts if part is not None))


def table(heads: list[str], rows: list[list[Any]], *, caption: str | None = None, numbers: bool = True) -> Markup:
    """A table in a box that scrolls by itself. numbers: all columns but the first stand to the right."""
    kind = "numbers" if numbers else None
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    body = []
    for first, *rest in rows:
        body.append(element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest)))
    parts = [element("caption", caption)] if caption else []
    grid = element("table", *parts, element("thead", head), element("tbody", *body), class_=kind)
    return element("div", grid, class_="scroll", tabindex="0", role="region", aria_label=caption or heads[0])


def picture(image: NDArray[np.uint8], alt: str) -> Markup:
    """An image uint8 (1 or 3, h, w) as an <img> that holds its own PNG."""
    data = base64.b64encode(png(image)).decode()
    height, width = image.shape[1:]
    return element("img", src=f"data:image/png;base64,{data}", alt=alt, width=width, height=height)


def png(image: NDArray[np.uint8]) -> bytes:
    """The PNG file of an image uint8 (1 or 3, h, w)."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(content, "PNG", optimize=True)
    return content.getvalue()
