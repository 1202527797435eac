"""Bandits: what rewards say of the arms, as shares of traffic.

Pure arithmetic on sufficient statistics: no clock, no chance, no names of the YAML. One file an
algorithm, each a function of the arms' sums alone, so equal evidence gives equal shares; shares,
not draws, because a share is the propensity of what it gets.

1. `evidence.py` keeps sums and forgets what is outdated. 2. An algorithm turns the sums of the arms
of a cell into shares. 3. `shaping.py` bounds the shares: floors, newcomers, steps. 4. `limits.py`
takes out arms that break a constraint. 5. `learner.py` does all that for every cell of a route.
"""
