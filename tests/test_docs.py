"""README and docs: tables against the code, links, commands, quoted messages, and English against Chinese."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml

from tools.options_table import RECORDS, options_record, updated
from utils.config.cli import parse
from utils.config.paths import ROOT

README_LIMIT, IMAGE_LIMIT = 12_000, 150_000  # bytes
PAIRS = {
    "README.md": "README.zh-CN.md",
    **{f"docs/en/{page.name}": f"docs/zh/{page.name}" for page in sorted((ROOT / "docs/en").glob("*.md"))},
}
PAGES = [*PAIRS, *PAIRS.values()]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, kind: str = "") -> list[str]:
    """The code blocks of a page that are marked as ``kind``, or all."""
    return [code for language, code in _BLOCK.findall(text_of(page)) if kind in ("", language)]


def outside_blocks(page: str) -> str:
    return _BLOCK.sub("", text_of(page))


def headings(page: str) -> list[tuple[str, str]]:
    return re.findall(r"^(#+) (.+)$", outside_blocks(page), re.MULTILINE)


def anchor(heading: str) -> str:
    """The name of a heading in a link: GitHub's rule, which mkdocs.yml requests for the site as well."""
    kept = (c for c in heading.lower() if c in "-_ " or unicodedata.category(c)[0] in "LN")
    return "".join(kept).strip().replace(" ", "-")


def commands(page: str) -> list[list[str]]:
    """The words of every command of a page that starts Python: lines of its shell blocks, and code in its text."""
    lines = [line for code in blocks(page, "bash") for line in code.splitlines()]
    lines += re.findall(r"`(python [^`]*)`", outside_blocks(page))
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if words and words[0] in ("python", "torchrun"):
            found.append(words)
    return found


def without_comments(code: str) -> list[str]:
    return [re.sub(r"\s*#( .*)?$", "", line) for line in code.splitlines()]


@pytest.mark.parametrize("page", [*PAIRS.values(), *PAIRS])
def test_the_tables_of_a_page_are_those_of_the_code(page: str) -> None:
    text = text_of(page)
    language = "zh" if page in PAIRS.values() else "en"
    assert updated(text, language) == text, "run: python -m tools.options_table --update"


def test_the_options_page_has_every_command_that_has_options() -> None:
    listed = re.findall(r"<!-- table: (\S+) -->", text_of("docs/en/options.md"))
    assert [*listed, "tools.demo"] == [*(name for name in RECORDS if name != "tools.demo"), "tools.demo"]


def test_the_meaning_of_every_option_is_translated() -> None:
    rows = [line for line in text_of("docs/zh/options.md").splitlines() if line.startswith("| `")]
    assert [row for row in rows if not re.search("[\u4e00-\u9fff]", row)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_to_a_heading_in_it(page: str) -> None:
    wrong = []
    text = outside_blocks(page)
    for link in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text)]:
        if link.startswith(("http://", "https://")):
            continue
        name, _, heading = link.partition("#")
        target = ((ROOT / page).parent / name if name else ROOT / page).resolve()
        titles = [title for _, title in headings(str(target.relative_to(ROOT)))] if heading else []
        if not target.exists() or (heading and heading not in map(anchor, titles)):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_every_path_in_the_repository_that_a_page_names_exists(page: str) -> None:
    paths = re.findall(r"`((?:models|utils|tools|tests|examples|docs)/[\w./-]+)`", outside_blocks(page))
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_is_short(readme: str) -> None:
    assert (ROOT / readme).stat().st_size <= README_LIMIT


def test_the_images_of_the_documentation_are_small() -> None:
    assert [p.name for p in (ROOT / "docs/images").iterdir() if p.stat().st_size > IMAGE_LIMIT] == []


def test_every_page_is_there_in_both_languages() -> None:
    assert sorted(p.name for p in (ROOT / "docs/en").iterdir()) == sorted(p.name for p in (ROOT / "docs/zh").iterdir())


