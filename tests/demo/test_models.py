"""The demo's classifiers: what each has seen, and that all processes train the same ones."""

import numpy as np
import pytest

from router.demo import models, routes


@pytest.fixture(scope="module")
def held_out() -> models.Samples:
    return models.load()[1]


def right(classifier: models.Classifier, samples: models.Samples) -> float:
    labels, _ = classifier.predict(samples.images)
    return float((labels == samples.labels).mean())


def test_version_1_never_answers_with_a_class_it_has_not_seen(held_out: models.Samples) -> None:
    labels, probabilities = models.train(routes.STABLE).predict(held_out.images)
    assert not np.isin(labels, models.UNSEEN_BY_VERSION_1).any()
    assert (probabilities[:, models.UNSEEN_BY_VERSION_1] == 0).all()


def test_version_2_is_better_only_because_of_the_classes_version_1_has_not_seen(
    held_out: models.Samples,
) -> None:
    first, second = models.train(routes.STABLE), models.train(routes.CANARY)
    seen_by_both = held_out.only(~np.isin(held_out.labels, models.UNSEEN_BY_VERSION_1))
    assert right(second, held_out) > right(first, held_out) + 0.2
    assert abs(right(second, seen_by_both) - right(first, seen_by_both)) < 0.03


@pytest.mark.parametrize("name", routes.BACKENDS)
def test_each_model_states_its_own_accuracy(name: str, held_out: models.Samples) -> None:
    classifier = models.train(name)
    assert classifier.accuracy == pytest.approx(right(classifier, held_out))
    assert classifier.trained_on > 0


@pytest.mark.parametrize("name", routes.BACKENDS)
def test_probabilities_are_those_of_all_classes_and_sum_to_one(
    name: str, held_out: models.Samples
) -> None:
    labels, probabilities = models.train(name).predict(held_out.images)
    assert probabilities.shape == (len(held_out.labels), models.CLASSES)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (probabilities.argmax(axis=1) == labels).all()


def test_no_image_is_both_trained_with_and_held_out() -> None:
    training, held_out = models.load()
    trained = {image.tobytes() for image in training.images}
    assert not any(image.tobytes() in trained for image in held_out.images)


def test_there_is_a_model_for_every_backend_of_the_yaml() -> None:
    assert set(models.NAMES) == set(routes.BACKENDS)
