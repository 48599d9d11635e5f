"""Checkpoints: nothing in them runs, they come back equal, official files are read."""

from __future__ import annotations

import copy
import pickle
import re
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from models.dynamic import get_temperature, set_temperature
from models.memory_format import set_memory_format
from models.yolo import Model
from utils.checkpoint import Checkpoint, load_checkpoint, load_model, save_checkpoint, transfer
from utils.checkpoint.format import strip_checkpoint
from utils.core.errors import InputError


def checkpoint_of(model: Model, **more: object) -> Checkpoint:
    return Checkpoint(
        model_yaml=model.yaml, nc=model.nc, names=list(model.names), stride=model.stride.tolist(),
        model=model.state_dict(), **more,
    )  # fmt: skip


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model("yolov5n_dynamic.yaml", nc=3)


def test_a_saved_model_comes_back_equal_with_its_temperature(model: Model, tmp_path: Path) -> None:
    set_temperature(model, 13)
    model.names = ["a", "b", "ü"]
    save_checkpoint(tmp_path / "m.pt", checkpoint_of(model))
    loaded, checkpoint = load_model(tmp_path / "m.pt")
    assert get_temperature(loaded) == 13
    assert loaded.names == ["a", "b", "ü"] and checkpoint.nc == 3
    for (name, a), b in zip(model.state_dict().items(), loaded.state_dict().values()):
        assert torch.equal(a, b), name


def test_the_file_opens_with_an_empty_allow_list(model: Model, tmp_path: Path) -> None:
    extras = {"best": np.float64(0.5), "folder": tmp_path, "shape": (1, 2)}
    save_checkpoint(tmp_path / "m.pt", checkpoint_of(model, train_state=extras))
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    assert content["train_state"] == {"best": 0.5, "folder": str(tmp_path), "shape": [1, 2]}


def test_the_file_does_not_depend_on_the_layout_in_memory(model: Model, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "plain.pt", checkpoint_of(model, date="today"))
    set_memory_format(model, torch.channels_last)
    save_checkpoint(tmp_path / "last.pt", checkpoint_of(model, date="today"))
    assert (tmp_path / "last.pt").read_bytes() == (tmp_path / "plain.pt").read_bytes()
    strip_checkpoint(tmp_path / "last.pt")
    assert all(tensor.is_contiguous() for tensor in load_checkpoint(tmp_path / "last.pt").model.values())


def test_averaged_weights_are_preferred(model: Model, tmp_path: Path) -> None:
    ema = {k: torch.ones_like(v) for k, v in model.state_dict().items()}
    save_checkpoint(tmp_path / "m.pt", checkpoint_of(model, ema=ema))
    loaded, _ = load_model(tmp_path / "m.pt")
    assert (loaded.head.m[0].bias == 1).all()


def test_stripping_halves_the_weights_but_not_the_temperature(model: Model, tmp_path: Path) -> None:
    set_temperature(model, 4.7)
    path = tmp_path / "m.pt"
    waiting = {"gradients": {name: torch.zeros_like(p) for name, p in model.named_parameters()}, "epoch": 3}
    ema = copy.deepcopy(model.state_dict())
    save_checkpoint(path, checkpoint_of(model, optimizer={"state": {}}, ema=ema, train_state=waiting))
    assert load_checkpoint(path).resumable
    before = path.stat().st_size
    strip_checkpoint(path)
    assert path.stat().st_size < before / 5  # half of one in three: the model, its average, the gradients
    loaded, checkpoint = load_model(path)
    assert not checkpoint.resumable and checkpoint.train_state == {"epoch": 3}
    assert get_temperature(loaded) == pytest.approx(4.7, abs=1e-6)
    assert loaded.model[0].conv.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("more", "size"),
    [
        ({}, None),
        ({"imgsz": 224, "options": {"imgsz": 200}}, (224, 224)),
        ({"options": {"imgsz": 416}}, (416, 416)),  # of earlier releases
        ({"options": {"imgsz": "large"}}, None),
    ],
)
def test_the_size_of_training_survives_stripping(model: Model, tmp_path: Path, more: dict, size: object) -> None:
    save_checkpoint(tmp_path / "m.pt", checkpoint_of(model, optimizer={"state": {}}, **more))
    strip_checkpoint(tmp_path / "m.pt")
    assert load_model(tmp_path / "m.pt")[0].imgsz == size


