"""The Dockerfiles, as far as they can be checked without docker: what they copy, install, start and ask."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "examples/docker").iterdir())


def steps(file: Path) -> list[tuple[str, str]]:
    """(instruction, what follows) of a Dockerfile, each in one line, comments left out."""
    text = "\n".join(line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def copied(file: Path) -> list[str]:
    return [name for word, rest in steps(file) if word == "COPY" for name in rest.split()[:-1]]


def ignored(path: Path) -> bool:
    """Whether .dockerignore keeps a path of the repository out; the last line that fits decides."""
    name, out = path.relative_to(ROOT).as_posix(), False
    parents = [name, *(parent.as_posix() for parent in Path(name).parents)]
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.lstrip("!")
        if line and not line.startswith("#"):
            patterns = (pattern, pattern.removeprefix("**/")) if pattern.startswith("**/") else (pattern,)
            if any(fnmatch.fnmatch(part, one) for part in parents for one in patterns):
                out = not line.startswith("!")
    return out


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_copied_is_there_and_sent_to_docker(file: Path) -> None:
    assert copied(file) == ["requirements.txt", "models", "utils", "tools", "examples"]
    for name in copied(file):
        inside = list((ROOT / name).rglob("*.py")) if (ROOT / name).is_dir() else [ROOT / name]
        assert inside, name
        assert not any(map(ignored, inside)), name
    for name in (".git/HEAD", "runs/train/exp/weights/best.pt", ".venv/bin/python", "utils/__pycache__/a.pyc"):
        assert ignored(ROOT / name), name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_headless_opencv_takes_the_place_of_the_other(file: Path) -> None:
    install = " ".join(rest for word, rest in steps(file) if word == "RUN")
    found = re.search(r"sed -i 's/(.*?)/(.*?)/' requirements\.txt", install)
    assert found
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    changed = re.sub(found[1], found[2], requirements, flags=re.MULTILINE)
    assert re.findall(r"^opencv[\w-]*", changed, re.MULTILINE) == ["opencv-python-headless"]
    assert install.index("sed") < install.index("-r requirements.txt")
    assert {"fastapi", "uvicorn"} < set(install.split())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_service_of_the_image_is_reached_and_asked_for_its_health(
    file: Path, eager_weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    image, named = tmp_path / "app", dict(steps(file))
    assert (named["WORKDIR"], named["USER"]) == ("/app", "nobody")
    for name in copied(file):
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, image / name, ignore=lambda at, names: [n for n in names if ignored(Path(at, n))]
            )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    entry, health = json.loads(named["ENTRYPOINT"]), json.loads(named["HEALTHCHECK"].partition("CMD ")[2])
    assert (entry[0], health[:2], entry[2:4]) == ("python", ["python", "-c"], ["--host", "0.0.0.0"])
    assert f"'127.0.0.1', {named['EXPOSE']}," in health[2]
    served = (image / "examples/serve.py").read_text(encoding="utf-8")
    assert f'"--port", type=int, default={named["EXPOSE"]})' in served
    words = ["cpu" if word == "cuda:0" else "127.0.0.1" if word == "0.0.0.0" else word for word in entry[1:]]
    without_home = {**os.environ, "HOME": "/nonexistent", "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [sys.executable, *words, "--weights", str(eager_weights), "--imgsz", "64", "--port", str(port)],
        cwd=image, env=without_home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        ask = [sys.executable, "-c", health[2].replace(named["EXPOSE"], str(port))]
        for _ in range(240):
            answered = subprocess.run(ask, capture_output=True, check=False).returncode == 0
            if answered or process.poll() is not None:
                break
            time.sleep(0.5)
        wrong_route = [*ask[:2], ask[2].replace("/health", "/healthy")]
        assert subprocess.run(wrong_route, capture_output=True, check=False).returncode == 1
    finally:
        process.send_signal(signal.SIGTERM)  # as docker stop does
        error = process.communicate(timeout=60)[1]
    assert answered, error
    assert process.returncode in (0, -signal.SIGTERM), error
