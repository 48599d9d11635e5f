"""Command lines: parsing, error lines, exit codes."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from utils.config.cli import build_parser, parse, run_script
from utils.config.options import DetectOptions, ExportOptions, TrainOptions, ValOptions
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.core.log import LineHandler

pytestmark = pytest.mark.usefixtures("log_handlers_restored")


@pytest.mark.parametrize("options_class", [TrainOptions, ValOptions, DetectOptions])
def test_an_empty_command_line_gives_the_defaults(options_class: type) -> None:
    assert parse(options_class, []) == options_class()


@pytest.mark.parametrize("options_class", [TrainOptions, ValOptions, DetectOptions])
def test_the_help_can_be_printed(options_class: type) -> None:
    assert "--device" in build_parser(options_class).format_help()


def test_values_get_the_types_of_the_fields() -> None:
    options = parse(TrainOptions, ["--img", "320", "--freeze", "0", "1", "--label-smoothing", "0.1", "--cos-lr"])
    assert (options.imgsz, options.freeze, options.label_smoothing, options.cos_lr) == (320, (0, 1), 0.1, True)


@pytest.mark.parametrize("flag", ["--imgsz", "--img", "--img-size"])
def test_all_spellings_of_the_image_size_mean_the_same(flag: str) -> None:
    assert parse(DetectOptions, [flag, "320", "416"]).imgsz == (320, 416)


def test_resume_takes_a_file_or_nothing() -> None:
    found = [parse(TrainOptions, argv).resume for argv in ([], ["--resume"], ["--resume", "a/last.pt"])]
    assert found == [False, True, "a/last.pt"]


@pytest.mark.parametrize("options_class", [TrainOptions, ValOptions, DetectOptions])
def test_modules_may_be_listed_or_given_again(options_class: type) -> None:
    argv = ["--modules", "a.py", "b.py", "--device", "cpu", "--modules", "c.py"]
    assert parse(options_class, argv).modules == ("a.py", "b.py", "c.py")
    assert parse(options_class, []).modules == ()  # what was given before is not remembered


@pytest.mark.parametrize("options_class", [ValOptions, DetectOptions])
def test_one_checkpoint_or_several_can_be_named(options_class: type) -> None:
    found = [
        parse(options_class, argv).weights
        for argv in ([], ["--weights", "a.pt"], ["--weights", "a.pt", "b.pt", "--augment"])
    ]
    assert found == [(), ("a.pt",), ("a.pt", "b.pt")]


def test_cache_without_a_value_means_memory() -> None:
    assert parse(TrainOptions, ["--cache"]).cache == "ram"


def test_flags_may_be_shortened_as_in_v61() -> None:
    assert parse(TrainOptions, ["--batch", "4"]).batch_size == 4


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--batch_size", "4"], "did you mean '--batch-size'"),
        (["--epoch5", "4"], "did you mean '--epochs'"),
        (["stray"], "unknown option 'stray'"),
        (["--epochs", "many"], "--epochs"),
        (["--epochs", "-3"], "--epochs -3 is too small"),
        (["--optimizer", "Lion"], "SGD"),
    ],
)
def test_an_option_error_is_one_line_and_exit_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(TrainOptions, argv)
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_script_that_ends_well_returns_0_and_got_its_options() -> None:
    seen: list[ValOptions] = []
    assert run_script(seen.append, ValOptions, ["--batch-size", "2"]) == 0
    assert seen[0].batch_size == 2


@pytest.mark.parametrize("error", [InputError("bad row"), FileNotFoundError("bad row"), OSError("bad row")])
def test_wrong_input_is_one_logged_line_and_exit_code_1(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def main(options: ValOptions) -> None:
        raise error

    assert run_script(main, ValOptions, []) == 1
    assert caplog.messages == ["error: bad row"]


@pytest.mark.parametrize("returned", [None, 0, 1, 2])
def test_a_command_may_give_its_own_exit_code(returned: int | None) -> None:
    assert run_script(lambda options: returned, ValOptions, []) == (returned or 0)


def test_an_interrupt_says_stopped_and_returns_130(caplog: pytest.LogCaptureFixture) -> None:
    def main(options: ValOptions) -> None:
        raise KeyboardInterrupt

    assert run_script(main, ValOptions, []) == 130
    assert caplog.messages == ["stopped"]


def test_a_bug_is_not_hidden() -> None:
    def main(options: ValOptions) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run_script(main, ValOptions, [])


def test_running_two_scripts_installs_one_handler() -> None:
    for _ in range(2):
        run_script(lambda options: None, ValOptions, [])
    assert sum(isinstance(handler, LineHandler) for handler in logging.getLogger().handlers) == 1


@pytest.mark.parametrize(("rank", "waits"), [("0", False), ("1", True)])
def test_of_several_processes_rank_0_says_what_is_wrong_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, waits: bool
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("utils.core.log.time.sleep", slept.append)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        parse(TrainOptions, ["--epoch"])
    assert bool(slept) is waits
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options_class", "argv"),
    [
        (TrainOptions, ["--resume", ""]), (TrainOptions, ["--resume="]), (TrainOptions, ["--resume", " "]),
        (TrainOptions, ["--data", ""]), (TrainOptions, ["--project", ""]), (ValOptions, ["--weights", ""]),
        (ValOptions, ["--weights", "a.pt", ""]), (DetectOptions, ["--source", ""]), (DetectOptions, ["--weights="]),
        (ExportOptions, ["--weights", ""]), (ExportOptions, ["--output", ""]),
    ],
)  # fmt: skip
def test_an_empty_variable_of_the_shell_is_no_value(
    options_class: type, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(options_class, argv)
    assert caught.value.code == 2
    flag = argv[0].rstrip("=")
    assert f"error: {flag} is given an empty text: is a variable of the shell not set?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options_class", "flag", "value"),
    [
        (TrainOptions, "--epochs", 2**31), (TrainOptions, "--seed", 10**20), (ValOptions, "--imgsz", 40_000),
        (TrainOptions, "--freeze", 10**20), (DetectOptions, "--imgsz", 10**20), (DetectOptions, "--classes", 10**20),
        (DetectOptions, "--line-thickness", 1001),
    ],
)  # fmt: skip
def test_a_number_beyond_what_can_be_meant_is_too_large(
    options_class: type, flag: str, value: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(options_class, [flag, str(value)])
    assert f"error: {flag} {value} is too large; allowed is up to" in capsys.readouterr().err


def test_more_folds_than_can_be_meant_are_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    from tools.split import SplitOptions

    with pytest.raises(SystemExit):
        parse(SplitOptions, ["--source", "a.yaml", "--output", "b", "--kfold", "1001"])
    assert "error: --kfold 1001 is too large; allowed is up to 1000" in capsys.readouterr().err


def test_empty_texts_that_mean_none_in_v61_still_do() -> None:
    options = parse(TrainOptions, ["--weights", "", "--cfg", "", "--device", "", "--bucket", ""])
    assert (options.weights, options.cfg, options.device, options.bucket) == ("", "", "", "")


def test_an_empty_resume_is_refused_from_python_as_well() -> None:
    with pytest.raises(InputError, match="--resume is given an empty text"):
        TrainOptions(resume="")


ECHO = """
import sys
from utils.config.cli import run_script
from utils.config.options import ValOptions
import logging
def main(options):
    for number in range(3000):
        logging.getLogger(__name__).info("line %d of many, so that no buffer holds them all", number)
    print("plain")
    open("done", "w").close()
