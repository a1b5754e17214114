"""The result of one check."""

from dataclasses import dataclass
from typing import Literal

State = Literal["works", "missing", "broken"]
"""Missing: absent and optional. Broken: absent and needed, or present and not working."""


@dataclass(frozen=True)
class Finding:
    """The state of one component."""

    name: str
    state: State
    found: str
    """One line: version and place, or the error."""
    remedy: str | None = None
    """The command that fixes it; None if there is nothing to fix."""
