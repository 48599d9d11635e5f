"""Class names as a list for some scripts and as a mapping for others."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import yaml

from utils.config.class_names import ClassNames


@pytest.fixture(params=[["ant", "bee"], {1: "bee", 0: "ant"}, ("ant", "bee")], ids=["list", "mapping", "tuple"])
def names(request: pytest.FixtureRequest) -> ClassNames:
    return ClassNames(request.param)


def test_they_are_a_list(names: ClassNames) -> None:
    assert (names[0], names[-1], len(names), list(names)) == ("ant", "bee", 2, ["ant", "bee"])
    assert names == ["ant", "bee"]
    assert names != ["bee", "ant"]
    assert [*enumerate(names)] == [(0, "ant"), (1, "bee")]
    assert names.index("bee") == 1
    assert "bee" in names
    assert "cat" not in names


def test_they_are_a_mapping(names: ClassNames) -> None:
    assert list(names.items()) == [(0, "ant"), (1, "bee")]
    assert list(names.values()) == ["ant", "bee"]
    assert list(names.keys()) == [0, 1]
    assert dict(names) == {0: "ant", 1: "bee"}
    assert names == {0: "ant", 1: "bee"}
    assert names != {0: "ant"}
    assert (names.get(1), names.get(2), names.get(2, "?")) == ("bee", None, "?")
    assert 1 in names
    assert 2 not in names


def test_they_survive_copies_and_files(names: ClassNames) -> None:
    assert copy.deepcopy(names).items() == pickle.loads(pickle.dumps(names)).items() == names.items()
    assert json.loads(json.dumps(names)) == yaml.safe_load(yaml.safe_dump(names)) == ["ant", "bee"]
