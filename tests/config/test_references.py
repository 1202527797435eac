"""Who names which backend."""

from router.config.references import options_of, references


def test_every_mention_of_a_backend_is_found_with_its_place() -> None:
    policy = {"type": "rolling", "from": "v1", "to": "v2"}
    route = {"policy": policy, "shadow": [{"backend": "v3"}, {"sample": 1}]}

    assert list(references(("routes", 0), route, options_of(policy))) == [
        ("v1", ("routes", 0, "policy", "from")),
        ("v2", ("routes", 0, "policy", "to")),
        ("v3", ("routes", 0, "shadow", 0, "backend")),
    ]


def test_texts_that_name_no_backend_are_left_out() -> None:
    policy = {"type": "blue_green", "active": "v1", "preview": "v2", "preview_header": "x-p",
              "start": "auto"}  # fmt: skip
    found = references((), {"policy": policy}, options_of(policy))
    assert [name for name, _ in found] == ["v1", "v2"]


def test_lists_in_place_of_other_things_are_passed_over() -> None:
    policy = {"type": "canary", "stable": ["v1"], "canary": "v2", "start": ["auto"],
              "guard": [{}], "weight": [1], "steps": [1, {"weight": []}]}  # fmt: skip
    assert options_of(policy) is None
    assert list(references((), {"policy": policy}, None)) == [("v2", ("policy", "canary"))]
