"""ap_per_class, unpacked as in v6.1."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.metrics import ap, ap_per_class


def test_its_answer_is_a_tuple_of_seven_and_its_curves_are_files(tmp_path: Path) -> None:
    stats = np.array([[True], [False]]), np.array([0.9, 0.8]), np.array([0, 0]), np.array([0, 0])
    tp, fp, p, r, f1, area, classes = ap_per_class(*stats, plot=True, save_dir=tmp_path, names={0: "ant"})
    expected = ap.ap_per_class(*stats)
    assert (tp.tolist(), fp.tolist(), classes.tolist()) == ([1], [0], [0])
    for found, name in ((p, "p"), (r, "r"), (f1, "f1"), (area, "ap")):
        assert np.array_equal(found, getattr(expected, name))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "F1_curve.png", "PR_curve.png", "P_curve.png", "R_curve.png",
    ]  # fmt: skip
