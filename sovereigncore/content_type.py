"""What a caller's Content-Type may say, settled before Django reads it.

Django decodes query strings and forms by the charset that a caller names, while it builds the
request and so before any middleware: `charset=hex`, or a parameter in a made-up encoding, would
end in a bare 500. Everything here is UTF-8, so the charset is taken out and another one is noted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

# In the WSGI environment, hence request.META.
INCOMPLETE_BODY = "sovereigncore.incomplete_body"  # by the web worker: it ended early
CHARSET_REFUSED = "sovereigncore.charset_refused"

_UTF_8 = re.compile(r"charset=\"?utf-?8\"?\s*(;|$)", re.IGNORECASE)
_BOUNDARY = re.compile(r"boundary=\"?([0-9A-Za-z'()+_,./:=? -]{1,70})\"?\s*(;|$)", re.IGNORECASE)


class PlainContentType:
    """WSGI middleware: of a Content-Type's parameters, the application sees only the boundary."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        media_type, _, parameters = environ.get("CONTENT_TYPE", "").partition(";")
        if parameters:
            boundary = _BOUNDARY.search(parameters)
            kept = f'; boundary="{boundary[1]}"' if boundary else ""
            environ["CONTENT_TYPE"] = media_type.strip() + kept
            if "charset" in parameters.lower() and not _UTF_8.search(parameters):
                environ[CHARSET_REFUSED] = True
        return self._application(environ, start_response)
