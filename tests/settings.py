"""Settings of the test suite: the real ones, on an environment that owes nothing to the machine's.

DATABASE_URL and REDIS_URL pass through, so that the suite runs on either backend.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile

from tests.environment import test_environment

_PASSED_THROUGH = ("DATABASE_URL", "REDIS_URL")

_data_dir = tempfile.mkdtemp(prefix="sovereigncore-tests-")
atexit.register(shutil.rmtree, _data_dir, ignore_errors=True)
os.environ.update(
    {
        **test_environment(_data_dir),
        **{name: os.environ[name] for name in _PASSED_THROUGH if os.environ.get(name)},
    }
)
_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if _worker and os.environ.get("REDIS_URL"):
    # A Redis database each: tests clear theirs.
    os.environ["REDIS_URL"] = re.sub(
        r"(/\d+)?$", f"/{_worker.removeprefix('gw')}", os.environ["REDIS_URL"], count=1
    )

from sovereigncore.settings import *  # noqa: E402, F403

# The real hasher at its cheapest: what it costs in production is not what tests are about.
PASSWORD_HASHERS = ["tests.hashers.CheapBCryptSHA256PasswordHasher"]
# Each test client starts the middleware anew; hashing every static file each time took most of it.
WHITENOISE_AUTOREFRESH = True
INSTALLED_APPS = [*INSTALLED_APPS, "django_migration_linter"]  # noqa: F405 - for `make lint`
