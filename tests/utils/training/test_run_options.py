"""Which options a resumed run takes from its checkpoint, and which only from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from utils.config.options import TrainOptions, to_plain
from utils.core.dist import ALONE, Ranks
from utils.core.errors import InputError
from utils.training.run_options import check_batch_size, check_single_process, resume_options


@pytest.fixture
def last(tmp_path: Path) -> str:
    """The checkpoint of an interrupted run that was started with --download --allow-scripts."""
    file = tmp_path / "exp/weights/last.pt"
    file.parent.mkdir(parents=True)
    options = TrainOptions(epochs=7, download=True, allow_scripts=True, download_limit=900)
    checkpoint = Checkpoint(
        model_yaml={}, nc=1, names=["a"], stride=[8.0], model={}, optimizer={}, train_state={"epoch": 1},
        options=to_plain(options),
    )  # fmt: skip
    save_checkpoint(file, checkpoint)
    return str(file)


def test_a_checkpoint_has_nothing_fetched_or_run(last: str) -> None:
    options, _ = resume_options(TrainOptions(resume=last))
    assert (options.epochs, options.download, options.allow_scripts, options.download_limit) == (7, False, False, 50)


def test_the_command_line_of_a_resumed_run_may_have_it(last: str) -> None:
    options, _ = resume_options(TrainOptions(resume=last, download=True, allow_scripts=True))
    assert (options.download, options.allow_scripts) == (True, True)


# Extending a run ------------------------------------------------------------------------------------------------------


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(name, done, **state)`` saves a checkpoint of a run of 7 epochs, ``done`` of them over."""

    def run(name: str, done: int, resumable: bool = True, **state: Any) -> Path:
        file = tmp_path / "exp/weights" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        checkpoint = Checkpoint(
            model_yaml={}, nc=1, names=["a"], stride=[8.0], model={}, optimizer={} if resumable else None,
            train_state={"epoch": done - 1, **state}, options=to_plain(TrainOptions(epochs=7, batch_size=8)),
        )  # fmt: skip
        save_checkpoint(file, checkpoint)
        return file

    return run


def test_options_named_beside_resume_replace_those_of_the_run(write: Write) -> None:
    last = str(write("last.pt", 2))
    options, resumed = resume_options(TrainOptions(resume=last, epochs=9, workers=3, device="cpu", patience=4))
    assert (options.epochs, options.workers, options.device, options.patience) == (9, 3, "cpu", 4)
    assert options.batch_size == 8
    assert resumed is not None and resumed.epochs_done == 2


@pytest.mark.parametrize(("images", "class_map"), [("images", "class_map"), ("pictures", "maps")])
def test_a_run_of_an_earlier_version_has_some_values_under_other_keys(
    write: Write, images: str, class_map: str
) -> None:
    last = str(write("last.pt", 2, **{images: 12, class_map: [0.5]}))
    _, resumed = resume_options(TrainOptions(resume=last))
    assert resumed is not None
    assert resumed.checkpoint.train_state == {"epoch": 1, "images": 12, "class_map": [0.5]}


def test_the_number_of_images_under_the_other_key_is_checked_as_well(write: Write) -> None:
    last = str(write("last.pt", 2, **{"pictures": "12"}))
    with pytest.raises(InputError, match="train_state: 'images' is of a wrong kind"):
        resume_options(TrainOptions(resume=last))


def test_the_default_number_of_epochs_can_be_asked_for(write: Write) -> None:
    last = str(write("last.pt", 2))
    assert resume_options(TrainOptions(resume=last, epochs=300))[0].epochs == 300
    assert resume_options(TrainOptions(resume=last))[0].epochs == 7


def test_an_option_that_would_make_it_another_run_is_refused(write: Write) -> None:
    last = str(write("last.pt", 2))
    with pytest.raises(InputError, match="this run has --batch-size 8, not 16"):
        resume_options(TrainOptions(resume=last, batch_size=16))
    assert resume_options(TrainOptions(resume=last, batch_size=8))[0].batch_size == 8  # said twice is no harm


def test_fewer_epochs_than_are_done_are_refused(write: Write) -> None:
    with pytest.raises(InputError, match=r"--epochs 3: this run has done 4 already; give more"):
        resume_options(TrainOptions(resume=str(write("last.pt", 4)), epochs=3))


def test_the_folder_of_a_run_means_its_last_checkpoint(write: Write) -> None:
    last = write("last.pt", 2)
    _, resumed = resume_options(TrainOptions(resume=str(last.parents[1])))
    assert resumed is not None and resumed.path == last


def test_a_finished_run_is_extended_from_its_full_checkpoint(write: Write) -> None:
    last, full = write("last.pt", 7, resumable=False), write("resume.pt", 7)
    options, resumed = resume_options(TrainOptions(resume=str(last), epochs=10))
    assert options.epochs == 10
    assert resumed is not None and resumed.path == full


def test_a_finished_run_says_that_its_epochs_are_done(write: Write) -> None:
    last, _ = write("last.pt", 7, resumable=False), write("resume.pt", 7)
    with pytest.raises(InputError, match=r"after epoch 7 of 7, all its epochs are done.* --epochs N with N above 7"):
        resume_options(TrainOptions(resume=str(last)))
    with pytest.raises(InputError, match="all its epochs are done"):
        resume_options(TrainOptions(resume=str(last), epochs=7))


def test_an_early_stopped_run_says_why_and_how_to_go_on(write: Write) -> None:
    last, _ = write("last.pt", 4, resumable=False), write("resume.pt", 4, stopped_early=True)
    with pytest.raises(InputError, match=r"after epoch 4 of 7, no better fitness for 100 epochs.*--patience N"):
        resume_options(TrainOptions(resume=str(last)))


