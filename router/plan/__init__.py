"""What a new config would do before it does: `pointsman plan`, `pointsman check --diff`.

`standing.py` is how each route stands, `moves.py` which units a reload would move, `forecast.py`
what becomes of each rollout, as values, text and JSON. Pure: it asks the same policies that traffic
uses.
"""

from router.plan.forecast import Fate, Forecast, forecast, render
from router.plan.standing import PlanError, Standing, standings, standings_from

__all__ = [
    "Fate",
    "Forecast",
    "PlanError",
    "Standing",
    "forecast",
    "render",
    "standings",
    "standings_from",
]
