import pytest

from router.experiments import figures
from router.experiments.estimate import Kind


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (figures.value(Kind.BINARY, 0.11234), "11.2%"),
        (figures.value(Kind.NUMERIC, 12345.6), "12,346"),
        (figures.value(Kind.NUMERIC, 12.3456), "12.35"),
        (figures.change(Kind.BINARY, -0.0123), "-1.23 points"),
        (figures.change(Kind.NUMERIC, 2.0), "+2"),
        (figures.change(Kind.NUMERIC, -2345.6), "-2,346"),
        (figures.effect(Kind.BINARY, 0.005), "0.5 points"),
        (figures.effect(Kind.LOGNORMAL, 0.05), "5%"),
        (figures.effect(Kind.NUMERIC, 0.25), "0.25"),
        (figures.lift(0.1), "+10%"),
        (figures.p(0.00001), "< 0.0001"),
        (figures.p(0.0342), "0.034"),
        (figures.chance(1e-9), "< 0.1%"),
        (figures.chance(0.99999), "> 99.9%"),
        (figures.chance(0.62), "62%"),
        (figures.count(12345.4), "12,345"),
        (figures.span(40), "40 seconds"),
        (figures.span(90), "90 seconds"),
        (figures.span(86400), "24 hours"),
        (figures.span(3 * 86400), "3 days"),
        (figures.listed([]), ""),
        (figures.listed(["a"]), "a"),
        (figures.listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_figures_are_shown_as_people_read_them(shown: str, text: str) -> None:
    assert shown == text
