"""The option tables of the README, in both languages, against the options themselves; and its links."""

from __future__ import annotations

import re

import pytest

from tools.options_table import SCRIPTS, options_markdown
from utils.config.paths import ROOT

READMES = ("README.md", "README.zh-CN.md")


def rows_of(readme: str, script: str) -> list[str]:
    """The rows of a script's table, without its head."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    found = re.search(rf"<code>{script}\.py</code></summary>\n\n(.*?)\n</details>", text, re.DOTALL)
    assert found, f"{readme} has no table of {script}.py"
    return found[1].splitlines()[2:]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_readme_documents_every_option_as_help_does(script: str) -> None:
    assert rows_of("README.md", script) == options_markdown(SCRIPTS[script]).splitlines()[2:]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_chinese_readme_documents_every_option_with_its_default(script: str) -> None:
    ours = [row.split(" | ")[:2] for row in rows_of("README.zh-CN.md", script)]
    assert ours == [row.split(" | ")[:2] for row in options_markdown(SCRIPTS[script]).splitlines()[2:]]


@pytest.mark.parametrize("readme", READMES)
def test_every_file_that_a_readme_links_to_exists(readme: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / readme).read_text(encoding="utf-8"))
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert missing == []


def test_both_readmes_have_the_same_sections_and_code() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in READMES)
    heads = [re.findall(r"^#+ ", text, re.MULTILINE) for text in (english, chinese)]
    assert heads[0] == heads[1]
    assert english.count("```") == chinese.count("```")
