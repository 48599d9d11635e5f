"""Importing does nothing: no network, no file, no global setting. Seen from a fresh process with an audit hook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Other people's packages are imported first, so that what is seen afterwards is this repository's doing.
PROBE = r"""
import importlib, json, logging, os, pkgutil, random, signal, socket, sys, warnings
import cv2, numpy, torch
import PIL.Image, tqdm, yaml

def state():
    return {
        "handlers": len(logging.getLogger().handlers),
        "level": logging.getLogger().level,
        "torch threads": torch.get_num_threads(),
        "cv2 threads": cv2.getNumThreads(),
        "environment": hash(frozenset(os.environ.items())),
        "torch random": torch.get_rng_state().tolist()[:64],
        "python random": str(hash(random.getstate())),
        "numpy random": numpy.random.get_state()[1].tolist()[:8],
        "default type": str(torch.get_default_dtype()),
        "print options": str(numpy.get_printoptions()),
        "error handling": numpy.geterr(),
        "interrupt": str(signal.getsignal(signal.SIGINT)),
        "folder": os.getcwd(),
    }

def refuse(*args, **kwargs):
    raise RuntimeError("a socket was opened on import")

events, path, before = [], list(sys.path), state()
socket.socket = socket.create_connection = refuse

def watch(event, args):
    if event.startswith("socket.") or event in ("subprocess.Popen", "os.system", "urllib.Request"):
        events.append(f"{event} {args}")
    elif event == "open" and isinstance(args[0], (str, bytes)):
        mode, flags = args[1] or "", args[2] or 0
        writes = any(c in mode for c in "wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        name = os.fsdecode(args[0])
        if writes and "__pycache__" not in name and name != os.devnull:
            events.append(f"writes {name}")
    elif event in ("os.mkdir", "os.remove", "os.rename"):
        name = os.fsdecode(args[0])
        if "__pycache__" not in name:
            events.append(f"{event} {name}")

sys.addaudithook(watch)
names = ["train", "val", "detect"]
for package in ("models", "utils"):
    names.append(package)
    folder = [os.path.join(os.getcwd(), package)]
    names += [found.name for found in pkgutil.walk_packages(folder, package + ".")]
for name in names:
    importlib.import_module(name)
after = state()
print(json.dumps({
    "modules": names, "events": events, "path": sys.path == path,
    "changed": {key: [before[key], after[key]] for key in before if before[key] != after[key]},
    "pyplot": "matplotlib.pyplot" in sys.modules,
}))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What happened while every module was imported, from a home folder that holds no cache of any package."""
    home = tmp_path_factory.mktemp("home")
    places = {"HOME": str(home), "USERPROFILE": str(home), "XDG_CACHE_HOME": str(home), "MPLCONFIGDIR": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=ROOT, env={**os.environ, **places}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1, "something printed on import"
    return dict(json.loads(lines[0]))


def test_every_module_can_be_imported(report: dict[str, Any]) -> None:
    files = [p for folder in ("models", "utils") for p in (ROOT / folder).rglob("*.py")]
    assert len(report["modules"]) == len(files) + 3


def test_importing_opens_no_connection_and_starts_no_process(report: dict[str, Any]) -> None:
    assert [event for event in report["events"] if event.startswith(("socket", "subprocess", "os.system", "url"))] == []


def test_importing_writes_no_file(report: dict[str, Any]) -> None:
    assert [event for event in report["events"] if event.startswith(("writes", "os."))] == []


def test_importing_changes_no_setting_of_the_process(report: dict[str, Any]) -> None:
    assert report["changed"] == {}
    assert report["path"], "sys.path was changed"


def test_importing_does_not_load_pyplot(report: dict[str, Any]) -> None:
    assert not report["pyplot"]


def test_the_options_of_a_script_do_not_load_what_only_data_sets_need() -> None:
    probe = (
        "import sys, utils.config.cli, utils.config.options; print({'yaml', 'http.client', 'tqdm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
