"""A short, seeded piece of the long run: events in any order, between scripted connections."""

from tests.fuzz import interleavings


async def test_whatever_the_order_of_events_nobody_gets_what_is_not_theirs_and_nothing_hangs() -> (
    None
):
    counted = await interleavings.run(500, 1)
    assert counted["fair"] > 100
    assert counted["whole"] > 1000
    assert counted["refused"] > 100
    assert counted["broken"] > 50
    assert counted["tunnels"] > 50
