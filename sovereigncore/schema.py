"""The OpenAPI document, as far as it is not generated."""

from __future__ import annotations

from typing import Any

Endpoint = tuple[str, str, str, Any]


def without_trailing_slash(endpoints: list[Endpoint]) -> list[Endpoint]:
    """Every route takes a trailing slash or none; the document shows the form without."""
    return [(path.rstrip("/"), regex, method, view) for path, regex, method, view in endpoints]
