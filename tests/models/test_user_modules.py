"""Layers from files of a user's own: when they run, what is noted of them, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import pickle
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import models
import models.common
from models import user_modules
from models.common import Conv
from models.registry import LAYERS
from models.user_modules import (
    ModuleRecord,
    line_in_module,
    load_modules,
    loaded_modules,
    modules_argument,
    require_modules,
)
from models.yolo import MODELS_DIR, Model
from utils.core.errors import InputError

GATED = """
from torch import Tensor, nn
from models.registry import register

@register("scaled")
class GatedConv(nn.Module):
    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1) -> None:
        super().__init__()
        self.value = nn.Conv2d(c1, c2, k, s, k // 2)
        self.gate = nn.Conv2d(c1, c2, k, s, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(x) * self.gate(x).sigmoid()
"""
WriteFile = Callable[..., Path]


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test starts with no file loaded and leaves none behind."""
    layers, modules = dict(LAYERS), set(sys.modules)
    monkeypatch.setattr(user_modules, "_LOADED", {})
    yield
    LAYERS.clear()
    LAYERS.update(layers)
    for name in set(sys.modules) - modules:
        if name.startswith("user_module_"):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    """``write(text, name="my_layers.py")``: a file below the test's folder."""

    def make(text: str = GATED, name: str = "my_layers.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return make


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content_with(row: list[Any], **keys: Any) -> dict[str, Any]:
    """The nano model with another layer in place of backbone row 4."""
    content = yaml.safe_load((MODELS_DIR / "yolov5n.yaml").read_text(encoding="utf-8"))
    content["backbone"][4] = row
    return {**content, **keys}


def yaml_with(path: Path, row: list[Any], **keys: Any) -> Path:
    path.write_text(yaml.safe_dump(content_with(row, **keys)), encoding="utf-8")
    return path


USES_IT = [-1, 1, "GatedConv", [256, 3]]


# Loading --------------------------------------------------------------------------------------------------------------


def test_a_loaded_file_gives_its_layers_and_a_record_of_itself(write: WriteFile) -> None:
    path = write()
    records = load_modules([path])
    assert records == [ModuleRecord("my_layers.py", sha256(path), ("GatedConv",))] == loaded_modules()
    assert LAYERS["GatedConv"].cls.__name__ == "GatedConv"


def test_an_unchanged_file_runs_once(write: WriteFile, tmp_path: Path) -> None:
    path = write(GATED + f"\nopen({str(tmp_path / 'log')!r}, 'a').write('ran ')")
    assert load_modules([path, str(path)]) == load_modules([path]) * 2
    assert (tmp_path / "log").read_text() == "ran "
    assert len(loaded_modules()) == 1


def test_a_changed_file_replaces_its_layers(write: WriteFile) -> None:
    first = load_modules([write()])[0]
    second = load_modules([write(GATED + "\nSIZE = 3")])[0]
    assert first.sha256 != second.sha256 and loaded_modules() == [second]
    assert sys.modules[LAYERS["GatedConv"].cls.__module__].SIZE == 3


def test_a_change_within_the_resolution_of_file_times_is_seen(write: WriteFile) -> None:
    """Python's own cache of compiled files goes by time and size."""
    for number in (1, 2, 3):
        load_modules([write(GATED + f"\nSIZE = {number}")])
        module = sys.modules[LAYERS["GatedConv"].cls.__module__]
        assert vars(module)["SIZE"] == number


def test_two_files_of_one_name_live_side_by_side(write: WriteFile) -> None:
    a = write(name="a/my_layers.py")
    b = write(GATED.replace("GatedConv", "OtherConv"), name="b/my_layers.py")
    load_modules([a, b])
    assert [record.layers for record in loaded_modules()] == [("GatedConv",), ("OtherConv",)]
    assert LAYERS["GatedConv"].cls.__module__ != LAYERS["OtherConv"].cls.__module__


def test_loaded_layers_can_be_pickled_and_copied(write: WriteFile) -> None:
    load_modules([write()])
    layer = LAYERS["GatedConv"].cls(3, 8)
    x = torch.rand(1, 3, 8, 8)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert torch.equal(other(x), layer(x))


def test_layers_of_ours_first_imported_by_a_file_are_not_taken_for_its_own(
    write: WriteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "common", models.common)  # put back afterwards
    monkeypatch.delitem(sys.modules, "models.common")
    names = {name for name, entry in LAYERS.items() if entry.cls.__module__ == "models.common"}
    for name in names:
        del LAYERS[name]
    text = "import models.common\n" + GATED
    assert load_modules([write(text)])[0].layers == ("GatedConv",)
    assert names and names <= LAYERS.keys()


def test_a_layer_of_torch_can_be_registered(write: WriteFile) -> None:
    text = "from torch import nn\nfrom models.registry import register\nregister('same', 'nn.Hardswish')(nn.Hardswish)"
    assert load_modules([write(text)])[0].layers == ("nn.Hardswish",)
    assert "nn.Hardswish" in str(Model(content_with([-1, 1, "nn.Hardswish", []])).model[4].type)


def test_a_rule_of_ones_own_for_a_layer_of_torch_comes_before_ours(write: WriteFile) -> None:
    text = "from torch import nn\nfrom models.registry import register\nregister('scaled', 'nn.Conv2d')(nn.Conv2d)"
    assert load_modules([write(text)])[0].layers == ("nn.Conv2d",)
    layer = Model(content_with([-1, 1, "nn.Conv2d", [256, 1]])).model[4]
    assert (layer.in_channels, layer.out_channels) == (64, 64)  # 256 scaled by 0.25


# What is refused ------------------------------------------------------------------------------------------------------


def test_a_missing_file_names_the_option_and_the_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        load_modules(["none.py"])
    assert str(caught.value) == f"--modules none.py: no such python file (tried {tmp_path / 'none.py'})"


def test_a_file_that_is_not_python_is_refused(write: WriteFile) -> None:
    with pytest.raises(InputError, match=r"--modules .*layers.txt: expected a python file"):
        load_modules([write(name="layers.txt")])


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("x = 1\nclass\n", 2, "SyntaxError: "),
        ("\n\nimport no_such_package\n", 3, "No module named 'no_such_package'; its own folder is not searched"),
        ("def f():\n    return 1 / 0\nf()\n", 2, "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('bye')\n", 2, "SystemExit: bye"),
        ("from models.registry import register\nregister('scled')\n", 2, "rule 'scled'; did you mean 'scaled'?"),
    ],
)  # fmt: skip
def test_an_error_in_a_file_is_one_line_with_its_place(write: WriteFile, text: str, line: int, problem: str) -> None:
    path = write(text)
    with pytest.raises(InputError) as caught:
        load_modules([path])
    assert str(caught.value).startswith(f"{path}:{line}: ") and problem in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is not None


def test_a_file_that_is_no_text_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_bytes(b"x = '\xff\xfe'\n")
    with pytest.raises(InputError, match=r"odd.py: SyntaxError: .*encoding"):
        load_modules([path])


def test_a_file_that_fails_half_way_leaves_nothing(write: WriteFile) -> None:
    before, names = dict(LAYERS), set(sys.modules)
    with pytest.raises(InputError):
        load_modules([write(GATED + "\n1 / 0")])
    assert before == LAYERS and loaded_modules() == []
    assert not {name for name in set(sys.modules) - names if name.startswith("user_module_")}


def test_a_change_that_fails_keeps_the_layers_as_they_were(write: WriteFile) -> None:
    load_modules([write()])
    kept = LAYERS["GatedConv"]
    with pytest.raises(InputError):
        load_modules([write(GATED + "\n1 / 0")])
    assert LAYERS["GatedConv"] is kept and loaded_modules()[0].layers == ("GatedConv",)


def test_a_file_without_layers_is_warned_about(write: WriteFile, caplog: pytest.LogCaptureFixture) -> None:
    load_modules([write("x = 1\n")])
    assert "registers no layer; put @register(rule)" in caplog.text


def test_two_files_with_one_layer_name_are_refused_and_both_named(write: WriteFile) -> None:
    a, b = write(name="a.py"), write(GATED + "\n# another", name="b.py")
    load_modules([a])
    kept = LAYERS["GatedConv"]
    with pytest.raises(InputError) as caught:
        load_modules([b])
    assert str(caught.value).startswith(f"{b}: the layer name 'GatedConv' is already taken by {a}; choose another")
    assert LAYERS["GatedConv"] is kept


def test_a_layer_cannot_take_the_place_of_one_of_ours(write: WriteFile) -> None:
    with pytest.raises(InputError, match=r"'Conv' is already taken by this program; .*name='MyConv'"):
        load_modules([write(GATED.replace("GatedConv", "Conv"))])
    assert LAYERS["Conv"].cls is Conv


def test_registering_our_own_class_again_changes_nothing(write: WriteFile) -> None:
    text = GATED + "\nfrom models.common import Conv\nregister('scaled')(Conv)"
    assert load_modules([write(text)])[0].layers == ("GatedConv",)


# In a model yaml ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("imports", ["parts/my_layers.py", ["parts/my_layers.py"]])
def test_a_yaml_imports_files_that_lie_relative_to_it(write: WriteFile, tmp_path: Path, imports: Any) -> None:
    path = write(name="parts/my_layers.py")
    model = Model(yaml_with(tmp_path / "mine.yaml", USES_IT, imports=imports))
    assert type(model.model[4]).__name__ == "GatedConv"
    assert model.yaml["modules"] == [{"file": "my_layers.py", "sha256": sha256(path)}]
    assert "imports" not in model.yaml


def test_a_missing_import_names_the_yaml_and_the_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"mine.yaml: imports .*tried {tmp_path / 'gone.py'}"):
        Model(yaml_with(tmp_path / "mine.yaml", USES_IT, imports="gone.py"))


