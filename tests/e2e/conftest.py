"""Runs of the scripts on a set of four small images, in this process."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

import train
from utils.config.options import TrainOptions
from utils.core.seed import torch_settings_restored
from utils.training.session import Session

Hook = Callable[[Session], Session | None]


class Training(Protocol):
    """``training(project, hook=None, figures=False, files=True, **options)`` runs train.py."""

    def __call__(
        self, project: Path, hook: Hook | None = None, figures: bool = False, files: bool = True, **options: Any
    ) -> Session: ...


@pytest.fixture(autouse=True)
def settings_of_torch() -> Iterator[None]:
    """What ``prepare`` sets for a run, and ``train.main`` puts back at its end, is put back after any test."""
    with torch_settings_restored():
        yield


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    """Data yaml of four images to train on and four to score on, two classes."""
    return make_dataset(tmp_path_factory.mktemp("toy"))


def without_figures(patch: pytest.MonkeyPatch) -> None:
    """Leave out the images, which take longer than the rest of a small run."""
    for name in ("plot_labels", "plot_label_correlogram", "plot_batch", "plot_results", "plot_routing"):
        patch.setattr(f"utils.loggers.plots_logger.{name}", lambda *_: None)
    patch.setattr("utils.evaluation.observers.plot_batch", lambda *_: None)
    patch.setattr("utils.training.finish.save_plots", lambda *_: None)


@pytest.fixture(scope="session")
def options_for(toy: Path) -> Callable[..., TrainOptions]:
    """Options of a run of one batch per epoch; any of them can be given."""

    def make(project: Path, **given: Any) -> TrainOptions:
        small = {"data": str(toy), "cfg": "yolov5n.yaml", "epochs": 1, "batch_size": 4, "imgsz": 64}
        if given.get("resume"):
            return TrainOptions(**given)
        return TrainOptions(**{**small, "workers": 0, "device": "cpu", "project": str(project), **given})

    return make


@pytest.fixture(scope="session")
def training(options_for: Callable[..., TrainOptions]) -> Training:
    """Runs train.py; ``hook`` sees the run between ``prepare`` and the first epoch and may return another.

    Images are left out unless ``figures``, checkpoints are unless ``files``: both cost more than the training.
    """

    def run(
        project: Path, hook: Hook | None = None, figures: bool = False, files: bool = True, **given: Any
    ) -> Session:
        sessions: list[Session] = []

        def prepare(*given_to_it: Any) -> Session:
            session = original(*given_to_it)
            sessions.append((hook and hook(session)) or session)
            return sessions[0]

        with pytest.MonkeyPatch.context() as patch:
            original = train.prepare
            patch.setattr(train, "prepare", prepare)
            if not figures:
                without_figures(patch)
            if not files:
                patch.setattr(train, "save_epoch", lambda *_, **__: None)
            train.main(options_for(project, **given))
        return sessions[0]

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, training: Training) -> Path:
    """Run folder of two epochs of the dynamic nano model, with every image."""
    project = tmp_path_factory.mktemp("trained")
    return training(project, figures=True, cfg="yolov5n_dynamic.yaml", epochs=2).save_dir


@pytest.fixture(scope="session")
def results() -> Callable[[Path], list[dict[str, str]]]:
    """``results(run folder)``: the rows of results.csv."""

    def read(folder: Path) -> list[dict[str, str]]:
        with (folder / "results.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    return read
