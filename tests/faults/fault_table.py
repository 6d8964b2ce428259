"""One row of the table of faults: what goes wrong, the command that makes it go wrong, and how it must end.

The 85 numbers are those of the project's list of what a training command must survive. They stand in the modules
`*_rows` by section; test_faults.py runs every command, and sees that no number is left out and every named test exists.
"""

from __future__ import annotations

import dataclasses
import re

from writers import Content, npz, table

FAST = "device=cpu device.threads=1 epochs=1"
FOLDER = f"train {FAST} dataset=folder dataset.root=images dataset.image_size=8 model=linear"
NPZ = f"train {FAST} dataset=npz dataset.file=data.npz model=linear"


@dataclasses.dataclass(frozen=True)
class Fault:
    """A row. words: a command for a scratch folder with `files` in it; shows: a pattern for each line of the error,
    or, where the code is 0, one for what is printed. proof: tests that show it too, or show what one command cannot.
    skip: why nothing here runs it.
    """

    number: int
    what: str
    words: str = ""
    code: int = 2
    shows: str | tuple[str, ...] = ()
    files: dict[str, Content] = dataclasses.field(default_factory=dict)
    proof: tuple[str, ...] = ()
    skip: str = ""

    @property
    def patterns(self) -> tuple[str, ...]:
        return (self.shows,) if isinstance(self.shows, str) else self.shows

    @property
    def id(self) -> str:
        return f"{self.number:02}-" + re.sub(r"\W+", "-", self.what)[:40].strip("-")


def mine(text: str | bytes) -> dict[str, Content]:
    """A model option of the user's own, `model=mine`."""
    return {"conf/model/mine.yaml": text}


def arrays(**changed: object) -> dict[str, Content]:
    """A file of arrays that trains, but for what is changed."""
    return {"data.npz": npz(**(table() | changed))}
