"""The label cache in a folder of its own, for data that cannot be written to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import val
from utils.config.cli import run_script
from utils.config.options import ValOptions


def test_train_and_val_keep_their_label_cache_where_asked(
    training, make_dataset: Callable[..., Path], tmp_path: Path, log_handlers_restored
) -> None:
    data = make_dataset(tmp_path / "set")
    caches = tmp_path / "caches"
    run = training(tmp_path / "runs", data=str(data), cache_dir=str(caches), epochs=1)
    written = {path.name: path.stat().st_mtime_ns for path in caches.iterdir()}
    assert len(written) == 2
    arguments = ["--weights", str(run.save_dir / "weights/last.pt"), "--data", str(data), "--imgsz", "64"]
    arguments += ["--device", "cpu", "--workers", "0", "--project", str(tmp_path / "val"), "--cache-dir", str(caches)]
    assert run_script(val.main, ValOptions, arguments) == 0
    assert {path.name: path.stat().st_mtime_ns for path in caches.iterdir()} == written
    assert list((tmp_path / "set").rglob("*.cache")) == []
