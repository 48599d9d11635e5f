"""Options of train.py that no other test shows to do what they say."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from models.dynamic import temperatures
from models.dynamic_variants import ODConv2d
from models.yolo import Model, read_model_yaml
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config.options import TrainOptions
from utils.core.errors import InputError
from utils.loss.focal import FocalLoss
from utils.training import precision, resume
from utils.training.optim import parameter_groups
from utils.training.session import Session
from utils.training.setup import prepare

Options = Callable[..., TrainOptions]
Training = Callable[..., Session]
MakeDataset = Callable[..., Path]


def hyp_file(folder: Path, text: str) -> str:
    file = folder / "own-hyp.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_load_both_sets(tmp_path: Path, options_for: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.datasets.loader.usable_cpus", lambda: 4)
    for asked, used in ((0, 0), (2, 2), (8, 4)):
        session = prepare(options_for(tmp_path, workers=asked))
        assert session.loader.num_workers == session.evaluator.batches.num_workers == used  # type: ignore[attr-defined]


def test_runs_of_one_name_are_numbered(tmp_path: Path, options_for: Options) -> None:
    folders = [prepare(options_for(tmp_path / "runs", name=name)).save_dir for name in ("a", "a", "b")]
    assert [folder.relative_to(tmp_path) for folder in folders] == [Path("runs/a"), Path("runs/a2"), Path("runs/b")]
    assert prepare(options_for(tmp_path / "runs", name="a", exist_ok=True)).save_dir == folders[0]


def test_a_size_between_two_strides_is_rounded_up(
    tmp_path: Path, options_for: Options, caplog: pytest.LogCaptureFixture
) -> None:
    session = prepare(options_for(tmp_path, imgsz=70))
    assert session.imgsz == 96 and next(iter(session.loader)).images.shape[-1] == 96
    assert "--imgsz 70 is not a multiple of the stride 32: using [96]" in caplog.text


def test_training_takes_the_size_of_the_weights_unless_one_is_given(
    tmp_path: Path, options_for: Options, training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    best = training(tmp_path, imgsz=96).saver.best
    assert load_checkpoint(best).imgsz == 96
    session = prepare(options_for(tmp_path, weights=str(best), imgsz=None))
    assert session.imgsz == session.saver.recorded["imgsz"] == 96
    assert "image size 96, that of the model file" in caplog.text
    assert prepare(options_for(tmp_path, weights=str(best), imgsz=64)).imgsz == 64
    assert prepare(options_for(tmp_path, imgsz=None)).imgsz == 640


def test_a_resumed_run_keeps_its_size(tmp_path: Path, training: Training) -> None:
    last = training(tmp_path, imgsz=96).saver.last
    assert training(tmp_path, resume=str(last), epochs=2).imgsz == 96


def test_without_cfg_and_weights_the_default_model_is_named(
    tmp_path: Path, options_for: Options, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        session = prepare(options_for(tmp_path, cfg=""))
    assert temperatures(session.model) and "training yolov5n_dynamic.yaml from scratch" in caplog.text


@pytest.mark.parametrize("key", ["images", "pictures"])
def test_a_resumed_run_warns_of_another_number_of_images_also_when_an_earlier_version_recorded_it(
    tmp_path: Path, training: Training, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    file = training(tmp_path).save_dir / "weights/resume.pt"
    checkpoint = load_checkpoint(file)
    checkpoint.train_state.pop("images")
    checkpoint.train_state[key] = 5
    save_checkpoint(file, checkpoint)
    training(tmp_path, resume=str(file), epochs=2, noval=True, files=False)
    assert "the training set has 4 images now, 5 when this run was saved" in caplog.text


def test_resume_without_a_path_means_the_newest_run(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "ROOT", tmp_path)
    for name in ("old", "new"):
        last = training(tmp_path / "runs/train", name=name, epochs=1).saver.last
    os.utime(last.parents[2] / "old/weights/last.pt", (1, 1))
    session = training(tmp_path, resume=True, epochs=2)
    assert session.save_dir.name == "new" and session.state.first_epoch == 1


def test_tensorboard_is_written_when_asked_for(tmp_path: Path, training: Training) -> None:
    pytest.importorskip("tensorboard")
    for asked in (False, True):
        session = training(tmp_path, files=False, tensorboard=asked)
        assert bool(list(session.save_dir.glob("events.out.*"))) is asked


def test_the_three_options_of_a_download_reach_it(
    tmp_path: Path, options_for: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        "utils.training.data_setup.fetch_missing", lambda spec, splits, **how: (seen.append((splits, how)), spec)[1]
    )
    prepare(options_for(tmp_path))
    assert seen == []
    prepare(options_for(tmp_path, download=True, allow_scripts=True, download_limit=3))
    assert seen == [(("train", "val"), {"allow_scripts": True, "limit_gb": 3})]


def test_the_hyper_parameters_reach_the_optimizer(tmp_path: Path, options_for: Options) -> None:
    hyp = hyp_file(tmp_path, "lr0: 0.03\nmomentum: 0.7\nweight_decay: 0.25\nnominal_batch: 8\n")
    for name in ("SGD", "AdamW"):
        session = prepare(options_for(tmp_path, hyp=hyp, optimizer=name, batch_size=4))
        assert [group["lr"] for group in session.optimizer.param_groups] == [0.03] * 3
        first = session.optimizer.param_groups[0]
        assert (first["momentum"] if name == "SGD" else first["betas"][0]) == 0.7
        # One batch an epoch, so a step has 4 images of the nominal 8 and half of the decay.
        assert [group["weight_decay"] for group in session.optimizer.param_groups] == [0, 0.125, 0]


def test_the_focal_gamma_reaches_the_loss(tmp_path: Path, options_for: Options) -> None:
    for gamma, kind in ((0.0, False), (1.5, True)):
        loss = prepare(options_for(tmp_path, hyp=hyp_file(tmp_path, f"fl_gamma: {gamma}\n"))).loss
        assert isinstance(loss._obj_loss, FocalLoss) is isinstance(loss._cls_loss, FocalLoss) is kind


# Weight decay of the attention ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("decayed", [False, True])
def test_a_hyper_parameter_decays_the_attention(tmp_path: Path, options_for: Options, decayed: bool) -> None:
    hyp = hyp_file(tmp_path, f"attention_decay: {str(decayed).lower()}\n")
    session = prepare(options_for(tmp_path, cfg="yolov5n_dynamic.yaml", hyp=hyp))
    attention = {f"model.{layer}.attention.{part}.weight" for layer in (10, 14) for part in ("fc1", "fc2")}
    groups = {group["name"]: set(group["param_names"]) for group in session.optimizer.param_groups}
    assert attention <= groups["decay" if decayed else "no_decay"]
    assert {"model.10.weight", "model.14.weight"} <= groups["decay"]  # the kernels themselves
    assert {"model.10.bias", "model.14.bias"} <= groups["bias"]


def test_a_temperature_in_the_model_yaml_gives_way_to_the_schedule_and_this_is_told(
    tmp_path: Path, training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    content = read_model_yaml("yolov5n_dynamic.yaml")[0]
    content["head"][0] = [-1, 1, "DynamicConv", [512, 1, 1, {"temperature": 10}]]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    session = training(tmp_path, cfg=str(tmp_path / "own.yaml"), hyp=hyp_file(tmp_path, "temperature_end: 5.0"))
    assert temperatures(session.model) == temperatures(session.ema.model) == [5]
    assert "a temperature of 10 in the model yaml has no effect on training: temperature_start" in caplog.text


@pytest.mark.parametrize(
    "cfg",
    ["yolov5n_dynamic.yaml", "yolov5n_dynamic_all.yaml", "yolov5n_condconv_head.yaml", "yolov5n_odconv_head.yaml"],
)
def test_the_groups_of_dynamic_models_are_exact(cfg: str) -> None:
    model = Model(cfg, nc=2)
    groups = {name: set(members) for name, members in parameter_groups(model).items()}
    names = [name for name, _ in model.named_parameters()]
    assert sorted(names) == sorted(name for members in groups.values() for name in members)
    attention = {name for name in names if ".attention." in name}
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert attention and groups["bias"] == {name for name in names if name.endswith("bias")}
    assert groups["no_decay"] == norms | {name for name in attention if not name.endswith("bias")}
    assert all(model.get_parameter(name).ndim > 1 for name in groups["decay"])
    if "odconv" in cfg:
        assert any(isinstance(module, ODConv2d) for module in model.modules())


# Mixed precision ------------------------------------------------------------------------------------------------------


def test_amp_that_breaks_the_model_is_refused_before_a_folder_is_made(
    tmp_path: Path, options_for: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "amp_deviation", lambda *_: float("inf"))
    with pytest.raises(InputError, match=r"--amp: mixed precision .* does not work here"):
        prepare(options_for(tmp_path / "runs", amp=True))
    assert not (tmp_path / "runs").exists()
    assert not prepare(options_for(tmp_path / "runs")).amp  # a CPU does not try


# Options without effect -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({"noval": True, "patience": 3}, "--patience has no effect with --noval"),
        ({"single_cls": True, "label_smoothing": 0.1}, "label smoothing has no effect with a single class"),
        ({"deterministic": True}, ""),
        ({}, ""),
    ],
)
def test_an_option_that_changes_nothing_is_told(
    tmp_path: Path, options_for: Options, caplog: pytest.LogCaptureFixture, given: dict[str, Any], warning: str
) -> None:
    prepare(options_for(tmp_path, **given))
    assert warning in caplog.text and ("no effect" in caplog.text) is bool(warning)


# Small sets -----------------------------------------------------------------------------------------------------------


def test_few_steps_are_pointed_out(tmp_path: Path, options_for: Options, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        prepare(options_for(tmp_path, batch_size=16, epochs=50))
    assert "50 epochs of 1 batch make 50 optimizer steps" in caplog.text
    assert "so few optimizer steps (50) learn little" in caplog.text


def test_four_images_in_one_batch_are_learned_and_found(
    tmp_path: Path, toy: Path, training: Training, results: Callable[[Path], list[dict[str, str]]]
) -> None:
    """The averaged model finds them as well, with the statistics of its norms: v6.1's lag behind, and it scores 0."""
    plain = "mosaic: 0\nscale: 0\ntranslate: 0\nhsv_h: 0\nhsv_s: 0\nhsv_v: 0\nfliplr: 0\n"
    quick = "lr0: 0.002\nnominal_batch: 1\nwarmup_epochs: 1\nwarmup_bias_lr: 0.01\ncls: 2.0\n"
    data = toy.parent / "same.yaml"
    data.write_text(toy.read_text(encoding="utf-8").replace("images/val", "images/train"), encoding="utf-8")
    session = training(
        tmp_path, data=str(data), hyp=hyp_file(tmp_path, plain + quick), optimizer="AdamW", epochs=50, batch_size=16,
        noval=True, cache="ram", files=False,
    )  # fmt: skip
    rows = results(session.save_dir)
    for name, share in (("train/box_loss", 0.75), ("train/cls_loss", 0.4)):
        assert float(rows[-1][name]) < share * float(rows[0][name]), name
    assert float(rows[-1]["metrics/mAP_0.5"]) > 0.3


def test_an_early_stop_names_the_best_epoch_and_how_to_go_on(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    values = iter([[0.5], [0.9], [0.4]])
    monkeypatch.setattr("utils.training.validation.fitness", lambda _: next(values))
    with caplog.at_level(logging.INFO):
        session = training(tmp_path, epochs=7, patience=1, files=False)
    expected = "stopped early after epoch 3 of 7: no fitness as good as in epoch 2 for 1 epoch; to train on: "
    assert f"{expected}python train.py --resume {session.saver.last} --patience N" in caplog.text
