"""`python scripts/healthcheck.py URL`: exit code 0 when it answers 200. For containers, which have
no curl. By the standard library alone, for it runs every few seconds.
"""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit

_TIMEOUT_S = 4.0


def problem(url: str) -> str:
    """Why `url` is not healthy, or an empty string. Proxies in the environment are not asked."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {type(error).__name__}"
    finally:
        connection.close()
    return "" if status == http.client.OK else f"{url}: status {status}"


if __name__ == "__main__":
    sys.exit(problem(sys.argv[1]) or 0)
