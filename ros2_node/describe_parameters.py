"""Write what the node's parameters are, from their descriptors, to where people read it.

`python ros2_node/describe_parameters.py` renews the table in docs/ros.md and the file of defaults,
ros2_node/config/tracker.yaml. A test says when that is due.
"""

import json
import textwrap
from pathlib import Path

from vditrack_ros.parameters import PARAMETERS, Parameter

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "ros.md"
CONFIG = FOLDER / "config" / "tracker.yaml"
MARKERS = ("<!-- parameters: begin -->\n", "<!-- parameters: end -->\n")


def table() -> str:
    """The table of all parameters, in Markdown."""
    columns = ["parameter", "type", "default", "allowed", "live", "what it does"]
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    return head + "".join(_row(parameter) for parameter in PARAMETERS)


def _row(parameter: Parameter) -> str:
    allowed = ", ".join(f"`{choice}`" for choice in parameter.choices)
    if parameter.range is not None:
        allowed = "{:g} to {:g}".format(*parameter.range)
    cells = [
        f"`{parameter.name}`",
        parameter.kind,
        f"`{json.dumps(parameter.default)}`",
        allowed,
        "yes" if parameter.live else "",
        parameter.description.replace("|", "\\|"),
    ]
    return f"| {' | '.join(cells)} |\n"


def renewed_page(page: str) -> str:
    """The page with the table between its markers as it should be."""
    before, rest = page.split(MARKERS[0])
    _, after = rest.split(MARKERS[1])
    return before + MARKERS[0] + table() + MARKERS[1] + after


def config() -> str:
    """The file of all parameters at their defaults, each with what it does."""
    head = (
        "# The node's parameters at their defaults. Written by describe_parameters.py.\n"
        "/**:\n  ros__parameters:\n"
    )
    return head + "\n".join(_setting(parameter) for parameter in PARAMETERS)


def _setting(parameter: Parameter) -> str:
    text = parameter.description
    if parameter.choices or parameter.range:
        text += f" It is {parameter.allowed}."
    comment = textwrap.wrap(text, 96, initial_indent="    # ", subsequent_indent="    # ")
    # YAML reads JSON.
    return "\n".join([*comment, f"    {parameter.name}: {json.dumps(parameter.default)}\n"])


def main() -> None:
    """Renew both files."""
    PAGE.write_text(renewed_page(PAGE.read_text()))
    CONFIG.write_text(config())


if __name__ == "__main__":
    main()
