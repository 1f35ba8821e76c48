"""Names for results: everything that can change a result, hashed in full."""

from __future__ import annotations

import hashlib
import json


def key_of(*parts: object) -> str:
    """A sha256 over JSON values; equal parts give equal keys on every machine and version.

    Raises:
        TypeError: A part is not JSON: convert sets, paths and arrays to what identifies them.
        ValueError: A part holds NaN or infinity.
    """
    return hashlib.sha256(canonical_json(list(parts)).encode()).hexdigest()


def canonical_json(value: object) -> str:
    """The one JSON text of a value, whatever order its mappings were built in.

    Raises:
        TypeError: Something is not JSON, or a mapping's key is not a string (JSON would make
            1 and "1" the same key).
        ValueError: NaN or infinity.
    """
    _check_keys(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _check_keys(value: object) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"mapping key {key!r} is a {type(key).__name__}, expected str")
            _check_keys(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_keys(item)