@pytest.mark.parametrize(
    ("file", "size"), [("coco-v6.0", None), ("v6.1-2cls", None), ("v7-4cls", (416, 416))]
)  # the first two record none
def test_official_files_from_v7_on_record_the_size_of_training(shared_weights: Path, file: str, size: object) -> None:
    assert load_model(shared_weights / f"yolov5n-{file}.pt")[0].imgsz == size


def test_values_beyond_half_precision_are_kept_when_a_file_is_stripped(model: Model, tmp_path: Path) -> None:
    model.model[3].bn.running_var[0] = 1e6
    save_checkpoint(tmp_path / "m.pt", checkpoint_of(model))
    strip_checkpoint(tmp_path / "m.pt")
    loaded, checkpoint = load_model(tmp_path / "m.pt")
    assert loaded.model[3].bn.running_var[0] == 1e6
    assert checkpoint.model["model.4.cv1.bn.running_var"].dtype == torch.float16


def test_weights_that_are_not_finite_are_pointed_out(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with torch.no_grad():
        model.model[5].conv.weight[0] = float("nan")
    save_checkpoint(tmp_path / "m.pt", checkpoint_of(model))
    load_model(tmp_path / "m.pt")
    assert "m.pt: model.5.conv.weight holds values that are not finite (1 such tensors)" in caplog.text


@pytest.mark.parametrize("temperature", [0.0, 0.5, float("nan"), float("inf")])
def test_a_temperature_that_training_never_sets_is_refused(model: Model, tmp_path: Path, temperature: float) -> None:
    model.model[14].attention.temperature.fill_(temperature)
    save_checkpoint(tmp_path / "m.pt", checkpoint_of(model))
    with pytest.raises(InputError, match=rf"m\.pt: model\.14\.attention has the temperature {temperature}"):
        load_model(tmp_path / "m.pt")


def test_an_interrupted_save_leaves_the_old_file_whole(model: Model, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, checkpoint_of(model))
    old = path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, checkpoint_of(model, train_state={"epoch": 9}))
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("file", "names", "parameters"),
    [
        ("yolov5n-coco-v6.0.pt", (80, "person"), 1_872_157),
        ("yolov5n-v6.1-2cls.pt", (2, "helmet"), 1_766_623),
        ("yolov5n-v7-4cls.pt", (4, "duckie"), 1_769_329),
    ],
)
def test_official_files_are_read(shared_weights: Path, file: str, names: tuple[int, str], parameters: int) -> None:
    model, checkpoint = load_model(shared_weights / file)
    assert (len(model.names), model.names[0]) == names
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert checkpoint.origin == "official" and not checkpoint.resumable


class Shell:
    def __reduce__(self) -> tuple:
        import os

        return os.system, ("touch should-not-exist",)


def test_a_pickle_that_wants_to_run_something_is_refused_by_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Shell()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"refused, it names (posix|nt)\.system"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "should-not-exist").exists()


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    text, plain, zipped = tmp_path / "a.pt", tmp_path / "b.pt", tmp_path / "c.pt"
    text.write_text("not a checkpoint")
    torch.save({"weights": torch.zeros(2)}, plain)
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("hello.txt", "hello")
    for path in (text, plain, zipped):
        with pytest.raises(InputError, match=rf"{path.name}: .*checkpoint") as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"none.pt: no such file .*nothing is downloaded"):
        load_checkpoint(tmp_path / "none.pt")


def test_truncated_files_are_refused_in_one_line(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, checkpoint_of(model))
    content = path.read_bytes()
    for part in (0, 10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:part])
        with pytest.raises(InputError, match="checkpoint"):
            load_checkpoint(path)


