"""One line of the doctor's findings."""

from dataclasses import dataclass
from typing import Literal

State = Literal["works", "missing", "broken"]
"""What is missing is optional; what is broken is needed, or is there and does not work."""


@dataclass(frozen=True)
class Finding:
    """What was found out about one thing."""

    name: str
    state: State
    found: str
    """In words, on one line."""
    remedy: str | None = None
    """The one command or package that mends it; None where there is nothing to mend."""
