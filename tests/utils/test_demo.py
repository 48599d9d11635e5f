"""The demo's steps."""

from __future__ import annotations

import subprocess

import pytest

from utils import demo


@pytest.mark.parametrize(
    ("code", "ended"), [(2, 2), (-9, "error: val.py was killed (SIGKILL, which is what the system sends when memory")]
)
def test_a_step_that_fails_ends_the_demo_and_one_that_is_killed_is_named(
    monkeypatch: pytest.MonkeyPatch, code: int, ended: int | str
) -> None:
    monkeypatch.setattr("subprocess.run", lambda words, **_: subprocess.CompletedProcess(words, code))
    with pytest.raises(SystemExit) as caught:
        demo.run("val", [])
    assert caught.value.code == ended or str(caught.value.code).startswith(str(ended))