@pytest.mark.parametrize("imports", [3, [3], {"a": "b"}])
def test_imports_that_are_no_file_names_are_refused(tmp_path: Path, imports: Any) -> None:
    with pytest.raises(InputError, match=r"mine.yaml: imports must be a python file or a list of them"):
        Model(yaml_with(tmp_path / "mine.yaml", USES_IT, imports=imports))


def test_only_loaded_files_whose_layers_a_yaml_uses_are_noted_in_it(write: WriteFile, tmp_path: Path) -> None:
    used = write()
    load_modules([used, write(GATED.replace("GatedConv", "OtherConv"), name="other.py")])
    model = Model(yaml_with(tmp_path / "mine.yaml", USES_IT))
    assert model.yaml["modules"] == [{"file": "my_layers.py", "sha256": sha256(used)}]
    assert "modules" not in Model("yolov5n.yaml").yaml


def test_a_mapping_runs_nothing_whatever_it_asks_for(write: WriteFile, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = write(GATED + f"\nopen({str(marker)!r}, 'w')")
    for keys in ({"imports": str(path)}, {"modules": [{"file": str(path), "sha256": sha256(path)}]}):
        with pytest.raises(InputError, match=r"this model needs layers from .*my_layers.py.*: pass --modules "):
            Model(content_with(USES_IT, **keys))
    assert not marker.exists() and loaded_modules() == []


def test_a_model_is_built_again_from_its_own_yaml_once_its_file_is_loaded(write: WriteFile, tmp_path: Path) -> None:
    model = Model(yaml_with(tmp_path / "mine.yaml", USES_IT, imports=write().name))
    again = Model(model.yaml)
    assert again.yaml == model.yaml
    assert again.state_dict().keys() == model.state_dict().keys()


def test_a_file_that_is_not_loaded_is_asked_for_by_name_and_hash(write: WriteFile) -> None:
    digest = sha256(write())
    content = content_with(USES_IT, modules=[{"file": "my_layers.py", "sha256": digest}], yaml_file="best.pt")
    with pytest.raises(InputError) as caught:
        Model(content)
    assert str(caught.value) == (
        f"best.pt: this model needs layers from my_layers.py (sha256 {digest[:8]}...): "
        "pass --modules path/to/my_layers.py"
    )


def test_a_known_path_is_told(write: WriteFile) -> None:
    content = {"modules": [{"file": "my_layers.py", "sha256": "0" * 64}, {"file": "b.py", "sha256": "1" * 64}]}
    with pytest.raises(InputError, match=r"pass --modules '/my work/my_layers.py' path/to/b.py$"):
        require_modules(content, "last.pt", ["/my work/my_layers.py"])


def test_a_file_of_another_content_is_used_with_a_warning(write: WriteFile, caplog: pytest.LogCaptureFixture) -> None:
    path = write()
    load_modules([path])
    model = Model(content_with(USES_IT, modules=[{"file": "my_layers.py", "sha256": "abcdef12" + "0" * 56}]))
    assert f"another my_layers.py (sha256 abcdef12) than the one loaded ({sha256(path)[:8]})" in caplog.text
    assert model.yaml["modules"] == [{"file": "my_layers.py", "sha256": sha256(path)}]


@pytest.mark.parametrize("records", ["my_layers.py", 3, [3], [{"file": "a.py"}], [{"file": 1, "sha256": "0"}]])
def test_damaged_records_are_an_input_error(records: Any) -> None:
    with pytest.raises(InputError, match=r"model yaml: modules must list mappings with file and sha256"):
        Model(content_with([-1, 3, "C3", [256]], modules=records))


def test_the_command_line_for_a_model_names_its_files(write: WriteFile) -> None:
    path = write(name="my work/my_layers.py")
    load_modules([path, write("x = 1", name="other.py")])
    model = Model(content_with(USES_IT))
    assert modules_argument(model.yaml) == f" --modules {shlex.quote(str(path.resolve()))}"
    assert modules_argument(Model("yolov5n.yaml").yaml) == ""


def test_an_error_while_a_layer_runs_names_the_line_of_the_file(write: WriteFile) -> None:
    load_modules([write(GATED.replace("self.gate(x)", "self.gate(x)[:, :, :5]"))])
    with pytest.raises(InputError, match=r"backbone row 4 \(layer 4, GatedConv\): .*: my_layers.py:13: ") as caught:
        Model(content_with(USES_IT))
    assert line_in_module(caught.value.__cause__ or caught.value) == "my_layers.py:13: "
