"""Choice of the model and its classes."""

from __future__ import annotations

import pytest

from utils.core.errors import InputError
from utils.inference.weights import class_numbers

NAMES = ["RBC", "WBC", "Platelets", "rbc", "7"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [((0, 2), (0, 2)), (("WBC",), (1,)), (("platelets", 0), (2, 0)), (("RBC", "rbc"), (0, 3)), ((), ())],
)
def test_classes_are_chosen_by_number_or_name(chosen: tuple[int | str, ...], expected: tuple[int, ...]) -> None:
    assert class_numbers(chosen, NAMES) == expected


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (5, "--classes 5: no such class; the model has 5 classes, 0 to 4: RBC, WBC, Platelets, rbc, 7"),
        ("WBCs", "--classes WBCs: no such class.*WBC"),
        ("-1", "--classes -1: no such class"),
    ],
)
def test_a_class_that_the_model_lacks_is_refused(chosen: int | str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        class_numbers([chosen], NAMES)
