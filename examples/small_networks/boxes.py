"""Two maps are equally good if they give the same text regions."""

from collections.abc import Sequence

import numpy as np


def same_boxes(reference: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> bool:
    """Tells whether the maps binarise to the same regions, up to one pixel in 200.

    Args:
        reference: Golden arrays in the model's output order; the map is the first.
        outputs: The arrays to judge, in the same order.
    """
    text = reference[0] > 0.3, outputs[0] > 0.3
    return bool(np.isfinite(outputs[0]).all() and np.mean(text[0] != text[1]) <= 1 / 200)
