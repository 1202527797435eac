"""A well-behaved client in a process of its own: `python -m benchmarks.faults.healthy HOST PORT`.

Asks every 10 ms over one connection until its standard input ends, then prints how long the
slowest answer took, in seconds. Alone in its process it measures the router, not a busy client.
"""

import select
import socket
import sys
from time import perf_counter

EVERY_S = 0.01


def main(host: str, port: int) -> int:
    worst_s = 0.0
    with socket.create_connection((host, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = connection.makefile("rb")
        while not select.select([sys.stdin], [], [], EVERY_S)[0]:
            asked_s = perf_counter()
            connection.sendall(b"GET /small HTTP/1.1\r\nhost: x\r\n\r\n")
            if not reader.readline().startswith(b"HTTP/1.1 200"):
                return 1
            while reader.readline() != b"\r\n":
                pass
            reader.read(len(b"ok"))
            worst_s = max(worst_s, perf_counter() - asked_s)
    print(worst_s)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