sys.exit(run_script(main, ValOptions))
"""


def echo(tmp_path: Path, redirection: str) -> subprocess.CompletedProcess[str]:
    """A script that logs 3000 lines and then makes a file, with its output redirected by a shell."""
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(ECHO)} {redirection}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (tmp_path / "done").exists(), "the work was not finished"
    return done


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="of Linux")
@pytest.mark.parametrize(
    ("redirection", "reason"),
    [("| head -1 > /dev/null", "broken pipe; the program that"), ("> /dev/full", "no space left on device; free")],
)
def test_lines_that_cannot_be_written_do_not_end_the_work_and_are_one_line_at_its_end(
    tmp_path: Path, redirection: str, reason: str
) -> None:
    done = echo(tmp_path, redirection)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: lines of this output were lost: {reason}")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="a shell is needed")
def test_a_script_whose_output_is_closed_does_its_work(tmp_path: Path) -> None:
    done = echo(tmp_path, ">&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_errors_go_to_stderr_and_the_rest_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    handler = LineHandler()
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        handler.emit(logging.LogRecord("a", level, "", 0, f"level {level}", (), None))
    assert capsys.readouterr() == ("level 20\nlevel 30\n", "level 40\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_script_after_the_clearing_up(number: int, tmp_path: Path) -> None:
    def main(options: DetectOptions) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path):
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), number)  # a second one, in the middle of the clearing up

    assert run_script(main, DetectOptions, []) == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        assert run_script(lambda _: os.kill(os.getpid(), signal.SIGHUP), DetectOptions, []) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
