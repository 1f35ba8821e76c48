"""Renders licence plates of an invented country: 94 x 24 RGB, as a detector would crop them."""

import functools
import random

import numpy as np
from decode import CHARSET
from network import HEIGHT, WIDTH
from PIL import Image, ImageDraw, ImageFilter

SCALE = 4  # plates are drawn this much larger and shrunk at the end: smooth edges for free
CELL = (8, 9)  # size of one glyph dot on the large canvas
DIGITS, LETTERS = CHARSET[:10], CHARSET[10:]
FORMATS = ("LLDDDLL", "LLDDDDL", "LDDDLL")
STYLES = (  # background, ink
    ((235, 235, 230), (20, 20, 25)),
    ((240, 205, 60), (25, 20, 15)),
    ((225, 235, 245), (20, 50, 130)),
    ((35, 60, 140), (240, 240, 245)),
    ((30, 100, 60), (235, 240, 235)),
)
GLYPHS = {  # seven rows of five dots, one hexadecimal byte per row
    "0": "0E11131519110E", "1": "040C040404040E", "2": "0E11010204081F",
    "3": "1F02040201110E", "4": "02060A121F0202", "5": "1F101E0101110E",
    "6": "0608101E11110E", "7": "1F010204080808", "8": "0E11110E11110E",
    "9": "0E11110F01020C", "A": "0E11111F111111", "B": "1E11111E11111E",
    "C": "0E11101010110E", "D": "1C12111111121C", "E": "1F10101E10101F",
    "F": "1F10101E101010", "G": "0E11101711110F", "H": "1111111F111111",
    "K": "11121418141211", "L": "1010101010101F", "M": "111B1515111111",
    "N": "11111915131111", "P": "1E11111E101010", "R": "1E11111E141211",
    "S": "0F10100E01011E", "T": "1F040404040404", "U": "1111111111110E",
    "V": "11111111110A04", "W": "1111111515150A", "X": "11110A040A1111",
    "Y": "1111110A040404", "Z": "1F01020408101F",
}  # fmt: skip


def render_batch(seed: int, count: int) -> tuple[np.ndarray, list[str]]:
    """Renders plates; one seed always gives the same plates.

    Args:
        seed: Seed of text, view and noise.
        count: Number of plates.

    Returns:
        Float32 pixels 0..255 of shape [count, 3, 24, 94], and the texts.
    """
    rng = random.Random(seed)
    texts = [random_text(rng) for _ in range(count)]
    return np.stack([render(text, rng) for text in texts]), texts


def random_text(rng: random.Random) -> str:
    """Draws the text of a plate."""
    kinds = {"L": LETTERS, "D": DIGITS}
    return "".join(rng.choice(kinds[kind]) for kind in rng.choice(FORMATS))


def render(text: str, rng: random.Random) -> np.ndarray:
    """Renders one plate as float32 pixels of shape [3, 24, 94]."""
    large = _tilt(_draw(text, rng), rng)
    large = large.filter(ImageFilter.GaussianBlur(rng.uniform(1.0, 3.5)))
    small = large.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return _expose(np.asarray(small, np.float32), rng).transpose(2, 0, 1)


def _draw(text: str, rng: random.Random) -> Image.Image:
    """Draws the flat plate on the large canvas."""
    paper, ink = rng.choice(STYLES)
    size = (WIDTH * SCALE, HEIGHT * SCALE)
    image = Image.new("RGB", size, paper)
    ImageDraw.Draw(image).rectangle((3, 3, size[0] - 4, size[1] - 4), outline=ink, width=3)
    pitch = 50 if len(text) == 7 else 56
    left = (size[0] - pitch * len(text) + pitch - 5 * CELL[0]) // 2
    top = (size[1] - 7 * CELL[1]) // 2
    for k, char in enumerate(text):
        image.paste(ink, (left + k * pitch, top), _glyph(char))
    return image


@functools.cache
def _glyph(char: str) -> Image.Image:
    """Returns the mask of a character."""
    rows = np.frombuffer(bytes.fromhex(GLYPHS[char]), np.uint8)
    dots = np.unpackbits(rows[:, None], axis=1)[:, 3:]
    return Image.fromarray(np.kron(dots, np.full(CELL[::-1], 255, np.uint8)))


def _tilt(image: Image.Image, rng: random.Random) -> Image.Image:
    """Moves each corner of the view a little."""
    width, height = image.size
    corners = (0, 0), (0, height), (width, height), (width, 0)
    quad = [v for x, y in corners for v in (x + rng.uniform(-9, 9), y + rng.uniform(-6, 6))]
    fill = tuple(rng.randrange(40, 160) for _ in range(3))
    size, how = image.size, Image.Transform.QUAD
    return image.transform(size, how, quad, Image.Resampling.BILINEAR, fillcolor=fill)


def _expose(pixels: np.ndarray, rng: random.Random) -> np.ndarray:
    """Applies light, a shadow gradient and sensor noise; a camera delivers whole numbers."""
    noise = np.random.default_rng(rng.getrandbits(32)).normal(size=pixels.shape)
    shadow = np.linspace(1.0, rng.uniform(0.8, 1.2), WIDTH)[None, :, None]
    lit = pixels * rng.uniform(0.65, 1.05) * shadow + rng.uniform(-15, 15)
    return np.clip(np.rint(lit + rng.uniform(2, 9) * noise), 0, 255).astype(np.float32)
