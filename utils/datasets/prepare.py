"""From a data set's description to its verified labels and its loaders."""

from __future__ import annotations

import logging

from utils.config.dataset_spec import DatasetSpec
from utils.datasets.cache import cache_path_for
from utils.datasets.digits import ensure_digits
from utils.datasets.labels import LabelSet, scan_labels
from utils.errors import InputError, nearest
from utils.files import find_images

LOG = logging.getLogger(__name__)
GENERATORS = {"digits": ensure_digits}


def load_labels(spec: DatasetSpec, split: str, *, single_cls: bool = False, require_labels: bool = False) -> LabelSet:
    """Pictures and verified labels of a split; an embedded set is composed first when it is not there yet.

    Raises:
        FileNotFoundError: pictures are missing; every place tried is named.
        InputError: no such split, no usable picture, class ids beyond the names.
    """
    if spec.generate:
        if spec.generate not in GENERATORS:
            hint = nearest(spec.generate, GENERATORS)
            raise InputError(f"{spec.source}: generate: '{spec.generate}' is not known{hint}; there is: digits")
        GENERATORS[spec.generate](spec.root)
    images = find_images(spec.sources(split))
    return scan_labels(
        images,
        spec.nc,
        cache_path=cache_path_for(images),
        progress=True,
        description=f"{split} labels",
        require_labels=require_labels,
        single_cls=single_cls,
    )
