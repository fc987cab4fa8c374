"""Requests of all kinds, made from the API's own document: each answer is one that the document names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("schemathesis", reason="needs Schemathesis: pip install '.[dev]'")
pytest.importorskip("fastapi", reason="needs FastAPI: pip install '.[api]'")

import httpx
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from peakzoom.apps.serve.limits import Limits
from peakzoom.apps.serve.server import Address, server
from peakzoom.inference.recognizer import load
from peakzoom.video.sampling import Views

pytestmark = pytest.mark.slow

TOKEN = "the-token-of-this-test"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def document(run: Path) -> Iterator[Any]:
    """Of a server that wants a token."""
    one = Views(clips=1, crops=1)
    with server(load(run, "cpu"), one, Limits(jobs=1000), Address(token=TOKEN), page=False) as at:
        yield schemathesis.openapi.from_url(f"{at}openapi.json", headers=AUTHORISED)
        counts = httpx.get(f"{at}metrics", headers=AUTHORISED, timeout=60).text
        asked = re.findall(r'requests_total{path="/v1/\w+",status="(\d+)"} (\S+)', counts)
        assert sum(float(count) for _, count in asked) > 100  # or the test says little
        assert {"401", "422"} <= {status for status, _ in asked}


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
def test_each_answer_is_one_of_the_document(case: Any) -> None:
    # Bytes of chance are a file, as the document wants it, and no video: 422 is right.
    case.call_and_validate(headers=AUTHORISED, excluded_checks=[positive_data_acceptance])
