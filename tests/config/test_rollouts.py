"""Rules of rollouts between mappings."""

import pytest

from tests.config.support import mistakes, warnings

_BACKENDS = """\
backends:
  v1: {endpoints: [http://a:1]}
  v2: {endpoints: [http://b:1], health: {tcp: true}}
  v3: {endpoints: [http://c:1]}
routes:
"""


def routes(*lines: str) -> str:
    return _BACKENDS + "".join(f"  - {line}\n" for line in lines)


ROLLING = "{name: r, policy: {type: rolling, from: v1, to: v2, guard: {}}}"
CANARY = (
    "{{name: r, policy: {{type: canary, stable: v1, canary: v2, sticky: {{client_ip: true}}, {}}}}}"
)


@pytest.mark.parametrize("kind", ["rolling", "recreate"])
@pytest.mark.parametrize(
    ("other", "line"),
    [
        ("{name: s, backend: v1}", "f:6:{}: routes[0].policy.from: {} takes endpoints of v1 out of"
         " use, also for routes[1].backend"),
        ("{name: s, backend: v3, shadow: [{backend: v2, sample: 1%}]}", "f:6:{}: routes[0]"
         ".policy.to: {} takes endpoints of v2 out of use, also for routes[1].shadow[0].backend"),
    ],
)  # fmt: skip
def test_endpoints_that_are_taken_out_of_use_are_no_other_route_s(
    kind: str, other: str, line: str
) -> None:
    policy = f"{{name: r, policy: {{type: {kind}, from: v1, to: v2}}}}"
    column = policy.index("v2" if ".to" in line else "v1") + 5
    hint = " (give that a backend of its own, with the same endpoints)"
    assert mistakes(routes(policy, other)) == [line.format(column, kind) + hint]


def test_a_route_s_own_shadow_counts_as_another_use() -> None:
    route = (
        "{name: r, policy: {type: rolling, from: v1, to: v2}, shadow: [{backend: v2, sample: 1%}]}"
    )
    (line,) = mistakes(routes(route))
    assert "also for routes[0].shadow[0].backend" in line


def test_two_exchanges_of_one_backend_are_both_told() -> None:
    second = "{name: s, match: {path: /s}, policy: {type: rolling, from: v1, to: v3}}"
    assert [line.split(": ")[1] for line in mistakes(routes(ROLLING, second))] == [
        "routes[0].policy.from",
        "routes[1].policy.from",
    ]


def test_an_exchange_alone_is_right() -> None:
    assert mistakes(routes(ROLLING, "{name: s, match: {path: /s}, backend: v3}")) == []


@pytest.mark.parametrize(
    ("guard", "line"),
    [
        (
            "guard: {kpis: {clicks: 1%}}",
            "routes[0].policy.guard.kpis.clicks: nothing declares a KPI named 'clicks'"
            " (known: aborts, errors, first_byte, latency, truncated)",
        ),
        (
            "guard: {kpis: {abort: 1%}}",
            "routes[0].policy.guard.kpis.abort: nothing declares a KPI named 'abort'"
            " (did you mean 'aborts'?)",
        ),
    ],
)
def test_a_guard_judges_what_is_measured(guard: str, line: str) -> None:
    (found,) = mistakes(routes(CANARY.format(f"weight: 5%, {guard}")))
    assert found.endswith(line)


def test_a_kpi_that_is_measured_is_right() -> None:
    guard = "weight: 5%, guard: {kpis: {aborts: 1%, latency.p95: 1s}}"
    assert mistakes(routes(CANARY.format(guard))) == []


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ("steps: [{weight: 25%}, {weight: 5%}]", "steps[1].weight: 5% is less than 25%"),
        ("steps: [{weight: 60%}]", "steps[0].weight: 60% is more than 50%"),
        ("steps: {from: 30%, to: 5%, step: 5%, interval: 1m}", "steps.from: 30% is"),
        ("steps: [{wieght: 5%}]", "steps[0].wieght: unknown key 'wieght' (did you"),
        ("steps: {fro: 5%, to: 5%, step: 5%, interval: 1m}", "steps.fro: unknown key"),
        ("weight: 5%, guard: {max_error_rat: 1%}", "guard.max_error_rat: unknown key"),
        ("weight: 5%, steps: [{weight: 5%}]", ": a canary has exactly one of weight"),
        ("steps: [{weight: 5%}], start: [auto]", "start: expected 'auto' or 'manual'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_rollout_is_told_where_it_is(policy: str, line: str) -> None:
    found = mistakes(routes(CANARY.format(policy)))
    place = "routes[0].policy" + line if line[0] == ":" else f"routes[0].policy.{line}"
    assert any(f": {place}" in one for one in found), found
    assert all(one.startswith("f:6:") for one in found)


def test_a_new_version_without_a_health_check_is_pointed_out() -> None:
    route = "{name: r, policy: {type: rolling, from: v1, to: v3, guard: {}}}"
    assert (
        "routes[0].policy: v3 has no health check: its endpoints count as ready at once"
        in (warnings(routes(route))[-1])
    )
    assert not any("health" in one for one in warnings(routes(ROLLING)))


@pytest.mark.parametrize(
    ("kpi", "bounded", "message"),
    [
        ("x: {}", "x", ""),
        ("x: {source: status}", "x", ""),
        ("x: {source: {header: h}, type: binary}", "x", ""),
        ("x: {source: first_byte}", "x.p99", ""),
        ("x: {type: lognormal, goal: min, bounds: [1, 9]}", "x.p95", ""),
        ("errors: {absent: 0}", "errors", ""),  # what every request is measured by
        ("x: {absent: 0}", "x", "a guard counts feedback as it comes, but of x silence counts"),
        ("x: {}", "x.p95", "x is binary and has no quantiles, write x"),
        ("x: {source: {header: h}}", "x.p95", "of x, a number in a header, only sums are counted"),
        ("x: {type: numeric, bounds: [1, 9]}", "x.p95", "a guard asks how often x is too high"),
        (
            "x: {type: numeric, goal: min, bounds: [0, 9]}",
            "x.p95",
            "a guard needs x above 0, but its bounds begin at 0",
        ),
        ("x: {source: latency}", "x", "x is no rate, write x.p95"),
    ],
)
def test_a_guard_is_refused_that_cannot_judge_its_kpi(kpi: str, bounded: str, message: str) -> None:
    policy = CANARY.format(f"weight: 5%, guard: {{kpis: {{{bounded}: 1.2x}}}}")
    found = mistakes(routes(policy[:-1] + f", kpis: {{{kpi}}}}}"))

    assert len(found) == bool(message)
    if message:
        assert f"routes[0].policy.guard.kpis.{bounded}: {message}" in found[0].replace('"', "")
