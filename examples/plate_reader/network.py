"""The layout of the plate reader, as data: `train.py` builds it in torch, `export.py` in ONNX."""

from collections.abc import Iterator
from dataclasses import dataclass

from decode import CHARSET

CLASSES = len(CHARSET) + 1
HEIGHT, WIDTH = 24, 94


@dataclass(frozen=True)
class Conv:
    """A convolution of stride 1 that keeps height and width, followed by a ReLU."""

    name: str
    channels_in: int
    channels_out: int
    kernel: tuple[int, int]

    @property
    def padding(self) -> tuple[int, int]:
        """Rows and columns added on each side."""
        return self.kernel[0] // 2, self.kernel[1] // 2


@dataclass(frozen=True)
class MaxPool:
    """A maximum pooling; the padding applies to each side."""

    kernel: int
    stride: int
    padding: int


@dataclass(frozen=True)
class Tap:
    """The feature map at this point also goes to the container, normalised by its energy.

    Attributes:
        name: Name of the branch.
        channels: Channels of the feature map.
        pool: Average pooling (kernel and stride) down to the container's grid; 1 for none.
    """

    name: str
    channels: int
    pool: int


Layer = Conv | MaxPool | Tap


def _block(name: str, channels_in: int, channels_out: int) -> Iterator[Conv]:
    """LPRNet's small basic block: a 3x3 convolution split into a column and a row."""
    inner = channels_out // 2
    yield Conv(f"{name}.reduce", channels_in, inner, (1, 1))
    yield Conv(f"{name}.column", inner, inner, (3, 1))
    yield Conv(f"{name}.row", inner, inner, (1, 3))
    yield Conv(f"{name}.expand", inner, channels_out, (1, 1))


BACKBONE: tuple[Layer, ...] = (
    Conv("stem", 3, 16, (3, 3)),
    Tap("context0", 16, 4),
    MaxPool(2, 2, 0),
    *_block("block1", 16, 48),
    *_block("block2", 48, 64),
    Tap("context1", 64, 2),
    MaxPool(2, 2, 0),
    *_block("block3", 64, 64),
    *_block("block4", 64, 96),
    Tap("context2", 96, 1),
    MaxPool(3, 1, 1),
    *_block("block5", 96, 96),
    *_block("block6", 96, 128),
    Conv("head.row", 128, 64, (1, 5)),
    Conv("head.column", 64, 64, (5, 1)),
    Tap("context3", 64, 1),
)

TAPS = tuple(layer for layer in BACKBONE if isinstance(layer, Tap))
CONVS = tuple(layer for layer in BACKBONE if isinstance(layer, Conv))
CONTAINER = Conv("container", sum(tap.channels for tap in TAPS), CLASSES, (1, 1))

LOUD_TAP = TAPS[1]
"""The branch whose squares do not fit fp16; `train.py` sets the scale of its features."""
LOUD_SOURCE, LOUD_CONSUMER = "block2.expand", "block3.reduce"
