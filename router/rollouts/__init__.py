"""Rollouts: moving traffic from one variant to another in guarded steps. Pure: no I/O, no clock.

`plan.py` is what a policy wants, `measured.py` what happened, `state.py` how far it has come;
`engine.py` moves the state, `guard.py` judges the new variant by `evidence.py`.
"""
