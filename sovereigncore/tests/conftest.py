"""Two kinds of callers, as errors are told apart by them."""

from __future__ import annotations

import pytest
from django.test import Client
from rest_framework.test import APIClient

from sovereigncore.tests.problems import REQUEST_ID


@pytest.fixture
def browser() -> Client:
    """Sends what a browser sends, and looks at a 500 as one would."""
    return Client(
        raise_request_exception=False,
        enforce_csrf_checks=True,
        headers={"Accept": "text/html,*/*;q=0.8", "X-Request-ID": REQUEST_ID},
    )


@pytest.fixture
def program() -> APIClient:
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_X_REQUEST_ID=REQUEST_ID)
    return client
