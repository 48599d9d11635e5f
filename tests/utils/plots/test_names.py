"""How class names are written into images and figures, and which fonts are found for them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from utils.plots import fonts
from utils.plots.batches import plot_batch
from utils.plots.curves import plot_confusion
from utils.plots.labels import plot_labels
from utils.plots.names import drawn_name, figure_names, shorten

LONG = "red blood cell of a human being, seen through a microscope: ripe"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Each test begins, and leaves things, as in a new process: nothing looked up, nothing told."""

    def forget() -> None:
        fonts._warned.clear()
        for cached in (fonts.can_write, fonts.font_file, fonts._wide_files):
            cached.cache_clear()

    forget()
    yield
    forget()


def _font(file: Path, family: str, characters: str) -> None:
    """A font file whose letters are all the same triangle."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((500, 800))
    pen.lineTo((500, 0))
    pen.closePath()
    names = [".notdef", *(f"u{ord(character):04X}" for character in characters)]
    glyph = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(character): name for character, name in zip(characters, names[1:])})
    builder.setupGlyf(dict.fromkeys(names, glyph))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)


def _fonts_of_the_system(monkeypatch: pytest.MonkeyPatch, *files: Path) -> None:
    """Beside those of matplotlib, which has noted none that can write Chinese."""
    noted = [entry for entry in fontManager.ttflist if entry.name not in fonts._WIDE_FAMILIES]
    monkeypatch.setattr("matplotlib.font_manager.fontManager.ttflist", noted)
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(file) for file in files])


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    assert shorten(LONG, 24) == "red blood cell…pe: ripe"
    assert shorten("red blood cell", 24) == "red blood cell"
    assert len(shorten("x" * 500, 24)) == 24


def test_wide_characters_count_twice() -> None:
    assert shorten("红细胞白细胞血小板", 18) == "红细胞白细胞血小板"
    assert shorten("红细胞白细胞血小板", 12) == "红细胞…小板"


def test_a_class_without_a_name_is_called_by_its_number() -> None:
    assert drawn_name(["a"], 3) == "3"
    assert drawn_name({5: "five"}, 5) == "five"


def test_a_name_on_two_lines_is_written_on_one() -> None:
    assert drawn_name(["red\ncell"], 0) == "red cell"


def test_names_no_font_can_write_become_numbers_and_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    _fonts_of_the_system(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert figure_names(["红细胞", "RBC", "血小板"]) == ["class 0", "RBC", "class 2"]
        plot_labels(np.zeros((0, 5)), ["红细胞", "RBC", "血小板"], tmp_path / "labels.jpg")
    assert [record.message for record in caplog.records] == [
        "no installed font can write '红细胞': such classes are numbered in the images; Noto Sans CJK has most "
        "characters (for example: apt install fonts-noto-cjk)"
    ]


def test_a_font_installed_after_matplotlib_made_its_list_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "new.ttf"
    _font(file, "WenQuanYi Zen Hei", "红细胞")
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    _fonts_of_the_system(monkeypatch, broken, file)
    assert fonts.font_file("红细胞") == str(file)
    assert figure_names(["红细胞"]) == ["红细胞"]


def test_a_contact_sheet_shows_long_names_shorter_still(tmp_path: Path) -> None:
    def red(name: str) -> int:
        targets = np.array([[0, 0, 0.3, 0.5, 0.2, 0.2]])
        plot_batch(np.zeros((1, 3, 256, 256), np.uint8), targets, [], tmp_path / "sheet.png", [name])
        return int((cv2.imread(str(tmp_path / "sheet.png"))[..., 2] > 200).sum())

    assert red(LONG) < 1.2 * red("red bloo…ripe")


def test_dollars_and_underscores_are_written_as_they_are(tmp_path: Path) -> None:
    assert figure_names(["$5{$", "_rest"]) == [r"\$5{\$", " _rest"]
    plot_confusion(np.eye(3), ["$5{$", "_rest"], tmp_path / "matrix.png")  # "$5{$" is no formula that could be drawn
    assert (tmp_path / "matrix.png").exists()


def test_a_very_long_name_leaves_the_matrix_its_room(tmp_path: Path) -> None:
    def blue(names: list[str]) -> int:
        plot_confusion(np.ones((3, 3)), names, tmp_path / "matrix.png", normalize=False)
        image = cv2.imread(str(tmp_path / "matrix.png")).astype(int)
        return int((image[..., 0] - image[..., 2] > 60).sum())

    assert blue([LONG, "b"]) > 0.7 * blue(["a", "b"])


def test_a_name_of_a_million_letters_is_shortened_at_once() -> None:
    assert shorten("ab" * 1_000_000, 9) == "ababa…bab"
