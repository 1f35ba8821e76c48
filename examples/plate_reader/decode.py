"""Reads plates out of the network's output; stands alone, so that a tool can load it by path."""

from collections.abc import Sequence

import numpy as np

CHARSET = "0123456789ABCDEFGHKLMNPRSTUVWXYZ"
"""Class k + 1 is CHARSET[k]. I, J, O and Q are left out, as on many real plates."""

BLANK = 0


def decode(logits: np.ndarray) -> list[str]:
    """Reads a batch of plates by greedy CTC decoding.

    Args:
        logits: Scores of shape [N, classes, T].

    Returns:
        One text per plate.
    """
    return [_collapse(path) for path in np.argmax(logits, axis=1)]


def _collapse(path: np.ndarray) -> str:
    """Merges runs of one class, then drops the blanks: a blank keeps double letters apart."""
    starts_run = np.diff(path, prepend=-1) != 0
    return "".join(CHARSET[k - 1] for k in path[starts_run] if k != BLANK)


def plates_match(reference: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> bool:
    """Tells whether every plate reads as it does in the reference.

    Args:
        reference: Golden arrays in the model's output order.
        outputs: The arrays to judge, in the same order.

    Returns:
        True if all decoded texts are equal.
    """
    return decode(reference[0]) == decode(outputs[0])
