"""Sans-io HTTP/1.1: bytes to values and back. No sockets, no clock, no state between messages.

Strategy:
1. A head is split into lines; each line is validated once and remembered (`fields.FieldLines`),
   because the lines of real traffic repeat. No byte is relayed that was not matched against the
   grammar, now or when its line was first seen.
2. What is ambiguous is refused (`HeadError`), never repaired: framing is decided in one place per
   direction.
3. Heads that leave are made of validated lines and parsed framing, never of the bytes that came.
"""
