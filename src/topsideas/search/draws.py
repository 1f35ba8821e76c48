"""Draws: many sets of equal promise are asked about, since near the limit chance decides.

Where many small errors add up, what is rounded differently upstream rounds everything downstream
anew, so that sets with equal predicted errors differ in margin: by 10 to 40 % as measured on real
models. A set that is a little too small on average therefore passes now and then. How small to
draw is a matter of expected improvement (D. R. Jones, M. Schonlau, W. J. Welch, "Efficient global
optimization of expensive black-box functions", 1998): what would be gained, times the probability
of success, which margins seen so far tell.

Guarantees: the set returned passes and is no larger than the one given.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from topsideas.search.oracle import Items, Oracle, questions_for
from topsideas.verdict import Verdict

# Draws end when the next one is expected to save less than this many items. Measured: the
# certificate, which follows, saves about this many a question where there is something to save.
_WORTH = 0.25
# How far items move from their place in the ranking, as a part of the set's size.
_SPREAD = 0.1
# The part of a search's questions that is left for what comes after the draws.
_RESERVE = 0.5
# Draws end after so many sets that are known already, or that fail one after the other.
_REPEATS, _VAIN = 10, 40
# A margin beyond which it is not chance that decides, but items that are needed: margins of sets
# with equal predicted errors were measured to differ by a standard deviation of 10 to 40 %.
BEYOND_CHANCE = 3.0
# A draw that fails by more counts for several, and so does one that fails by the very margin of
# so many others: what they lack is the same. Measured where predictions are worth nothing: 5
# draws instead of 38, and the same answers where errors add up.
_SEVERAL, _ALIKE = 8, 2


class MarginFit:
    """What margin to expect of a set whose error was predicted.

    A straight line through the logarithms, whose slope is drawn towards 1 while little was seen.

    Args:
        errors: Predicted errors of the sets that keep the first 0, 1, 2, … items of a ranking, in
            any unit.
        bound: The largest margin that passes.
    """

    # The latest sets count: those near the answer. Slope 1 weighs as much as a variance of this
    # in the predictions, a deviation of this as much as two observations.
    _LATEST, _SLOPE, _DEVIATION = 40, 0.5, 0.3
    # Logarithms of margins beyond this say no more than that it is far.
    _FAR = 3.0

    def __init__(self, errors: Sequence[float], bound: float = 1.0) -> None:
        self._bound = bound
        self._log = np.log(np.clip(np.asarray(errors, float), 1e-12, 1e12))
        self._seen: list[tuple[float, float]] = []

    def see(self, length: int, verdict: Verdict) -> None:
        """Take a verdict on a set of ``length`` items into account."""
        if verdict.margin is not None and verdict.margin > 0:
            log = min(math.log(verdict.margin / self._bound), self._FAR)
            self._seen.append((float(self._log[length]), max(log, -self._FAR)))

    def chances(self) -> np.ndarray:
        """The probability that a set passes, by its size, float64."""
        x, y = np.array(self._seen[-self._LATEST :]).reshape(-1, 2).T
        if not len(x):
            return np.zeros(len(self._log))
        dx, dy = x - x.mean(), y - y.mean()
        # Never downhill: a smaller set is no likelier to pass, whatever a few margins suggest.
        slope = max(0.0, (dx @ dy + self._SLOPE) / (dx @ dx + self._SLOPE))
        rest = dy - slope * dx
        deviation = math.sqrt((rest @ rest + 2 * self._DEVIATION**2) / (len(x) + 2))
        expected = y.mean() + slope * (self._log - x.mean())
        steps = expected / (deviation * math.sqrt(2))
        return np.array([math.erfc(step) for step in steps.tolist()]) / 2


def smaller_by_draws(
    oracle: Oracle, fixed: Items, ranking: Sequence[int], kept: Items, errors: Sequence[float]
) -> Items:
    """A smaller set that passes, or ``kept``.

    Args:
        oracle: Answers questions, with margins.
        fixed: Items that are in every set.
        ranking: The other items, those most likely needed first.
        kept: A set that passes, ``fixed`` included.
        errors: See :class:`MarginFit`. Raises BudgetSpent.
    """
    oracle.phase = "draw"
    fit, rng = MarginFit(errors, oracle.bound), random.Random(0)
    for question in oracle.ledger:
        if fixed <= question.items and len(question.items - fixed) < len(ranking):
            fit.see(len(question.items - fixed), question.verdict)
    repeats = vain = 0
    margins = Counter[float]()
    while _questions_left(oracle, len(kept)) > 0 and repeats < _REPEATS and vain < _VAIN:
        length = _most_promising(fit.chances(), len(kept - fixed))
        if length is None:
            break
        trial = fixed | set(drawn(ranking, length, rng))
        known = oracle.known(trial) is not None
        repeats += known
        verdict = oracle.ask(trial)
        fit.see(length, verdict)
        if verdict.passed:
            kept, vain = trial, 0
            continue
        margin = verdict.margin or 0.0
        margins[margin] += not known
        vain += _SEVERAL if margin > BEYOND_CHANCE or margins[margin] > _ALIKE else 1
    return kept


def drawn(ranking: Sequence[int], length: int, rng: random.Random) -> list[int]:
    """``length`` items from about the beginning of a ranking."""
    places, state = _drawn_places(len(ranking), length, rng.getstate())
    rng.setstate(state)
    return [ranking[at] for at in places]


@lru_cache(1024)
def _drawn_places(count: int, length: int, state: Any) -> tuple[list[int], Any]:
    """Places, and the state after; whoever looks ahead draws the same again and again."""
    rng = random.Random()
    rng.setstate(state)
    spread = _SPREAD * length
    places = sorted(range(count), key=lambda at: at + rng.gauss(0, spread))
    return places[:length], rng.getstate()


def _questions_left(oracle: Oracle, size: int) -> float:
    return questions_for(size) * (1 - _RESERVE) - len(oracle.ledger)


def _most_promising(chances: np.ndarray, size: int) -> int | None:
    """The size below ``size`` that is expected to gain most, if it is worth a question."""
    lengths = np.arange(size // 2, size)
    if not len(lengths):
        return None
    gains = (size - lengths) * chances[lengths]
    best = int(gains.argmax())
    return int(lengths[best]) if gains[best] >= _WORTH else None
