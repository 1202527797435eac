"""How much the bandits lose, beside other libraries, and what working out weights costs."""
