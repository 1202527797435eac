"""One worker of the data plane: it routes and relays, and waits for nobody.

Life of a request: `downstream` parses the head, `exchange` routes, assigns and relays it over a
connection of `pool`, and ends in `Exchange.finish`, whatever happened.
"""
