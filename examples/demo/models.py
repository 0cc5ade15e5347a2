"""The models, each written once against a library: torch, or fused_ml in its place.

Their activation is tanh, not ReLU: rounding alone can switch a unit on or off that sits at ReLU's kink, and
then curves part by jumps that say nothing about either library.
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

from torch import Tensor

from examples.demo import data

SOFTMAX = "softmax regression"
LANGUAGE = "language model"


@dataclass(frozen=True)
class Library:
    """The three namespaces in which the two sides differ, and nothing else does."""

    nn: ModuleType
    functional: ModuleType
    optim: ModuleType


def library(package: str) -> Library:
    """``torch`` or ``fused_ml``: ``package.nn``, ``package.nn.functional`` and ``package.optim``."""
    names = (f"{package}.nn", f"{package}.nn.functional", f"{package}.optim")
    return Library(*(importlib.import_module(name) for name in names))


def softmax_regression(lib: Library) -> Any:
    """One weight image per digit."""
    return lib.nn.Linear(64, 10)


def perceptron(lib: Library, outputs: int) -> Any:
    """A multi-layer perceptron with two hidden layers."""
    nn = lib.nn
    return nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, outputs))


def language_model(lib: Library, vocabulary: int, embedding: int = 64, hidden: int = 128) -> Any:
    """The neural probabilistic language model of Bengio et al. (2003): the next word from the last few."""
    nn = lib.nn
    return nn.Sequential(
        nn.Embedding(vocabulary, embedding),
        nn.Flatten(),
        nn.Linear(data.CONTEXT * embedding, hidden),
        nn.Tanh(),
        nn.Linear(hidden, vocabulary),
    )


def sgd(lib: Library, parameters: Iterable[Tensor]) -> Any:
    """Stochastic gradient descent with momentum."""
    return lib.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(lib: Library, parameters: Iterable[Tensor]) -> Any:
    """Adam for the digits."""
    return lib.optim.Adam(parameters, lr=5e-3)


def adamw(lib: Library, parameters: Iterable[Tensor]) -> Any:
    """AdamW for the language model."""
    return lib.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01)


def right_class(scores: Tensor, y: Tensor) -> Tensor:
    """Whether the highest score is the target's."""
    return scores.argmax(1) == y


def right_labels(scores: Tensor, y: Tensor) -> Tensor:
    """Whether all labels of an example are right."""
    return ((scores > 0) == (y > 0.5)).all(1)


@dataclass(frozen=True)
class Task:
    """One row of the final table: a model, its data, its loss and its optimizer."""

    title: str
    split: data.Split
    model: Callable[[Library], Any]
    steps: int
    batch: int
    threads: int | None = None  # torch's default
    criterion: str = "CrossEntropyLoss"  # of nn, for training
    score: str = "cross_entropy"  # of nn.functional, for the held-out loss
    right: Callable[[Tensor, Tensor], Tensor] = right_class
    optimizer: Callable[[Library, Iterable[Tensor]], Any] = sgd
    optimizer_name: str = "SGD+momentum"  # its name in the table

    @property
    def name(self) -> str:
        """Model and optimizer."""
        return f"{self.title}, {self.optimizer_name}"


@dataclass(frozen=True)
class Scale:
    """How much work to do."""

    digit_steps: int
    text_steps: int
    text_batch: int


FULL = Scale(digit_steps=600, text_steps=100, text_batch=320)
QUICK = Scale(digit_steps=200, text_steps=60, text_batch=256)


def digit_tasks(scale: Scale) -> list[Task]:
    """Three models of handwritten digits, each with both optimizers."""
    digits, size = data.digits(), (scale.digit_steps, 128, 1)  # so small that a second thread only waits
    labels = data.segments(digits)
    models = (
        Task(SOFTMAX, digits, softmax_regression, *size),
        Task("digit MLP", digits, partial(perceptron, outputs=10), *size),
        Task(
            "7-segment MLP",
            labels,
            partial(perceptron, outputs=7),
            *size,
            criterion="BCEWithLogitsLoss",
            score="binary_cross_entropy_with_logits",
            right=right_labels,
        ),
    )
    pairs = ((model, replace(model, optimizer=adam, optimizer_name="Adam")) for model in models)
    return [task for pair in pairs for task in pair]


def text_task(scale: Scale, text: data.Text) -> Task:
    """The language model."""
    model = partial(language_model, vocabulary=text.vocabulary)
    task = Task(LANGUAGE, text.split, model, scale.text_steps, scale.text_batch)
    return replace(task, optimizer=adamw, optimizer_name="AdamW")
