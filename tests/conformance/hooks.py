"""Hooks of schemathesis."""

import schemathesis

TIMEOUT = "X-Request-Timeout"


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Gives every valid request enough time: with a few milliseconds it would end with 504."""
    timeout = (case.headers or {}).get(TIMEOUT, "")
    if timeout.isascii() and timeout.isdigit() and 0 < int(timeout) < 9000:
        case.headers[TIMEOUT] = "9000"
