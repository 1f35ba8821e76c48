"""Trains the plate reader on rendered plates and writes `weights.npz`.

About fifteen minutes on two CPU cores. BatchNorms exist only here: they are folded into what is
saved.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from decode import BLANK, CHARSET, decode
from network import (
    BACKBONE,
    CONTAINER,
    CONVS,
    LOUD_CONSUMER,
    LOUD_SOURCE,
    LOUD_TAP,
    TAPS,
    Conv,
    MaxPool,
    Tap,
)
from render import render_batch
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS = Path(__file__).with_name("weights.npz")
TRAIN_SEED, HELD_OUT_SEED, HELD_OUT = 1, 2, 2000

SHARPNESS = 4.0
"""The loss sees logits this much larger: the network's own stay small, which suits fp16."""

LOUD_CHANNELS, LOUD_RATIO = 16, 10.0
"""So many channels of the loud branch carry features so many times larger than the others."""

LOUD_ENERGY = 45_000.0
"""Typical mean square of the loud features: fp16 holds it (< 65504), but not the large squares."""


class PlateReader(nn.Module):
    """The network with BatchNorms, in units where every feature is of order one.

    The loud branch divides by a weighted mean of squares. Folding turns the weights into the
    gains of the convolution that feeds the branch, see `fold`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({_key(conv): _conv(conv) for conv in CONVS})
        self.container = nn.Conv2d(CONTAINER.channels_in, CONTAINER.channels_out, 1)
        self.to(memory_format=torch.channels_last)  # a third faster on a CPU
        self.register_buffer("loudness", _loudness()[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns logits of shape [N, classes, T]."""
        x, contexts = pixels, []
        for layer in BACKBONE:
            if isinstance(layer, Tap):
                contexts.append(self._context(layer, x))
            else:
                x = self._run(layer, x)
        return self.container(torch.cat(contexts, 1)).mean(2)

    def _run(self, layer: Conv | MaxPool, x: Tensor) -> Tensor:
        if isinstance(layer, MaxPool):
            return functional.max_pool2d(x, layer.kernel, layer.stride, layer.padding)
        return functional.relu(self.convs[_key(layer)](x))

    def _context(self, tap: Tap, x: Tensor) -> Tensor:
        pooled = functional.avg_pool2d(x, tap.pool)
        return pooled / self.energy(tap, pooled)

    def energy(self, tap: Tap, pooled: Tensor) -> Tensor:
        """Returns the (weighted) mean square per plate."""
        weighted = pooled * self.loudness if tap is LOUD_TAP else pooled
        return weighted.square().mean((1, 2, 3), keepdim=True)

    def loud_energy(self, pixels: Tensor) -> Tensor:
        """Returns the mean square per plate in the loud branch."""
        x = pixels
        for layer in BACKBONE[: BACKBONE.index(LOUD_TAP)]:
            x = x if isinstance(layer, Tap) else self._run(layer, x)
        return self.energy(LOUD_TAP, functional.avg_pool2d(x, LOUD_TAP.pool))


def _key(conv: Conv) -> str:
    return conv.name.replace(".", "_")


def _conv(conv: Conv) -> nn.Sequential:
    plain = nn.Conv2d(
        conv.channels_in, conv.channels_out, conv.kernel, padding=conv.padding, bias=False
    )
    return nn.Sequential(plain, nn.BatchNorm2d(conv.channels_out))


def _loudness() -> Tensor:
    """Gains of the loud branch's channels, of mean square one."""
    gains = torch.ones(LOUD_TAP.channels)
    gains[:LOUD_CHANNELS] = LOUD_RATIO
    return gains / gains.square().mean().sqrt()


def encode(texts: list[str]) -> tuple[Tensor, Tensor]:
    """Turns texts into the concatenated targets and lengths that the CTC loss takes."""
    classes = [CHARSET.index(char) + 1 for text in texts for char in text]
    return torch.tensor(classes), torch.tensor([len(text) for text in texts])


