"""Which faults of an S3 server pass by themselves, and how long to wait before the next try.

In: what botocore tells of a request that ended badly. Out: seconds to wait, or None to give up.
Does not know: what was asked for.

Every request is tried again by itself, so that listing, reading, writing and renaming all profit,
whoever makes them. Waits grow from `base` to `cap` and are drawn at random below that ("full
jitter"), so that many workers that met one fault do not come back at one time.
"""

import random
from collections.abc import Callable
from typing import Any

TRANSIENT_STATUS = frozenset({429, 500, 502, 503, 504})
TRANSIENT_CODES = frozenset(
    {
        "BandwidthLimitExceeded",
        "InternalError",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


def is_transient(response: Any, exception: BaseException | None) -> bool:
    """Whether the same request may well succeed a little later.

    Args:
        response: (HTTP response, parsed answer), None where there was none.
        exception: what was raised instead.
    """
    from botocore.exceptions import ConnectionError as NoConnectionError
    from botocore.exceptions import HTTPClientError

    if exception is not None:
        return isinstance(exception, HTTPClientError | NoConnectionError)
    http, parsed = response
    code = (parsed.get("Error") or {}).get("Code", "")
    return http.status_code in TRANSIENT_STATUS or code in TRANSIENT_CODES


def backoff_s(tried: int, base_s: float, cap_s: float) -> float:
    """How long to wait after the `tried`-th try (from 1): at random up to base * 2^(tried - 1)."""
    return random.uniform(0.0, min(cap_s, base_s * 2.0 ** (tried - 1)))


def retry_handler(retries: int, base_s: float, cap_s: float) -> Callable[..., float | None]:
    """A handler of botocore's event "needs-retry": seconds to wait, or None for no further try."""

    def handle(
        *,
        attempts: int,
        response: Any = None,
        caught_exception: BaseException | None = None,
        **_: Any,
    ) -> float | None:
        if attempts > retries or not is_transient(response, caught_exception):
            return None
        # a wait of exactly 0 would read as "no"
        return max(1e-3, backoff_s(attempts, base_s, cap_s))

    return handle
