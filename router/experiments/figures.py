"""Figures as people read them."""

from router.experiments.estimate import Kind

_SPANS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))
_SPAN_LEAST = 2.0


def value(kind: Kind, number: float) -> str:
    """A mean: a share in percent, else four digits."""
    return percent(number) if kind is Kind.BINARY else _digits(number)


def change(kind: Kind, number: float) -> str:
    """A difference with its sign: of shares in percentage points."""
    if kind is Kind.BINARY:
        return f"{number * 100:+.3g} points"
    return ("+" if number >= 0.0 else "") + _digits(number)


def effect(kind: Kind, number: float) -> str:
    """An effect as it was declared."""
    if kind is Kind.BINARY:
        return f"{number * 100:.3g} points"
    return percent(number) if kind is Kind.LOGNORMAL else _digits(number)


def _digits(number: float) -> str:
    """Four digits, but all those before the point."""
    return f"{number:,.0f}" if abs(number) >= 1000.0 else f"{number:.4g}"


def percent(share: float) -> str:
    """`12.3%`; three digits, so that small rates are told apart."""
    return f"{share * 100:.3g}%"


def chance(probability: float) -> str:
    """A probability that is an approximation: nothing is certain."""
    if probability < 0.001:
        return "< 0.1%"
    return "> 99.9%" if probability > 0.999 else percent(probability)


def lift(share: float) -> str:
    """`+12.3%`."""
    return f"{share * 100:+.3g}%"


def p(value: float) -> str:
    """`0.034`; `< 0.0001` below that."""
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def count(n: float) -> str:
    """`12,345`."""
    return f"{n:,.0f}"


def span(seconds: float) -> str:
    """`3.2 days`, in the largest unit of which there are two."""
    for length, name in _SPANS:
        if seconds >= _SPAN_LEAST * length:
            return f"{seconds / length:.3g} {name}"
    return f"{seconds:.0f} seconds"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
