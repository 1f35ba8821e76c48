"""Arguments of ``trtexec`` for TensorRT up to 10, which took precisions by layer name.

TensorRT 11 dropped them: it reads the mixed-precision ONNX model as it is. The grammar, as
``trtexec --help`` of TensorRT 8 to 10 gives it: ``--layerPrecisions=NAME:TYPE[,NAME:TYPE ...]``,
where ``*`` stands for all layers not named; ``--layerOutputTypes`` likewise, with one type per
output joined by ``+``.
"""

from __future__ import annotations

import shlex

from topsideas.formats.base import Order, Written
from topsideas.formats.naming import unique_names

# Linux refuses a single argument of 128 KiB.
_LONGEST = (1 << 17) - 1

_SEPARATORS = frozenset(",:+*")

_LIMIT = (
    "TensorRT names the first layer that it makes of an op after the node; further ones are "
    "{low}. Compare with --dumpLayerInfo, or prefer the ONNX model and --stronglyTyped"
)


def write(order: Order) -> Written:
    """Write one argument per line, quoted as ``xargs`` and shells read them."""
    naming, low = unique_names(order, _writable), order.numerics.precision.name
    floats = {op.id: len(op.dtypes) for op in order.model.ops if "FLOAT" in op.dtypes}
    mixed = {op.id for op in order.model.ops if set(op.dtypes) != {"FLOAT"}}
    fp32 = [(i, naming.names[i]) for i in sorted(order.fp32_ids & floats.keys())]
    precisions = [f"*:{low}", *(f"{name}:fp32" for _, name in fp32)]
    # Ops that also give integers, such as TopK, get their types from TensorRT.
    typed = ((name, floats[i]) for i, name in fp32 if i not in mixed)
    types = [f"*:{low}", *(f"{name}:{'+'.join(['fp32'] * count)}" for name, count in typed)]
    arguments = [
        f"--{low}",
        "--precisionConstraints=obey",
        f"--layerPrecisions={','.join(precisions)}",
        f"--layerOutputTypes={','.join(types)}",
    ]
    text = "\n".join(map(shlex.quote, arguments)) + "\n"
    order.path.write_text(text, encoding="utf-8")
    onnx = naming.model or order.model.path or "MODEL.onnx"
    run = f"run: xargs -a {shlex.quote(str(order.path))} trtexec --onnx={shlex.quote(str(onnx))}"
    notes = [run, _LIMIT.format(low=low)]
    if any(len(argument.encode()) > _LONGEST for argument in arguments):
        notes.append("an argument is over 128 KiB: Linux passes it from a program's API only")
    return Written((order.path, *naming.files), (*notes, *naming.note()))


def _writable(name: str) -> bool:
    return name.isprintable() and not _SEPARATORS & set(name)
