"""The demo's steps."""

from __future__ import annotations

import subprocess

import pytest

from tools import demo
from utils.config.cli import run_script


@pytest.mark.parametrize(
    ("code", "ended", "line"),
    [(2, 2, ""), (-9, 1, "error: train.py was killed (SIGKILL, which is what the system sends when memory runs out)")],
)
@pytest.mark.usefixtures("log_handlers_restored")
def test_a_step_that_fails_ends_the_demo_and_one_that_is_killed_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int, ended: int, line: str
) -> None:
    monkeypatch.setattr("subprocess.run", lambda words, **_: subprocess.CompletedProcess(words, code))
    assert run_script(demo.main, demo.DemoOptions, []) == ended
    assert "".join(caplog.messages) == line


@pytest.mark.usefixtures("log_handlers_restored")
def test_an_option_of_the_demo_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_script(demo.main, demo.DemoOptions, ["--epochs", "3"])
    assert caught.value.code == 2
    assert "unknown option '--epochs'" in capsys.readouterr().err
