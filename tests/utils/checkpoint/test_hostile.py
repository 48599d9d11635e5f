"""Checkpoints by strangers that ask for memory, time or code: refused in one line."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.yolo import Model
from utils.checkpoint import Checkpoint, load_model, save_checkpoint
from utils.core.errors import InputError

YAML = {
    "nc": 1, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[10, 13], [30, 61]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]],
    "head": [[-1, 1, "Conv", [8, 3, 2]], [[1, 2], 1, "Detect", ["nc", "anchors"]]],
}  # fmt: skip


def checkpoint(**changes: Any) -> Checkpoint:
    model = Model(YAML)
    state = dict(model.state_dict())
    given = {"model_yaml": model.yaml, "nc": 1, "names": ["ant"], "stride": [4.0, 8.0], "model": state}
    return Checkpoint(**given | changes)


def rewritten(file: Path, change: Any) -> Path:
    """The archive with other records: ``change(name, content) -> [(name, content, compression)]``."""
    with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as source, zipfile.ZipFile(file, "w") as archive:
        for name in source.namelist():
            for new, content, way in change(name, source.read(name)):
                archive.writestr(zipfile.ZipInfo(new), content, way)
    return file


def refused(file: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_model(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "a.pt", checkpoint())
    return tmp_path / "a.pt"


def test_the_untouched_file_is_read(file: Path) -> None:
    assert load_model(file)[0].names == ["ant"]


def test_deflated_records_are_refused(file: Path) -> None:
    refused(rewritten(file, lambda name, content: [(name, content, zipfile.ZIP_DEFLATED)]), "compressed, which torch")


@pytest.mark.parametrize(
    "name", ["archive/data/../x", "archive/constants.pkl", "archive/DATA.pkl", "other/data.pkl", "x"]
)
def test_other_records_are_refused(file: Path, name: str) -> None:
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, b"x")
    refused(file, "which no such file needs|several folders")


def test_a_record_stored_twice_is_refused(file: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", b"x")
    refused(file, "holds 'data.pkl' twice")


def test_records_that_share_their_bytes_are_refused(file: Path) -> None:
    content = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        directory = archive.start_dir
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    at = content.index(largest.filename.encode(), directory) - 46
    entry, name = content[at : at + 46 + len(largest.filename)], largest.filename.encode()
    copies = b"".join(entry.replace(name, name[:-1] + str(digit).encode()) for digit in range(4))  # of the same place
    end = content[-22:]
    size = int.from_bytes(end[12:16], "little") + len(copies)
    count = (int.from_bytes(end[8:10], "little") + 4).to_bytes(2, "little")
    file.write_bytes(content[:-22] + copies + end[:8] + count * 2 + size.to_bytes(4, "little") + end[16:])
    refused(file, "twice|larger than the file can hold|cannot be read")


def test_a_tensor_larger_than_what_is_stored_of_it_is_refused(tmp_path: Path) -> None:
    given = checkpoint()
    content = {**vars(given), "format": "yolov5-dynamic", "format_version": 1}
    content["model"] = {key: torch.zeros(1).expand(1 << 40) for key in given.model}
    torch.save(content, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "larger than what is stored of it")


UNCOMMON = {
    "sparse": lambda: torch.eye(2).to_sparse(),
    "meta": lambda: torch.empty(1 << 40, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", UNCOMMON)
def test_tensors_of_uncommon_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    torch.save({"format": "yolov5-dynamic", "x": UNCOMMON[kind]()}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "refused, it names|uncommon kind")


class _Called:
    """Pickles as a call of ``what``."""

    def __init__(self, what: Any, *arguments: Any) -> None:
        self.what, self.arguments = what, arguments

    def __reduce__(self) -> Any:
        return self.what, self.arguments


@pytest.mark.parametrize(
    "value",
    [
        _Called(nn.Linear, 1 << 20, 1 << 20), _Called(torch.Tensor, 1 << 40), _Called(bytearray, 1 << 36),
        _Called(torch.FloatTensor, 1 << 40), _Called(print, "x"), _Called(torch.load, "x"),
    ],
    ids=["layer", "tensor", "bytearray", "legacy tensor", "print", "load"],
)  # fmt: skip
def test_nothing_is_called_while_a_file_is_read(tmp_path: Path, value: Any) -> None:
    torch.save({"model": value}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "refused, ")


def test_values_inside_themselves_are_refused(tmp_path: Path) -> None:
    nested: list[Any] = []
    nested.append(nested)
    doubled: list[Any] = []
    for _ in range(60):
        doubled = [doubled, doubled]
    for value in (nested, doubled):
        torch.save({"format": "yolov5-dynamic", "options": value}, tmp_path / "a.pt")
        refused(tmp_path / "a.pt", "holds more than 1000000 values")


def test_official_parts_that_hold_each_other_many_times_over_are_gone_through_once(tmp_path: Path) -> None:
    part: nn.Module = nn.SiLU()
    for _ in range(60):
        part = nn.Sequential(OrderedDict(a=part, b=part))
    torch.save({"model": part}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "holds no YOLOv5 detection model")


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": [[-1, 1, "Conv", [60000, 3, 2]], [-1, 1, "Conv", [60000, 3, 2]]]},
        {"backbone": [[-1, 900, "Conv", [2000, 3, 1]], [-1, 900, "Conv", [2000, 3, 1]]]},
        {"backbone": [[-1, 10**9, "Conv", [8, 3, 2]], *YAML["backbone"][1:]]},
        {"width_multiple": 1e9}, {"depth_multiple": float("inf")}, {"nc": 99999999999999999999}, {"anchors": 10**9},
    ],
    ids=["channels", "repeats", "number", "width", "depth", "classes", "anchors"],
)  # fmt: skip
def test_a_model_larger_than_its_tensors_is_refused_before_it_is_built(tmp_path: Path, change: dict[str, Any]) -> None:
    given = checkpoint()
    given.model_yaml = {**given.model_yaml, **change}
    save_checkpoint(tmp_path / "a.pt", given)
    refused(tmp_path / "a.pt", "at most|more than|too much memory")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 5")
def test_the_pickle_of_another_protocol_is_refused(file: Path) -> None:
    other = pickle.dumps({"format": "yolov5-dynamic"}, protocol=5)
    refused(rewritten(file, lambda name, content: [(name, other if name.endswith("pkl") else content, 0)]), "cannot be")


def test_one_stored_tensor_under_very_many_names_is_refused(tmp_path: Path) -> None:
    shared = torch.zeros(1000)
    save_checkpoint(tmp_path / "a.pt", checkpoint(model={f"layer{index}": shared for index in range(100)}))
    refused(tmp_path / "a.pt", "400000 bytes together, and 4000 are stored")


def test_a_number_of_a_kind_that_takes_gigabytes_is_refused(tmp_path: Path) -> None:
    torch.save({"model": np.void(bytes(8))}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "refused, it has numbers of the kind 'V8'")


def test_numbers_of_numpy_in_an_official_file_are_read(tmp_path: Path) -> None:
    torch.save(
        {"model": np.float64(0.5), "x": np.arange(3), "y": np.float32(1), "z": np.bool_(True)}, tmp_path / "a.pt"
    )
    refused(tmp_path / "a.pt", "holds no YOLOv5 detection model")  # after all of it has been read


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["9" * 12, 3, 2], "must be at most 65536"), ([8, "1e400"], "must be at most 65536"),
        ([8, [3]], "cannot be|takes|kernel"), (["-" * 60_000 + "1", 3], "arguments|number"),
    ],
    ids=["number in quotes", "infinity in quotes", "list", "nested without end"],
)  # fmt: skip
def test_arguments_of_a_row_are_checked_as_they_are_used(arguments: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Model({**YAML, "backbone": [[-1, 1, "Conv", arguments], *YAML["backbone"][1:]]})