def vary(pixels: Tensor) -> Tensor:
    """Changes light and noise, so that a plate seen again is not the same picture."""
    gain = torch.empty(len(pixels), 3, 1, 1).uniform_(0.85, 1.15)
    shifted = pixels * gain + torch.empty(len(pixels), 1, 1, 1).uniform_(-15, 15)
    return (shifted + 4 * torch.randn_like(pixels)).round().clamp(0, 255)


def ctc(logits: Tensor, texts: list[str]) -> Tensor:
    """The CTC loss, plus a little pressure that keeps logits small."""
    targets, lengths = encode(texts)
    scores = functional.log_softmax(SHARPNESS * logits, 1).permute(2, 0, 1)
    steps = torch.full((len(texts),), logits.shape[2])
    loss = functional.ctc_loss(scores, targets, steps, lengths, BLANK, zero_infinity=True)
    return loss + 2e-3 * logits.square().mean()


def train(model: PlateReader, plates: int, epochs: int, batch: int) -> None:
    """Fits the model on rendered plates."""
    pixels, texts = render_batch(TRAIN_SEED, plates)
    steps = epochs * (plates // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(plates, (batch,)).tolist()
        loss = ctc(model(vary(_tensor(pixels[chosen]))), [texts[k] for k in chosen])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}/{steps}: loss {loss.item():.4f}", flush=True)


@torch.no_grad()
def accuracy(model: PlateReader) -> float:
    """Returns the share of held-out plates that are read exactly."""
    pixels, texts = render_batch(HELD_OUT_SEED, HELD_OUT)
    read = [text for part in np.split(pixels, 20) for text in decode(model(_tensor(part)).numpy())]
    return float(np.mean([a == b for a, b in zip(read, texts, strict=True)]))


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def fold(model: PlateReader) -> dict[str, np.ndarray]:
    """Returns weights and biases without BatchNorms and with the loud branch's true scale.

    ReLU and pooling let a positive gain per channel pass, so the gain is undone where the
    features are read. A feature g*h divided by the mean of (g*h)**2 is h / (g * mean of h**2).
    """
    folded = {conv.name: _fold_norm(*model.convs[_key(conv)]) for conv in CONVS}
    weight, bias = model.container.weight.clone(), model.container.bias
    gain = loud_gain(model)
    source_weight, source_bias = folded[LOUD_SOURCE]
    folded[LOUD_SOURCE] = source_weight * gain[:, None, None, None], source_bias * gain
    consumer_weight, consumer_bias = folded[LOUD_CONSUMER]
    folded[LOUD_CONSUMER] = consumer_weight / gain[:, None, None], consumer_bias
    start = sum(tap.channels for tap in TAPS[: TAPS.index(LOUD_TAP)])
    scale = gain.square().mean() / gain  # the mean of (g*h)**2 grows with the mean of g**2
    weight[:, start : start + len(gain)] *= scale[:, None, None]
    folded[CONTAINER.name] = weight, bias
    return {f"{k}.w": w.numpy() for k, (w, _) in folded.items()} | {
        f"{k}.b": b.numpy() for k, (_, b) in folded.items()
    }


def loud_gain(model: PlateReader) -> Tensor:
    """Returns the gains that give the loud branch its energy on typical plates."""
    pixels, _ = render_batch(TRAIN_SEED, 200)
    typical = model.loud_energy(_tensor(pixels)).mean()
    return model.loudness.flatten() * (LOUD_ENERGY / typical).sqrt()


def _fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


def main() -> None:
    """Trains, measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plates", type=int, default=16384)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    torch.manual_seed(TRAIN_SEED)
    model = PlateReader()
    train(model, args.plates, args.epochs, args.batch)
    print(f"held-out plates read exactly: {accuracy(model.eval()):.2%}")
    np.savez_compressed(WEIGHTS, **fold(model))


if __name__ == "__main__":
    main()