def test_an_old_style_pickle_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"a": 1}))
    torch.save({"a": torch.zeros(2)}, tmp_path / "older.pt", _use_new_zipfile_serialization=False)
    for name in ("old.pt", "older.pt"):
        with pytest.raises(InputError, match=r"not a checkpoint.*a bare pickle, as torch wrote before 1\.6"):
            load_checkpoint(tmp_path / name)


def test_other_archives_of_torch_are_refused_in_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.pt", "w"):
        pass
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(tmp_path / "script.pt"))
    for name in ("empty.pt", "script.pt"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read as a checkpoint") as caught:
            load_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format_version": 2}, "format 2 is newer"),
        ({"format_version": "1"}, "'format_version' is of a wrong kind"),
        ({"model": None}, "'model' is of a wrong kind"),
        ({"model": {"model.0.conv.weight": 1}}, "'model' is of a wrong kind"),
        ({"ema": [1]}, "'ema' is of a wrong kind"),
        ({"model_yaml": [1]}, "'model_yaml' is of a wrong kind"),
        ({"train_state": None}, "'train_state' is of a wrong kind"),
        ({"names": ["only one"]}, "1 name for 3 classes"),
        ({"nc": -1}, "3 names for -1 classes"),
        ({"stride": "missing"}, "'stride' is of a wrong kind"),
    ],
)
def test_a_file_with_parts_of_another_kind_is_refused_by_part(
    model: Model, tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, checkpoint_of(model))
    torch.save(torch.load(path, weights_only=True) | change, path)
    with pytest.raises(InputError, match=rf"m\.pt: .*{problem}"):
        load_model(path)


@pytest.mark.parametrize("part", ["model_yaml", "nc", "names", "stride", "model", "format_version"])
def test_a_file_that_lacks_a_part_is_refused_by_part(model: Model, tmp_path: Path, part: str) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, checkpoint_of(model))
    content = torch.load(path, weights_only=True)
    del content[part]
    torch.save(content, path)
    with pytest.raises(InputError, match=rf"m\.pt: .*'{part}' is"):
        load_checkpoint(path)


def test_changed_bytes_of_a_file_run_nothing_and_raise_nothing_but_an_input_error(model: Model, tmp_path: Path) -> None:
    path, changed = tmp_path / "m.pt", tmp_path / "changed.pt"
    save_checkpoint(path, checkpoint_of(model))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(0, 12_000, rng.integers(1, 20)):  # the pickle comes first, tensors follow
            content[place] = rng.integers(256)
        changed.write_bytes(content)
        try:
            load_checkpoint(changed)
        except InputError:
            refused += 1
    assert refused > 30


def test_transfer_takes_what_fits_and_reports_the_rest() -> None:
    source, target = Model("yolov5s-ghost.yaml", nc=80), Model("yolov5s_dynamic.yaml", nc=3)
    report = transfer(target, source.state_dict(), exclude=("anchors",))
    assert torch.equal(target.model[0].conv.weight, source.model[0].conv.weight)
    assert "model.24.m.0.weight" in report.other_shape
    assert "model.10.weight" in report.absent
    assert "model.10.cv1.conv.weight" in report.unused
    assert not report.inflated
    assert {"model.24.anchors", "model.10.attention.temperature"} <= set(report.excluded)
    everything = {*report.taken, *report.other_shape, *report.absent, *report.excluded}
    assert everything == set(target.state_dict())
    assert get_temperature(target) == 34


