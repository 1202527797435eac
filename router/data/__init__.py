"""One worker of the data plane: it routes and relays, and waits for nobody.

Life of a request: `downstream` parses the head, `exchange` routes, assigns and relays it over a
connection of `pool`, and ends in `Exchange.finish`, whatever happened. Three parts are too long for
one file; each is a base and what goes on from it: `ending` and `downstream` (how a client's
connection ends, and all before), `asking` and `exchange`, `sending` and `upstream` (up to the
answer, and from there on).
"""
