"""Class names in yaml."""

from __future__ import annotations

import pytest
import yaml

from utils.core.yaml_names import dump_yaml, load_yaml

ODD = ["02146", "12:30", "1_000", "1.10", "0x1F", "1e3", "yes", "Y", "null", "2024-01-01", "~", "0o17", ".inf", "NaN"]
WORDS = ["cat", "e3", "none-such", "a: b", "- x", "#1", "猫", "two\nlines", "trailing ", "", "'", "=", "<<", "true"]


@pytest.mark.parametrize("keys", [False, True])
def test_names_come_back_as_they_were_written_from_any_reader(keys: bool) -> None:
    names = ODD + WORDS
    text = dump_yaml({"names": dict(enumerate(names)) if keys else names})
    for read in (load_yaml, yaml.safe_load):
        found = read(text)["names"]
        assert (list(found.values()) if keys else found) == names


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_any_version_of_yaml_may_take_for_a_value_is_quoted(name: str) -> None:
    assert dump_yaml({"names": [name]}) == f"names:\n- '{name}'\n"


def test_only_names_are_text_and_an_alias_keeps_its_value_elsewhere() -> None:
    assert load_yaml("nc: &n 007\nlr: 1.10\nnames: [*n, yes]\non: *n\n") == {
        "nc": 7, "lr": 1.1, "names": ["007", "yes"], True: 7
    }  # fmt: skip


def test_quoted_folded_and_empty_names_are_what_yaml_says() -> None:
    text = "names:\n- '007'\n- \"a\\tb\"\n- two\n  words\n- |-\n  1e3\n- !!int 7\n-\n"
    assert load_yaml(text) == {"names": ["007", "a\tb", "two words", "1e3", "7", None]}


@pytest.mark.parametrize("tag", ["!!python/name:os.getcwd", "!!python/object/apply:os.getcwd []", "!mine"])
def test_names_with_a_tag_of_python_are_refused(tag: str) -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml(f"names: [{tag}]")


def test_numbers_of_absurd_length_are_refused_before_they_are_computed() -> None:
    for number in (":".join(["1"] * 300_000), f"0x{'F' * 6000}"):
        with pytest.raises(yaml.YAMLError, match=r"a number of .* characters; put it in quotes if it is text"):
            load_yaml(f"nc: {number}")
