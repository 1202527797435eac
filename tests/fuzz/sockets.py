"""Mutants through a running router: what comes out at the other end is what a strict reader reads.

Differential, in both directions, over real sockets. A mutant may be refused or relayed; it may
never be relayed as something else than what `reference` reads in the bytes that were sent. What
the reference cannot read must not come through at all.
"""

from collections import Counter
from contextlib import suppress
from random import Random

from tests.fuzz import reference
from tests.fuzz.mutate import REQUESTS, RESPONSES, Mutator
from tests.fuzz.properties import OWN, relayed
from tests.fuzz.reference import End, Incomplete, Message, Refused, Stream, read_requests
from tests.raw.client import Answer, Client, Outcome
from tests.raw.harness import Stand
from tests.raw.origin import OK, Step

LAST = b"GET /-/healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
BARE = OK[: OK.index(b"ok")].replace(b": 2", b": 0")


def requests(stand: Stand, inputs: int, seed: int) -> Counter[str]:
    """Mutated requests; how many were relayed, refused, or left unfinished.

    Raises:
        AssertionError: the origin saw something else; the note holds the bytes.
    """
    mutator = Mutator(Random(seed), REQUESTS)
    counted: Counter[str] = Counter()
    stand.origin.script_all(Step.READ, BARE)  # without a body, fit for HEAD too
    for number in range(inputs):
        data = mutator.mutant()
        try:
            counted[_request(stand, data)] += 1
        except (AssertionError, OSError, Refused, Incomplete) as error:
            error.add_note(f"input {number} of seed {seed}: {data!r}")
            raise
        forget(stand)
    return counted


def _request(stand: Stand, data: bytes) -> str:
    stream = read_requests(data)
    with stand.client() as client:
        client.send(data)
        if stream.end is End.INCOMPLETE:
            # first the answers to what is whole: a client that leaves gets none
            await_answers(client, stream)
            client.half_close()
        elif stream.end is End.CLEAN:
            client.send(LAST)
        outcome = client.end()
    assert stand.origin.violations == []
    seen = stand.origin.requests
    may_reach = [message for message in stream.messages if not is_answered_here(message)]
    assert len(seen) <= len(may_reach), (seen, may_reach)
    for ours, theirs in zip(seen, may_reach, strict=False):
        same(ours, theirs)
    if len(seen) == len(may_reach) and stream.end is End.CLEAN:
        return "relayed"
    if stream.end is End.INCOMPLETE:
        return "incomplete"
    assert is_refusal(outcome, stream), (outcome, stream)
    return "refused"


def await_answers(client: Client, stream: Stream) -> None:
    """Read until every whole request has its answer, or the router ended the connection."""
    methods = [message.start[0] for message in stream.messages]
    while methods:
        with suppress(Incomplete):
            found = Outcome(bytes(client.received), "").answers(*methods)
            if len([a for a in found if a.status >= 200 and a.is_whole]) >= len(methods):
                return
        data = client.sock.recv(64 * 1024)
        if not data:
            return
        client.received += data


def is_answered_here(message: Message) -> bool:
    target, _ = reference.route_of(message)
    hops = [value.strip(b"0") for value in message.values(b"max-forwards")]
    is_last_hop = message.start[0] == b"OPTIONS" and hops == [b""]
    return is_last_hop or target.startswith(b"/-/")


def same(ours: Message, theirs: Message) -> None:
    """The origin's reading of a request is the reference's reading of what the client sent."""
    target, host = reference.route_of(theirs)
    assert ours.start == (theirs.start[0], target, b"HTTP/1.1")
    assert ours.body == theirs.body
    assert not host or ours.values(b"host") == [host]
    assert relayed(ours) == relayed(theirs)


def is_refusal(outcome: Outcome, stream: Stream) -> bool:
    """The last answer is an error and the connection was closed, or a request said so."""
    methods = [message.start[0] for message in stream.messages]
    found = outcome.answers(*methods)
    answers = [answer for answer in found if answer.status >= 200]
    if not answers:
        return False
    return answers[-1].status >= 400 or answers[-1].value(b"connection") == b"close"


def responses(stand: Stand, inputs: int, seed: int) -> Counter[str]:
    """Mutated responses; how many were passed on, turned into a 502, or cut.

    Raises:
        AssertionError: the client saw something else; the note holds the bytes.
    """
    random = Random(seed)
    mutator = Mutator(random, RESPONSES)
    counted: Counter[str] = Counter()
    for number in range(inputs):
        data = mutator.mutant()
        method = random.choice((b"POST", b"POST", b"HEAD"))
        try:
            counted[_response(stand, data, method)] += 1
        except (AssertionError, OSError, Refused, Incomplete) as error:
            error.add_note(f"input {number} of seed {seed}, {method!r}: {data!r}")
            raise
        forget(stand)
    return counted


def _response(stand: Stand, data: bytes, method: bytes) -> str:
    stream = reference.read_response(data, is_head=method == b"HEAD")
    # a whole answer leaves the connection to the router; else the endpoint closes
    stays = stream.end is End.CLEAN and not stream.rest and not ends_by_close(stream)
    stand.origin.script_all(Step.READ, data, *(() if stays else (Step.CLOSE,)))
    raw = b"%b /r HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    outcome = stand.send(raw % method)
    try:
        found = outcome.answers(method)
    except Incomplete:
        found = []
    final = [answer for answer in found if answer.status >= 200]
    if not final or not final[-1].is_whole or outcome.ending == "reset":
        assert stream.end is not End.CLEAN or outcome.ending == "reset", (outcome, stream)
        return "cut"
    assert len(final) == 1
    if is_own(final[0]):
        return "502"
    assert stream.end is End.CLEAN, "a good-looking answer was made of a bad one"
    ours, theirs = final[0], stream.messages[-1]
    assert str(ours.status).encode() == theirs.start[1]
    assert ours.body == theirs.body
    given = Message((b"HTTP/1.1", b"", b""), ours.fields).end_to_end(OWN)
    assert given == theirs.end_to_end(OWN)
    assert len([a for a in found if a.status < 200]) == len(stream.messages) - 1
    return "passed"


def ends_by_close(stream: Stream) -> bool:
    """The final answer's body has no other end, or it says that nothing follows."""
    final = stream.messages[-1]
    how = reference.framing(final.fields, final.start[0][7] - 0x30)
    return how is None


def is_own(answer: Answer) -> bool:
    with suppress(AssertionError, ValueError):
        return answer.status == 502 and (not answer.body or answer.reason.startswith("upstream-"))
    return False


def forget(stand: Stand) -> None:
    """Drop what the origin remembers: a long run must not fill memory."""
    stand.origin.requests.clear()
    links = stand.origin.links
    links[:] = [link for link in links if not link.ending]
    for link in links:
        link.received.clear()
        link.requests.clear()
        link.raws.clear()