@pytest.mark.parametrize("page", PAIRS)
def test_a_page_has_the_same_headings_and_code_in_both_languages(page: str) -> None:
    levels = [[level for level, _ in headings(name)] for name in (page, PAIRS[page])]
    assert levels[0] == levels[1]
    english, chinese = (_BLOCK.findall(text_of(name)) for name in (page, PAIRS[page]))
    assert [language for language, _ in english] == [language for language, _ in chinese]
    for (language, ours), (_, theirs) in zip(english, chinese):
        if language:  # others are layouts in words
            assert without_comments(ours) == without_comments(theirs)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_as_many_list_items_and_table_rows_in_both_languages(page: str) -> None:
    twin = {**PAIRS, **{value: key for key, value in PAIRS.items()}}[page]
    counts = [
        [len(re.findall(start, outside_blocks(name), re.MULTILINE)) for start in (r"^\| ", r"^- ", r"^\d+\. ")]
        for name in (page, twin)
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_accepted(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(page):
        if words[0] == "torchrun":
            words = ["python", *words[[word.endswith(".py") for word in words].index(True) :]]
        name, arguments = (words[2], words[3:]) if words[1] == "-m" else (words[1], words[2:])
        if name.startswith("examples/"):
            source = text_of(name)
            assert [word for word in arguments if word.startswith("--") and f'"{word}"' not in source] == []
            continue
        assert name in RECORDS, f"{' '.join(words)}: no such command"
        if arguments == ["--help"]:
            continue
        try:
            parse(options_record(name), arguments, prog=name)
        except SystemExit:
            pytest.fail(f"{' '.join(words)}\n{capsys.readouterr().err}")


@pytest.mark.parametrize("page", PAGES)
def test_every_yaml_of_a_command_is_there_unless_it_is_the_users_own(page: str) -> None:
    here = {path.name for folder in ("models", "data", "examples", "tools") for path in (ROOT / folder).rglob("*.yaml")}
    missing = [
        word
        for words in commands(page)
        for word in words
        if word.endswith(".yaml")
        and not Path(word).name.startswith("my")  # my.yaml, my_model.yaml ...: the user's own
        and not ((ROOT / word).is_file() or word in here)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_the_python_and_yaml_of_a_page_can_be_parsed(page: str) -> None:
    for code in blocks(page, "python"):
        ast.parse(code)
    for code in blocks(page, "yaml"):
        assert yaml.safe_load(code)


def messages_of_the_code() -> str:
    """Every text of the program, with ``...`` for the values in it."""
    texts = []
    files = [
        *ROOT.glob("*.py"),
        *(path for name in ("models", "utils", "tools") for path in (ROOT / name).rglob("*.py")),
    ]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(v.value if isinstance(v, ast.Constant) else "..." for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_the_errors_page_quotes_messages_of_the_program() -> None:
    program = messages_of_the_code()
    quoted = [re.findall(r"^\| `([^`]+)` \|", text_of(f"docs/{x}/errors.md"), re.MULTILINE) for x in ("en", "zh")]
    assert quoted[0] == quoted[1]
    assert len(quoted[0]) > 30
    patterns = {text: ".*?".join(re.escape(part.strip()) for part in text.split("...")) for text in quoted[0]}
    assert [text for text, pattern in patterns.items() if not re.search(pattern, program)] == []


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocs_static_i18n")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    pages = {path.name for path in (ROOT / "docs/en").glob("*.md")}
    for folder in (tmp_path / "site", tmp_path / "site/zh"):
        assert {path.with_suffix(".md").name for path in folder.glob("*.html")} >= pages
    loaded = [
        link
        for path in (tmp_path / "site").rglob("*.html")
        for tag in re.findall(r"<(?:script|link|img|iframe)[^>]*>", path.read_text(encoding="utf-8"))
        for link in re.findall(r"""(?:src|href)=["']?((?:https?:)?//[^"'> ]+)""", tag)
    ]
    assert loaded == []  # from other hosts


def test_the_layer_and_the_rows_of_the_pages_make_a_model(tmp_path: Path) -> None:
    (tmp_path / "my_layers.py").write_text(blocks("docs/en/layers.md", "python")[0], encoding="utf-8")
    rows = [blocks("docs/en/layers.md", "yaml")[0], blocks("docs/en/dynamic.md", "yaml")[0]]
    modules = [row[2] for text in rows for row in yaml.safe_load(text)]
    assert modules == ["GatedConv", "DynamicConv", "C3Dynamic", "DynamicConv", "DynamicConv", "Dynamic_conv2d"]
    content = {
        "nc": 2,
        "depth_multiple": 0.33,
        "width_multiple": 0.25,
        "anchors": [[10, 13, 16, 30, 33, 23]],
        "backbone": [[-1, 1, "Conv", [64, 6, 2, 2]], *(row for text in rows for row in yaml.safe_load(text))],
        "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
        **yaml.safe_load(blocks("docs/en/layers.md", "yaml")[1]),  # imports: my_layers.py
    }
    (tmp_path / "my_model.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [sys.executable, "-m", "tools.profile", "--cfg", str(tmp_path / "my_model.yaml")]
    command += ["--imgsz", "64", "--repeats", "1", "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [
        line.split()[-2] for line in (done.stdout + done.stderr).splitlines() if re.match(r" +[1-6] ", line)
    ] == modules
