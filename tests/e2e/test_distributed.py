"""Two processes train one model: what they answer in two_ranks.py, which they run side by side."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
Answers = list[dict[str, Any]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_two(words: list[str]) -> list[subprocess.Popen[str]]:
    """Two processes that find each other as if torchrun had started them, which would cost a third."""
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip


def ends_of(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit code and output of each."""
    try:
        outputs = [process.communicate(timeout=1800)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, output) for process, output in zip(processes, outputs)]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Answers:
    folder = tmp_path_factory.mktemp("two")
    data = make_dataset(folder / "set", n_train=9, n_val=5)
    ends = ends_of(start_two(["tests/e2e/two_ranks.py", str(data), str(folder)]))
    assert [code for code, _ in ends] == [0, 0], "\n".join(output[-3000:] for _, output in ends)
    return [json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


@pytest.mark.parametrize(
    "case", ["batch norm still", "batch norm joint", "nothing for rank 1", "joint, nothing for rank 1"]
)
def test_the_gradients_of_two_processes_are_those_of_one_with_the_batch_of_both(answers: Answers, case: str) -> None:
    for found in answers:
        assert found[case]["loss"] < (1e-5 if "joint," in case else 1e-6)
        # Batch norm over 4 or 20 values, as on the coarsest map here, makes more of a rounding.
        assert found[case]["gradient"] < (1e-3 if "joint" in case else 1e-6)
        assert found[case]["statistics"] < 1e-5


def test_a_validation_by_two_processes_has_the_figures_of_one(answers: Answers) -> None:
    for found in answers:
        two, one = found["evaluation"]["two"], found["evaluation"]["one"]
        assert two["figures"] == one["figures"] and 0 < one["figures"][-1] < 1
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
        assert (two["counts"], two["confusion"]) == (one["counts"], one["confusion"])
        assert two["counts"][0] == 5
        for mine, alone in zip(two["routing"], one["routing"], strict=True):
            assert mine[0] == alone[0] == 5
            for figures, expected in zip(mine, alone, strict=True):
                np.testing.assert_allclose(figures, expected, rtol=1e-5)


def test_early_stopping_stops_both_in_the_same_epoch(answers: Answers) -> None:
    """Only rank 0 sees a fitness that falls."""
    assert [(found["early_stop"]["code"], found["early_stop"]["epoch"]) for found in answers] == [(0, 1), (0, 1)]


def test_image_weights_draw_the_same_images_for_both(answers: Answers) -> None:
    first, second = (found["early_stop"]["drawn"] for found in answers)
    assert first == second and len(first) == 9


def test_a_signal_to_one_stops_both_after_the_same_step_and_the_run_can_go_on(answers: Answers) -> None:
    for found in (found["stopped_and_resumed"] for found in answers):
        assert (found["code"], found["at"], found["saved"]) == (0, [1, 1, "SIGTERM"], 1)
        assert found["resumed"] == found["whole"] | {"epochs": 1}


def test_another_number_of_processes_goes_on_with_the_same_run(answers: Answers) -> None:
    for found in (found["other_numbers"] for found in answers):
        assert found["codes"] == [0, 0] and found["stopped"] == [1, 1]
    found = answers[0]["other_numbers"]  # the average of rank 0 is the one that counts
    for resumed in ("more", "fewer"):
        for name in ("model", "ema", "updates"):
            assert found[resumed][name] == pytest.approx(found["whole"][name], rel=1e-3), (resumed, name)
        assert found[resumed]["best"] == pytest.approx(found["whole"]["best"], rel=0.05)


def test_two_machines_read_their_own_copies_of_the_data_and_the_first_writes(answers: Answers) -> None:
    for found in (found["two_machines"] for found in answers):
        assert found["code"] == 0 and found["own"] is True
        assert found["written"] == [True, False]
        assert "this run's machines do not have the same images: (train, val) [(9, 5), (8, 5)]" in found["refused"]


def test_a_number_broken_on_one_rank_is_seen_by_both(answers: Answers) -> None:
    for found in (found["faulty_batch"] for found in answers):
        assert "batch 2 of 3" in found["refused"] and "model.9 (SPPF)" in found["refused"]
        assert (found["code"], found["skipped"]) == (0, 1)
        assert found["joint"] == [0, 1]  # with --sync-bn, and broken behind the last of these norms
    models = [found["faulty_batch"]["state"]["model"] for found in answers]
    assert models[0] == pytest.approx(models[1], rel=1e-3)  # up to the batch norm statistics


def test_an_image_lost_on_one_rank_stops_both_with_its_name(answers: Answers) -> None:
    for found in answers:
        assert found["no_batch"].startswith("a.png: gone; then resume with: torchrun --nproc_per_node=2 train.py")


def test_a_parameter_without_gradient_does_not_stop_the_training(answers: Answers) -> None:
    assert [found["idle_parameter"] for found in answers] == [{"code": 0, "spare": 1.0, "batches": 3}] * 2


def test_calibration_and_temperature_span_are_the_same_on_both_in_every_step(answers: Answers) -> None:
    first, second = (found["dynamic_start"] for found in answers)
    assert first == second  # to the last bit: weights of all routings, and T of model and average
    steps = first["steps"]
    assert [step[:2] for step in steps] == [pytest.approx([max(1, 34 - 33 * i / 6)] * 2) for i in range(12)]
    assert len({step[2] for step in steps}) >= 4 and first["equal kernels"]  # an optimizer step takes 3 batches
    # The images of the calibration do not depend on how many processes there are.
    assert first["start"] == pytest.approx(first["alone"], rel=1e-6)
    assert first["inflated"] not in (0, pytest.approx(first["start"], rel=1e-3))


def test_torchrun_starts_the_processes_and_what_cannot_work_is_said_once(tmp_path: Path, toy: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = [f"--data={toy}", f"--project={tmp_path}", "--batch-size=3", "--device=cpu"]
    done = subprocess.run(
        [*launcher, "train.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False
    )  # fmt: skip
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count("error: --batch-size 3 is the total of 2 processes") == 1
    assert not any(tmp_path.iterdir())
