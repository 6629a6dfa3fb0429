"""What `manage.py verify_deployment` asks of an installation, one small function a question.

Apps register their own in `AppConfig.ready()`, as they do health probes; `own` has those of
`monitoring`, and `address` those that go by HTTP. Nothing here changes anything.
"""

from __future__ import annotations

from monitoring.deployment.asking import Check, register, registered, run
from monitoring.deployment.findings import Finding, Verdict, failed, not_checked, ok, warning

__all__ = [
    "Check",
    "Finding",
    "Verdict",
    "failed",
    "not_checked",
    "ok",
    "register",
    "registered",
    "run",
    "warning",
]
