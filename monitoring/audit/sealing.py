"""Sealing the audit trail: the worker's job that ties new events to all before them.

**Ids are no order of commits.** PostgreSQL gives an id when a row is written, and others see the
row when its transaction commits: it may appear long after rows with greater ids were sealed. No
horizon of running transactions is safe against it, for an id is given a moment before its
transaction is known as one that writes. So nothing here depends on an order: a row is unsealed
while its `seal` is NULL, whatever its id, and each run seals exactly the rows that it reads. One
that appears late is in a later batch, and each seal names its ids.

**Two workers at once** are kept apart by the job's lease; should it fail them, both would make the
same seal number, which is the primary key, and one of them changes nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from datetime import timedelta

import structlog
from django.db import IntegrityError, transaction
from django.utils import timezone

from monitoring.audit import chaining, checkpoints, tables
from monitoring.audit.digests import keyed, moment
from monitoring.models import AuditEvent, AuditSeal

BATCH = 1000  # events under one seal: one statement's worth, and little to search when one is bad
_BATCHES_A_RUN = 300  # well within the job's lease
_TOLD_FOR = timedelta(minutes=10)  # longer than an alert waits
_IDS_TOLD = 20

log = structlog.get_logger(__name__)


class SealedElsewhere(Exception):
    """Another worker sealed rows of this batch meanwhile; nothing was done."""


class RowsDoNotHold(Exception):
    """Rows that were sealed lately do not hold under AUDIT_KEY: they were changed before, or
    another process has another key. They are sealed all the same, so that nobody changes them
    again, and the job fails for ten minutes, so that somebody looks."""


def is_needed() -> bool:
    return AuditEvent.objects.all().unsealed().exists() or checkpoints.is_behind()


def seal_audit() -> int:
    """Seal what is unsealed and write a signed checkpoint; how many events were sealed.

    May be killed anywhere: a batch is one transaction, and the checkpoint is of whatever the newest
    seal is, so the next run writes one that is missing.
    """
    sealed = 0
    for _ in range(_BATCHES_A_RUN):
        try:
            count = seal_batch()
        except SealedElsewhere:
            log.warning("audit_sealed_elsewhere")
            break
        sealed += count
        if count < BATCH:
            break
    bad = list(_bad_rows())
    for number in bad[:_IDS_TOLD]:
        log.error("audit_row_does_not_hold", id=number)
    checkpoints.write()
    if bad:
        raise RowsDoNotHold(f"{len(bad)} rows, the first is {bad[0]}. Run verify_audit.")
    return sealed


def warn_if_key_changed() -> None:
    """Log it when the newest seal was made with another AUDIT_KEY, or changed."""
    newest = AuditSeal.objects.order_by("-id").values_list("id", "chain", "digest").first()
    if newest is None:
        return
    number, chain, digest = newest
    if not hmac.compare_digest(chaining.digest_of(bytes(chain)), bytes(digest)):
        log.warning("audit_key_changed", seal=number)


def _bad_rows() -> Iterator[int]:
    """Those under the seals of the last ten minutes, and of no more seals than a run makes."""
    since, recent = timezone.now() - _TOLD_FOR, list[int]()
    head = chaining.head()
    newest = head.seal if head else 0
    # Not through the models, which stumble over a moment that somebody spoiled.
    for seal in tables.seals(first=newest - _BATCHES_A_RUN + 1, last=newest, limit=_BATCHES_A_RUN):
        if seal.sealed_at >= moment(since):
            recent.append(seal.id)
    if recent:
        for row in tables.sealed(first=recent[0], last=newest):
            if not (row.text and hmac.compare_digest(keyed(row.text), row.digest)):
                yield row.id


def seal_batch() -> int:
    """Seal the first BATCH unsealed events; how many there were. Raises SealedElsewhere."""
    try:
        with transaction.atomic():
            return _seal_batch()
    except IntegrityError as error:
        raise SealedElsewhere from error


def _seal_batch() -> int:
    rows = list(tables.unsealed(limit=BATCH))
    if not rows:
        return 0
    ids = [row.id for row in rows]
    contents = chaining.Contents()
    for row in rows:
        contents.add(row.text, row.digest)
    head = chaining.head()
    number = head.seal + 1 if head else 1
    ranges, sealed_at = chaining.ranges_of(ids), timezone.now()
    chain = chaining.chain_of(
        head.chain if head else chaining.GENESIS,
        seal=number,
        ids=ranges,
        sealed_at=moment(sealed_at),
        contents=contents.digest(),
    )
    seal = AuditSeal(
        id=number,
        first_id=ids[0],
        last_id=ids[-1],
        count=len(ids),
        ids=ranges,
        sealed_at=sealed_at,
        contents=contents.digest(),
        chain=chain,
        digest=chaining.digest_of(chain),
    )
    seal.save(force_insert=True)
    if AuditEvent.objects.filter(id__in=ids, seal=None).update(seal=seal) != len(ids):
        raise SealedElsewhere
    return len(ids)
