"""How often and how soon a canary's guard is right: simulated, seeded, by the real `Judge`."""