def pickled_as(cls_name: str, path: Path, model: Model, monkeypatch: pytest.MonkeyPatch, **extra: object) -> None:
    """A file as v6.2 to v7 write it: a module whose class is called ``models.yolo.<cls_name>``, pickled whole."""
    import models.yolo

    kind = type(cls_name, (torch.nn.Module,), {"__module__": "models.yolo"})
    monkeypatch.setattr(models.yolo, cls_name, kind, raising=False)
    holder = kind()
    holder.model = torch.nn.Sequential()
    for name, tensor in model.state_dict().items():  # the tensors by their names; which classes hold them is no matter
        parts = name.split(".")[1:]
        at: torch.nn.Module = holder.model
        for part in parts[:-1]:
            if part not in at._modules:
                at.add_module(part, torch.nn.Module())
            at = at._modules[part]  # type: ignore[assignment]
        if tensor.is_floating_point() and parts[-1] in ("weight", "bias"):
            at.register_parameter(parts[-1], torch.nn.Parameter(tensor.clone()))
        else:
            at.register_buffer(parts[-1], tensor.clone())
    for name, module in model.named_modules():
        if name.endswith(".act"):
            holder.get_submodule(name.rpartition(".")[0]).add_module("act", module)
    holder.yaml, holder.names, holder.stride = dict(model.yaml), {0: "ant", 1: "bee"}, model.stride.clone()
    for name, value in (extra.pop("changed", None) or {}).items():  # type: ignore[attr-defined]
        setattr(holder, name, value) if value is not None else delattr(holder, name)
    torch.save({"model": holder, "epoch": -1, **extra}, path)
    monkeypatch.undo()


@pytest.mark.parametrize("cls_name", ["Model", "DetectionModel"])
def test_a_file_is_read_under_the_class_names_of_all_releases(
    cls_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Model("yolov5n.yaml", nc=2)
    pickled_as(cls_name, tmp_path / "x.pt", made, monkeypatch)
    read, checkpoint = load_model(tmp_path / "x.pt")
    assert checkpoint.names == ["ant", "bee"]
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in read.state_dict().items())


