"""The check of words: what it refuses, where, and what it lets through."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

TABLE = """
| term | meaning | not |
|---|---|---|
| image | pixels | picture, photograph |
| NMS | non-maximum suppression | suppression ("non-maximum suppression", "non max suppression") |
| resume | continue | go on, goes on |
| detection | box | *find*, `found` ("not found") |
| load_weights | | `load()` |
| letterbox | resize | |
"""


@pytest.fixture(scope="module")
def vocabulary() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vocabulary", ROOT / "tests" / "vocabulary.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def hits(vocabulary: ModuleType, source: str) -> list[tuple[int, str, str]]:
    found: list[tuple[int, str, str]] = vocabulary.refused(
        vocabulary.passages_of_python(source), vocabulary.read_rules(TABLE)
    )
    return found


@pytest.mark.parametrize(
    "source",
    [
        "x = 1  # a picture\n",
        'x = "two pictures"\n',
        'x = f"{y} Picture"\n',
        "def main(last_picture): pass\n",
        "class PictureFolder: pass\n",
        "x.pictures = 1\n",
    ],
)
def test_a_refused_word_is_found_in_every_part_of_a_source(vocabulary: ModuleType, source: str) -> None:
    ((line, word, instead),) = hits(vocabulary, source)
    assert (line, word.rstrip("s"), instead) == (1, "picture", "image")


def test_a_phrase_is_found_across_the_lines_of_a_comment_or_string(vocabulary: ModuleType) -> None:
    assert hits(vocabulary, "# what will go\n# on\n") == [(1, "go on", "resume")]
    assert hits(vocabulary, 'x = ("what goes "\n  "on")\n') == [(1, "goes on", "resume")]
    assert hits(vocabulary, "def go_on(): pass\n") == [(1, "go on", "resume")]
    assert hits(vocabulary, 'x = "where to go. On a GPU"\n') == []


def test_a_word_is_allowed_in_the_phrases_that_the_table_names(vocabulary: ModuleType) -> None:
    assert hits(vocabulary, "x = non_max_suppression  # Non-maximum suppression\n") == []
    assert hits(vocabulary, "x = suppression\n") == [(1, "suppression", "NMS")]
    assert hits(vocabulary, "not_found = FileNotFoundError\n") == []


def test_some_words_are_refused_only_in_names_or_as_the_whole_name_of_a_function(vocabulary: ModuleType) -> None:
    assert hits(vocabulary, "# found\nfound_boxes = 1\n") == [(2, "found", "detection")]
    assert hits(vocabulary, "def load(): pass\n") == [(1, "load", "load_weights")]
    assert hits(vocabulary, "def load_image(): load()\n") == []
    assert hits(vocabulary, "class Spec:\n    def load(self): find = 1\n") == []


def test_names_that_are_read_from_older_files_are_allowed_in_lines_that_say_so(
    vocabulary: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text('x = "picture"  # names of older files\ny = "picture"\n', encoding="utf-8")
    lines = vocabulary.refused_in_file(tmp_path / "a.py", vocabulary.read_rules(TABLE))
    assert lines == ["a.py:2 picture -> image"]


def test_names_of_tests_are_checked_for_some_words_and_their_strings_are_not(
    vocabulary: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "CONTRIBUTING.md").write_text(TABLE, encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_a.py").write_text('first_picture = "a picture"\nfound = "picture"\n', encoding="utf-8")
    monkeypatch.setattr(vocabulary, "ROOT", tmp_path)
    assert vocabulary.check_tests() == ["tests/test_a.py:1 picture -> image"]