@pytest.mark.parametrize("wish", [{"patience": 0}, {"epochs": 7}, {"epochs": 20}])
def test_an_early_stopped_run_goes_on_when_that_is_asked_for(write: Write, wish: dict[str, int]) -> None:
    last, _ = write("last.pt", 4, resumable=False), write("resume.pt", 4, stopped_early=True)
    _, resumed = resume_options(TrainOptions(resume=str(last), **wish))  # type: ignore[arg-type]
    assert resumed is not None and resumed.extended and not resumed.stopped_early


def test_a_run_that_was_killed_before_its_end_was_written_is_ended(write: Write) -> None:
    _, resumed = resume_options(TrainOptions(resume=str(write("last.pt", 4, stopped_early=True))))
    assert resumed is not None and resumed.stopped_early


def test_a_finished_run_without_its_full_checkpoint_cannot_be_extended(write: Write) -> None:
    last = write("last.pt", 7, resumable=False)
    with pytest.raises(InputError, match=r"resume\.pt is not beside it.*--weights"):
        resume_options(TrainOptions(resume=str(last), epochs=9))


def test_a_damaged_file_is_told_with_one_that_can_be_used(write: Write) -> None:
    last, _, best = write("last.pt", 5), write("epoch1.pt", 2), write("best.pt", 4)
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(
        InputError, match=r"last\.pt: .*damaged.* best\.pt beside it is undamaged and was saved after epoch 4"
    ):
        resume_options(TrainOptions(resume=str(last)))
    best.unlink()
    with pytest.raises(InputError, match=r"epoch1\.pt beside it is undamaged and was saved after epoch 2"):
        resume_options(TrainOptions(resume=str(last)))


def test_a_damaged_file_without_another_is_told_so(write: Write) -> None:
    last = write("last.pt", 5)
    last.write_bytes(b"")
    with pytest.raises(InputError, match="no other file beside it can be resumed"):
        resume_options(TrainOptions(resume=str(last)))


def test_tensors_that_have_changed_on_the_disk_are_noticed(write: Write) -> None:
    last = write("last.pt", 5, gradients={"w": torch.arange(1000.0)})
    content = last.read_bytes()
    place = content.index(torch.arange(500.0, 504.0).numpy().tobytes())
    last.write_bytes(content[:place] + bytes(16) + content[place + 16 :])
    with pytest.raises(InputError, match=r"last\.pt: cannot be read as a checkpoint: Bad CRC"):
        resume_options(TrainOptions(resume=str(last)))


# What is recorded ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("options", {"epochs": "7"}, "the recorded option epochs is '7', which it cannot be"),
        ("options", {"freeze": [None]}, "the recorded option freeze is .*, which it cannot be"),
        ("options", {"imgsz": None, "rect": 1}, "the recorded option rect is '1', which it cannot be"),
        ("train_state", {"epoch": None}, "train_state: 'epoch' is of a wrong kind"),
        ("train_state", {"position": {"batches": 1}}, "train_state: position: 'skipped' is missing"),
        ("train_state", {"stopped_early": "no"}, "train_state: 'stopped_early' is of a wrong kind"),
    ],
)
def test_what_is_recorded_in_a_wrong_kind_is_refused(last: str, part: str, value: dict[str, Any], message: str) -> None:
    checkpoint = load_checkpoint(last)
    getattr(checkpoint, part).update(value)
    save_checkpoint(Path(last), checkpoint)
    with pytest.raises(InputError, match=message):
        resume_options(TrainOptions(resume=last))


def test_a_file_that_does_not_record_its_options_is_refused(last: str) -> None:
    checkpoint = load_checkpoint(last)
    checkpoint.options.clear()
    save_checkpoint(Path(last), checkpoint)
    with pytest.raises(InputError, match=r"the option batch_size is not recorded there"):
        resume_options(TrainOptions(resume=last))


# Several processes ----------------------------------------------------------------------------------------------------


TWO = Ranks(rank=1, size=2, local_rank=1, local_size=2)


@pytest.mark.parametrize(("batch", "quad", "cure"), [(15, False, "of 2, for example 16"), (12, True, "of 8")])
def test_a_batch_that_cannot_be_divided_is_refused(batch: int, quad: bool, cure: str) -> None:
    with pytest.raises(InputError, match=f"--batch-size {batch} is the total of 2 processes .*use a multiple {cure}"):
        check_batch_size(batch, quad, TWO)
    check_batch_size(batch, quad, ALONE)
    check_batch_size(16, quad, TWO)


@pytest.mark.parametrize(
    ("values", "flag"), [({"batch_size": -1}, "--batch-size -1"), ({"compile": True}, "--compile")]
)
def test_what_needs_a_run_of_one_process_is_refused_in_a_larger_one(values: dict[str, Any], flag: str) -> None:
    check_single_process(TrainOptions(**values), ALONE)
    with pytest.raises(InputError, match=f"{flag} needs a run of one process, and this one has 2"):
        check_single_process(TrainOptions(**values), TWO)


def test_a_resumed_run_keeps_its_batch_and_is_told_how_many_processes_can_share_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(InputError, match=r"--batch-size 9 .*resume with 1 or 3 or 9 of them"):
        check_batch_size(9, False, TWO, resumed=True)
    assert check_single_process(TrainOptions(compile=True), TWO, resumed=True).compile is False
    assert "--compile of this run is dropped" in caplog.text
    assert check_single_process(TrainOptions(compile=True), ALONE, resumed=True).compile is True
