"""The service against its own OpenAPI description, with inputs that Hypothesis makes."""

from typing import Any

import httpx
import schemathesis
from hypothesis import Phase, given, settings
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serve.conftest import Running

PHASES = [Phase.explicit, Phase.generate]
CHECKS: list[CheckFunction] = [
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@schemathesis.serializer("multipart/related")
def _as_it_is(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def test_no_input_breaks_the_service(keyed_service: Running) -> None:
    """A few inputs for every operation, valid ones and others: never a 5xx, always as described.

    A 503 that says when to come back is no fault: the inputs are jobs, and they fill the queue.
    """
    described = schemathesis.openapi.from_url(f"{keyed_service.url}openapi.json")
    tried = 0
    for found in described.get_all_operations():
        operation = found.ok()
        tried += 1

        @given(case=operation.as_strategy())
        @settings(max_examples=4, derandomize=True, database=None, phases=PHASES)
        def holds(case: Any) -> None:
            role = "analyze" if case.operation.method == "post" else "admin"
            headers = {"Authorization": f"Bearer {keyed_service.keys[role]}"}
            url = keyed_service.url.rstrip("/")
            response = case.call(base_url=url, headers=headers, timeout=60)
            full = response.status_code == 503 and "Retry-After" in response.headers
            assert response.status_code < 500 or full, (case.path, response.text)
            case.validate_response(response, checks=CHECKS)

        holds()
    assert tried >= 25


def test_the_description_has_examples_and_a_page_that_needs_no_network(
    client: httpx.Client,
) -> None:
    described = client.get("openapi.json").json()
    for path in ("/v1/analyze", "/v1/jobs", "/v1/jobs/{job_id}/report", "/dicomweb/studies"):
        assert path in described["paths"]
    body = described["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert "example" in body["application/json"]
    assert described["components"]["schemas"]["Job"]["examples"]
    page = client.get("docs").text
    for foreign in ("https://", "http://", "//cdn"):
        assert foreign not in page
