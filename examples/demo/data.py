"""Real data that needs no download: scanned digits and the source text of Python's standard library."""

import math
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

# The lit segments of a seven-segment display, a to g (top, clockwise, then the middle bar), for each digit.
SEGMENTS = torch.tensor(
    [
        [1, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 1],
        [1, 1, 1, 1, 0, 0, 1],
        [0, 1, 1, 0, 0, 1, 1],
        [1, 0, 1, 1, 0, 1, 1],
        [1, 0, 1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 0, 1, 1],
    ],
    dtype=torch.float32,
)

WORDS = 30_000  # vocabulary, without <unk>
CONTEXT = 8  # words the language model sees before the one it predicts
MAX_TOKENS = 3_000_000  # the standard library has about 2.3 million in these folders
HELD_OUT_EVERY = 20  # every twentieth file is held out
HELD_OUT_WORDS = 4096  # predictions scored, evenly spread over the held-out files
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "encodings"}
TOKEN = re.compile(r"\w+|[^\w\s]")
UNKNOWN = 0


@dataclass(frozen=True)
class Split:
    """Inputs and targets to train on, and others to score."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


@dataclass(frozen=True)
class Text:
    """The language model's data: windows of words, and what is known about the text."""

    split: Split
    vocabulary: int
    tokens: int
    unigram_perplexity: float


def digits() -> Split:
    """scikit-learn's 1,797 handwritten digits: 64 pixels in [0, 1] and the class."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # a second, before anything is seen
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    bunch = load_digits()
    pixels, classes = (bunch.data / 16.0).astype("float32"), bunch.target.astype("int64")
    parts = train_test_split(pixels, classes, test_size=0.2, stratify=classes, random_state=0)
    x, test_x, y, test_y = (torch.from_numpy(part) for part in parts)
    return Split(x, y, test_x, test_y)


def segments(split: Split) -> Split:
    """The same scans with seven yes/no labels each: which segments of a display would show the digit."""
    return Split(split.x, SEGMENTS[split.y], split.test_x, SEGMENTS[split.test_y])


def source_files() -> Iterator[Path]:
    """The standard library's own modules, in an order that does not depend on the file system."""
    root = Path(sysconfig.get_paths()["stdlib"])
    relative = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    return (root / name for name in relative if not SKIPPED_FOLDERS.intersection(name.split("/")))


def read_tokens() -> tuple[list[str], list[str]]:
    """Words, numbers and punctuation of the files to train on and of the held-out ones."""
    train: list[str] = []
    held_out: list[str] = []
    for number, path in enumerate(source_files()):
        target = held_out if number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else train
        target.extend(TOKEN.findall(path.read_text(encoding="utf-8", errors="replace")))
        if len(train) + len(held_out) >= MAX_TOKENS:
            break
    return train, held_out


def windows(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Every run of CONTEXT words, as a view, and the word after each."""
    runs = ids.unfold(0, CONTEXT + 1, 1)
    return runs[:, :CONTEXT], runs[:, CONTEXT]


def unigram_perplexity(train: Tensor, held_out: Tensor, vocabulary: int) -> float:
    """What a model scores that only knows how often each word occurs (add-one smoothing)."""
    counts = torch.bincount(train, minlength=vocabulary).double() + 1
    return math.exp(-(counts / counts.sum()).log()[held_out].mean().item())


def standard_library() -> Text:
    """A word-level language modelling task over the WORDS most common words and <unk>."""
    train, held_out = read_tokens()
    common = [word for word, _ in Counter(train).most_common(WORDS)]
    if len(common) < WORDS:
        raise RuntimeError(f"only {len(common)} different words in this Python's standard library sources")
    index = {word: number for number, word in enumerate(common, start=UNKNOWN + 1)}
    ids, other = (torch.tensor([index.get(word, UNKNOWN) for word in part]) for part in (train, held_out))
    x, y = windows(ids)
    test_x, test_y = windows(other)
    picks = torch.linspace(0, len(test_y) - 1, HELD_OUT_WORDS).long()
    split = Split(x, y, test_x[picks], test_y[picks])
    size = WORDS + 1
    return Text(split, size, len(train) + len(held_out), unigram_perplexity(ids, split.test_y, size))
