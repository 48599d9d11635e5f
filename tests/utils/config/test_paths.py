"""How a yaml named on the command line is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.config.paths import find_yaml


@pytest.mark.parametrize(
    ("name", "folder", "meant"),
    [("coco182.yaml", "data", "coco128.yaml"), ("hyp.scratch-lo.yaml", "data/hyps", "hyp.scratch-low.yaml")],
)
def test_the_closest_yaml_of_the_repository_is_suggested(name: str, folder: str, meant: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"'{name}' not found; tried .*; did you mean '{meant}'\\?$"):
        find_yaml(name, folder)


def test_the_closest_yaml_of_the_current_folder_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blood_cells.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"; did you mean 'blood_cells.yaml'\?$"):
        find_yaml("blood_cell.yaml", "data")


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(FileNotFoundError, match=r"'qqqqqqqqqqqq' not found; tried [^;]*$"):
        find_yaml("qqqqqqqqqqqq", "data")


def test_a_path_through_a_file_is_reported_as_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="not found; tried"):
        find_yaml(tmp_path / "file" / "a.yaml", "data")
