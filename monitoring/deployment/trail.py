"""The end of the audit trail: sealed lately, what was sealed last, and the newest checkpoint.

All of it is `verify_audit`'s to verify, which takes a while.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone

from monitoring.audit import chaining, checkpoints, signing, sources
from monitoring.audit.checkpoints import BadCheckpoint, CheckpointConflict
from monitoring.audit.verification import Verification
from monitoring.deployment.findings import Finding, failed, not_checked, ok, warning
from monitoring.models import AuditArchive, AuditEvent, AuditSeal

_LATE = timedelta(minutes=5)  # as the alert AuditNotSealing has it


def ask_audit_trail() -> Finding:
    now = timezone.now()
    unsealed = AuditEvent.objects.all().unsealed().order_by("id")
    oldest = unsealed.values_list("at", flat=True).first()
    if oldest is not None and now - oldest > _LATE:
        return failed(f"an event of {oldest:%Y-%m-%d %H:%M:%S} UTC has no seal: see the worker")
    newest = AuditSeal.objects.order_by("-id").values_list("id", "sealed_at").first()
    head = chaining.head()
    if newest is None or head is None:
        if head is not None:
            return failed("the newest seal is missing: run verify_audit")
        return not_checked("nothing is sealed yet")
    number, sealed_at = newest
    if problem := _problem_of_seal(number):
        return failed(f"{problem} Run verify_audit")
    return _ask_checkpoint(head, sealed_at=sealed_at, now=now)


def _problem_of_seal(number: int) -> str:
    """What is wrong with a seal and the rows under it; nothing of what was before."""
    previous = _chain_of(number - 1)
    if previous is None:
        return f"Seal {number - 1} is missing."
    verification = Verification(with_key=True, checkpoints={})
    verification.go_on_from(seal=number, chain=previous)
    for seal, rows in sources.batches(first=number, last=number):
        verification.verify_batch(seal, rows)
    problems = verification.finish().problems
    return str(problems[0]) if problems else ""


def _chain_of(number: int) -> bytes | None:
    if number == 0:
        return chaining.GENESIS
    for chains in (
        AuditSeal.objects.filter(id=number).values_list("chain", flat=True),
        AuditArchive.objects.filter(last_seal=number).values_list("chain", flat=True),
    ):
        if (chain := chains.first()) is not None:
            return bytes(chain)
    return None


def _ask_checkpoint(head: chaining.Head, *, sealed_at: datetime, now: datetime) -> Finding:
    try:
        checkpoint = checkpoints.newest()
        if checkpoint is None:
            return warning("no checkpoint in DATA_DIR/audit: ask where the worker runs")
        checkpoints.check_agreement(checkpoint, head)
        if not signing.has_key() or checkpoint.key != signing.public_key():
            return failed("the newest checkpoint is signed by a key that is not this platform's")
    except BadCheckpoint as error:
        return failed(f"the newest checkpoint: {error}")
    except CheckpointConflict as error:
        return failed(str(error))
    except signing.UnreadableKey:
        return failed("DATA_DIR/audit/signing.key holds no key")
    if checkpoint.seal < head.seal and now - sealed_at > _LATE:
        return failed(f"seal {head.seal} has no checkpoint: see the worker")
    return ok(f"seal {head.seal} of {sealed_at:%Y-%m-%d %H:%M:%S} UTC holds, checkpoint and all")
