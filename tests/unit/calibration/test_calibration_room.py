"""How much room a failed build asks for."""

from __future__ import annotations

from typing import Any

from topsideas.calibration.room import first_room, wider_room


def test_the_first_room_is_what_all_low_shows() -> None:
    assert first_room(None, 1.1) == 1.1
    assert first_room(2.0, 1.0) == 2.0
    assert first_room(100.0, 1.0) == 4.0
    assert first_room(0.1, 1.0) == 1.0  # a smaller error there promises nothing elsewhere


def _wider(room: float, needed: float | None, **more: Any) -> float | None:
    asked = {"failures": 0, "left": 3, "new": False} | more
    return wider_room(room, needed, 1.0, **asked)


def test_room_is_what_the_failed_plan_needed() -> None:
    assert _wider(2.0, 3.5) == 3.5
    assert _wider(2.0, 3.5, new=True) == 3.5
    assert _wider(2.0, 3.5, left=1) == 3.5 * 1.25
    assert _wider(2.0, 3.5, left=2) == 3.5 * 1.25


def test_room_grows_with_every_failure() -> None:
    assert [_wider(2.0, 1.0, failures=n) for n in range(4)] == [2.3, 2.6, 3.2, 3.2]
    assert _wider(2.0, 1.0, new=True) == 2.0  # what was marked is more already


def test_gross_differences_tell_nothing_unless_ops_explain_them() -> None:
    assert _wider(2.0, 5.0) is None
    assert _wider(2.0, None) is None
    assert _wider(2.0, 5.0, new=True) == 2.0  # what was marked is why
    assert _wider(2.0, 1e6, new=True) == 2.0
    assert _wider(2.0, None, new=True) == 2.0