@pytest.mark.parametrize("act", ["nn.LeakyReLU(0.1)", "nn.ReLU(inplace=True)", "nn.Hardswish()", "nn.PReLU()"])
def test_a_file_made_by_code_with_another_activation_computes_with_it(
    act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Model({**Model("yolov5n.yaml", nc=2).yaml, "act": act}).eval()
    del made.yaml["act"]  # the yaml of such a file does not tell
    pickled_as("Model", tmp_path / "x.pt", made, monkeypatch)
    read, _ = load_model(tmp_path / "x.pt")
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(read(x)[0], made(x)[0])


def test_a_file_with_two_activations_is_refused_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Model("yolov5n.yaml", nc=2)
    made.model[3].act, made.model[5].act = torch.nn.LeakyReLU(0.1), torch.nn.SiLU(inplace=True)
    pickled_as("Model", tmp_path / "x.pt", made, monkeypatch)
    with pytest.raises(
        InputError, match=r"x\.pt: its layers have different activations \(LeakyReLU\(negative_slope=0\.1\), SiLU\(\)\)"
    ):
        load_model(tmp_path / "x.pt")


def test_a_model_of_another_kind_is_refused_by_the_layer_that_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Model("yolov5n.yaml", nc=2)
    made.yaml["backbone"] = [[-1, 1, "C2f", [64]], *made.yaml["backbone"][1:]]
    pickled_as("DetectionModel", tmp_path / "x.pt", made, monkeypatch)
    with pytest.raises(InputError, match=r"x\.pt.*C2f"):
        load_model(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("names", "read", "said"),
    [
        (
            None,
            ["class0", "class1"],
            "names no classes, its model has 2 (nc of its yaml): they are called class0, class1",
        ),
        (["ant"], ["ant", "class1"], "names 1 class,"),
        ({1: "ant", 2: "bee"}, ["class0", "ant"], "they are called class0, ant"),
        (["ant", "bee", "cat"], ["ant", "bee"], "names 3 classes, its model has 2"),
        ({"0": "ant", "1": "bee"}, ["ant", "bee"], ""),
        (("ant", "bee"), ["ant", "bee"], ""),
        (7, ["class0", "class1"], "names no classes"),
    ],
)
def test_classes_that_a_file_does_not_name_are_numbered(
    names: object, read: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    pickled_as("Model", tmp_path / "x.pt", Model("yolov5n.yaml", nc=2), monkeypatch, changed={"names": names})
    model, checkpoint = load_model(tmp_path / "x.pt")
    assert model.names == checkpoint.names == read
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == bool(said)
    assert all(said in line for line in lines)


def test_a_file_without_a_number_of_classes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Model("yolov5n.yaml", nc=2)
    changed = {"yaml": {**made.yaml, "nc": None}}
    pickled_as("Model", tmp_path / "x.pt", made, monkeypatch, changed=changed)
    with pytest.raises(InputError, match=r"x\.pt: its model yaml has no number of classes \(nc is None\)"):
        load_model(tmp_path / "x.pt")


@pytest.mark.parametrize("act", ["nn.SiLU()", "nn.ReLU()", "nn.LeakyReLU(0.1)", "nn.Hardswish()"])
def test_activations_pickled_by_an_older_torch_are_read(
    act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Model({**Model("yolov5n.yaml", nc=2).yaml, "act": act}).eval()
    x = torch.rand(1, 3, 64, 64)
    expected = made(x)[0]
    del made.yaml["act"]
    for module in made.modules():
        if not isinstance(module, torch.nn.Upsample):
            vars(module).pop("inplace", None)
    pickled_as("Model", tmp_path / "x.pt", made, monkeypatch)
    torch.testing.assert_close(load_model(tmp_path / "x.pt")[0](x)[0], expected)


def test_a_model_with_another_head_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Model("yolov5n.yaml", nc=2)
    made.yaml["head"] = [*made.yaml["head"][:-1], [[17, 20, 23], 1, "Segment", ["nc", "anchors", 32, 256]]]
    pickled_as("OtherModel", tmp_path / "x.pt", made, monkeypatch)
    with pytest.raises(InputError, match=r"x\.pt: a model of another kind \(its head is Segment\): not supported"):
        load_model(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("dotted", "what"),
    [
        ("ultralytics.nn.tasks.DetectionModel", "an anchor-free ultralytics model (DetectionModel)"),
        ("ultralytics.nn.modules.head.v10Detect", "an anchor-free ultralytics model (v10Detect)"),
        ("ultralytics.nn.tasks.SegmentationModel", "an anchor-free ultralytics model (SegmentationModel)"),
        ("models.yolo.IAuxDetect", "a YOLOv7 model (IAuxDetect)"),
        ("models.yolo.IDetect", "a YOLOv7 model (IDetect)"),
        ("models.yolo.DualDDetect", "a YOLOv9 model (DualDDetect)"),
        ("models.yolo.SegmentationModel", "a segmentation model (SegmentationModel)"),
        ("models.yolo.ClassificationModel", "a classification model (ClassificationModel)"),
        ("yolox.models.yolox.YOLOX", "a YOLOX model (YOLOX)"),
        ("yolov6.models.yolo.Model", "a YOLOv6 model (Model)"),
    ],
)
def test_a_pickled_model_of_another_program_is_refused_as_what_it_is(
    dotted: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, name = dotted.rpartition(".")
    kind = type(name, (torch.nn.Module,), {"__module__": module})
    parts = module.split(".")
    for package in [".".join(parts[:end]) for end in range(1, len(parts))]:
        monkeypatch.setitem(sys.modules, package, sys.modules.get(package, types.ModuleType(package)))
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{name: kind}))  # type: ignore[arg-type]
    torch.save({"model": kind()}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=re.escape(f"x.pt: {what}: not supported; read are")) as caught:
        load_checkpoint(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("backbone.backbone.stem.conv.conv.weight head.cls_preds.0.weight", "a YOLOX model"),
        ("model.22.cv2.0.0.conv.weight model.22.dfl.conv.weight", "an anchor-free ultralytics model"),
        ("model.0.conv.weight model.24.m.0.weight", "a state dict without its model yaml"),
        ("rpn.head.conv.0.0.weight", "a torchvision detector"),
    ],
)
@pytest.mark.parametrize("inside", ["", "model", "state_dict"])
def test_tensors_of_another_program_are_refused_as_what_they_are(
    key: str, what: str, inside: str, tmp_path: Path
) -> None:
    tensors = dict.fromkeys(key.split(), torch.zeros(1))
    torch.save({inside: tensors, "epoch": 1} if inside else tensors, tmp_path / "x.pt")
    with pytest.raises(InputError, match=f"x.pt: {what}: not supported; read are"):
        load_checkpoint(tmp_path / "x.pt")
