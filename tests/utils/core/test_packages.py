"""Optional packages: there, or named with the command that installs them."""

from __future__ import annotations

import json

import pytest

from utils.core.errors import InputError
from utils.core.packages import import_optional


def test_a_package_that_is_there_is_returned() -> None:
    assert import_optional("json", "json", "--save-json") is json


def test_a_missing_package_is_named_with_its_install_line_and_the_way_around() -> None:
    with pytest.raises(InputError) as caught:
        import_optional("no_such_module", "no-such-package", "--option", "or leave it out")
    assert str(caught.value) == (
        "--option needs the package no-such-package: pip install no-such-package (or leave it out)"
    )
