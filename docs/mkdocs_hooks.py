"""A hook of mkdocs: links to files of the repository, which the site does not contain, become plain text."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

# [text](../../examples/layers/README.md), as GitHub shows it; two levels up from docs/en/page.md is the repository.
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./\.\./[^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each link that leaves ``docs/`` by its text and the path in the repository."""
    return _LINK.sub(_as_text, markdown)


def _as_text(match: re.Match[str]) -> str:
    text, target = match[1], PurePosixPath(match[2])
    path = "/".join(target.parts[2:])
    return text if path in text else f"{text} (`{path}`)"
