"""Changes files in ways that people, disks and attackers do, by a seeded generator."""

from __future__ import annotations

import io
import json
import math
import random
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

NAMES = [
    "",
    "x",
    "../x",
    "/etc/passwd",
    "a\0b",
    "\x1b[31m\x1b]0;title\x07",
    "<script>alert(1)</script>",
    "[bold red]",
    "\u202e\u2066name",
    "%s%n{0}",
    "n" * 5000,
]
NUMBERS = [0, 1, -1, 2, 7, 255, 65504, 2**31 - 1, -(2**31), 2**31, 2**40, 2**63 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 1e-45, 65504.0, 3.4e38, math.inf, -math.inf, math.nan]
JSON = [None, True, 0, -1, 1.5, 10**400, 2**63, "", "x", "1", [], {}, [[]], {"a": []}, *NAMES]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, double, fill or insert bytes at a few places."""
    content = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        if not content:
            return bytes(rng.randbytes(rng.randrange(64)))
        at, size = rng.randrange(len(content)), rng.choice([1, 1, 2, 4, 8, 64])
        what = rng.randrange(6)
        if what == 0:
            content[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            content[at : at + size] = rng.randbytes(size)
        elif what == 2:
            del content[at : at + size]
        elif what == 3:
            content[at:at] = content[max(0, at - size) : at]
        elif what == 4:
            content[at : at + size] = rng.choice([b"\0", b"\xff", b"\x7f"]) * size
        else:
            del content[at:]
    return bytes(content)


def mutate_model(data: bytes, rng: random.Random) -> bytes:
    """Change fields of an ONNX model; what stays is a message that can be parsed."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:  # it was changed bytewise before, protobuf names no class for it
        return mutate_bytes(data, rng)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        _mutate_message(rng.choice(_messages(model)), rng)
    try:
        return model.SerializeToString()
    except Exception:  # a text that is no UTF-8
        return mutate_bytes(data, rng)


def _messages(message: Message) -> list[Message]:
    found = [message]
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                found += _messages(inner)
    return found


def _mutate_message(message: Message, rng: random.Random) -> None:
    fields = list(message.DESCRIPTOR.fields)
    present = [field for field, _ in message.ListFields()]
    field = rng.choice(present if present and rng.random() < 0.8 else fields)
    value = getattr(message, field.name)
    if field.is_repeated:
        _mutate_list(value, field, rng)
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        value.SetInParent()
    else:
        setattr(message, field.name, _scalar(field, value, rng))


def _mutate_list(values: Any, field: FieldDescriptor, rng: random.Random) -> None:
    what = rng.randrange(4)
    if what == 0 and len(values):
        del values[rng.randrange(len(values))]
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        if what == 1 and len(values) > 1:  # the order of nodes matters: cycles come from this
            left, right = rng.sample(range(len(values)), 2)
            held = type(values[left])()
            held.CopyFrom(values[left])
            values[left].CopyFrom(values[right])
            values[right].CopyFrom(held)
        elif len(values):
            values.add().CopyFrom(rng.choice(values))
        else:
            values.add()
    elif len(values) and what < 3:
        at = rng.randrange(len(values))
        values[at] = _scalar(field, values[at], rng)
    else:
        values.append(_scalar(field, rng.choice(values) if len(values) else None, rng))


def _scalar(field: FieldDescriptor, value: Any, rng: random.Random) -> Any:
    kinds = FieldDescriptor
    if field.type == kinds.TYPE_STRING:
        return rng.choice([*NAMES, f"{value}x"])
    if field.type == kinds.TYPE_BYTES:
        return mutate_bytes(value or b"", rng)
    if field.type in (kinds.TYPE_FLOAT, kinds.TYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.type == kinds.TYPE_ENUM:
        return rng.choice([v.number for v in field.enum_type.values])
    limit = 31 if field.type in (kinds.TYPE_INT32, kinds.TYPE_UINT32) else 63
    least = 0 if field.type in (kinds.TYPE_UINT64, kinds.TYPE_UINT32) else -(2**limit)
    numbers = (*NUMBERS, (value or 0) + 1, (value or 0) - 1)
    return rng.choice([n for n in numbers if least <= n < 2**limit])


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Replace, drop or double values of a JSON text, or change its bytes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, rng)
    if rng.random() < 0.15:
        return mutate_bytes(data, rng)
    for _ in range(rng.choice([1, 1, 2, 4])):
        places = _places(value)
        if not places:
            return json.dumps(rng.choice(JSON)).encode()
        holder, key = rng.choice(places)
        what = rng.randrange(5)
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder, list):
            holder.append(holder[key])
        else:
            holder[key] = rng.choice(JSON)
    text = json.dumps(value)
    if rng.random() < 0.05:
        text = text.replace("1", rng.choice(["NaN", "Infinity", "9" * 5000, "1e999"]), 1)
    if rng.random() < 0.02:
        text = "[" * 100_000 + text
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return [(value, k) for k in value] + [p for v in value.values() for p in _places(v)]
    if isinstance(value, list):
        here: list[tuple[Any, Any]] = [(value, k) for k in range(len(value))]
        return here + [p for v in value for p in _places(v)]
    return []


def mutate_npz(data: bytes, rng: random.Random) -> bytes:
    """Change members of an npz archive, their headers, or its bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception:  # it was changed bytewise before, zipfile raises many kinds
        return mutate_bytes(data, rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice([0, 8, 12, 14])) as archive:
        for name, content in members.items():
            changed = _member(content, rng) if rng.random() < 0.7 else content
            archive.writestr(name if rng.random() < 0.9 else rng.choice(NAMES) + ".npy", changed)
    return stream.getvalue()


def _member(content: bytes, rng: random.Random) -> bytes:
    what = rng.randrange(4)
    if what == 0:
        return mutate_bytes(content, rng)
    if what == 1:
        return content[:16] + mutate_bytes(content[16:128], rng) + content[128:]
    stream = io.BytesIO()
    if what == 2:
        payload = rng.choice([0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x00000001, 0x7F800000])
        np.save(stream, np.full((2, 4), payload, np.uint32).view(np.float32))
    else:
        kind = rng.choice(["f2", "f8", ">f4", "i8", "U3", "S4", "V4", "c8", "M8[s]", "?"])
        np.save(stream, np.zeros(rng.choice([(), (0,), (2, 4), (1,) * 32]), kind))
    return stream.getvalue()


MUTATORS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "model": mutate_model,
    "npz": mutate_npz,
    "plan": mutate_json,
    "options": mutate_json,
}
