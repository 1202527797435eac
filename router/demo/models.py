"""The demo's classifiers, trained on the 8x8 images of handwritten digits in scikit-learn.

Pure: the same data, split and seeds give the same models in every process, so that nothing but a
name has to be handed to a server.

- `cat-dog` is version 1: it has never seen three of the ten classes (the digits 7, 8 and 9).
- `cat-dog-koala` is version 2: the same kind of model, which has seen all of them.
- `cat-dog-next` is a candidate of another kind, to be watched in the shadow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from router.demo import routes

CLASSES: Final = 10
PIXELS: Final = 64
UNSEEN_BY_VERSION_1: Final = (7, 8, 9)
_TRAINING_IMAGES: Final = 1200
_SPLIT_SEED: Final = 0
_INK_MAX: Final = 16.0

Images = NDArray[np.float32]
"""(n, PIXELS), from 0 (paper) to 1 (ink)."""
Labels = NDArray[np.int64]
"""(n,), each in 0..CLASSES - 1."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Images with the digit each shows."""

    images: Images
    labels: Labels

    def only(self, keep: NDArray[np.bool_]) -> "Samples":
        return Samples(self.images[keep], self.labels[keep])


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained model. `accuracy` is its share of right answers on all held-out images."""

    name: str
    estimator: Any
    trained_on: int
    accuracy: float

    def predict(self, images: Images) -> tuple[Labels, NDArray[np.float32]]:
        """Labels (n,) and probabilities (n, CLASSES); classes never seen have probability 0."""
        probabilities = np.zeros((len(images), CLASSES), dtype=np.float32)
        probabilities[:, self.estimator.classes_] = self.estimator.predict_proba(images)
        return probabilities.argmax(axis=1), probabilities


def _linear() -> Any:
    return LogisticRegression(max_iter=300)


def _nearest() -> Any:
    return KNeighborsClassifier(n_neighbors=3, algorithm="brute")


@dataclass(frozen=True, slots=True)
class _Recipe:
    make: Callable[[], Any]
    unseen: tuple[int, ...]


_RECIPES: Final[Mapping[str, _Recipe]] = {
    routes.STABLE: _Recipe(_linear, UNSEEN_BY_VERSION_1),
    routes.CANARY: _Recipe(_linear, ()),
    routes.SHADOW: _Recipe(_nearest, ()),
}
NAMES: Final = tuple(_RECIPES)


def load() -> tuple[Samples, Samples]:
    """The images to train with, and those held out, which the demo sends as requests."""
    digits = load_digits()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(digits.target))
    images = (digits.data[order] / _INK_MAX).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
    return (
        Samples(images[:_TRAINING_IMAGES], labels[:_TRAINING_IMAGES]),
        Samples(images[_TRAINING_IMAGES:], labels[_TRAINING_IMAGES:]),
    )


def train(name: str) -> Classifier:
    """Train the model called `name`, one of `NAMES`. Takes well under a second.

    Raises:
        KeyError: there is no such model.
    """
    recipe = _RECIPES[name]
    training, held_out = load()
    seen = training.only(~np.isin(training.labels, recipe.unseen))
    estimator = recipe.make().fit(seen.images, seen.labels)
    accuracy = float((estimator.predict(held_out.images) == held_out.labels).mean())
    return Classifier(name, estimator, len(seen.labels), accuracy)
