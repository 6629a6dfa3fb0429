"""Which engines this process has: the one that ENGINE_URL names, and those that the database adds.

Changes in the database are found by looking, at most once a second and only when somebody wants
to know. Nobody goes by what is older than two seconds, except while the database is away: then what
is known goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from django.conf import settings
from django.db import Error as DatabaseFailure

from consciousness.engine import default_engine
from consciousness.engine_configuration import DEFAULT_NAME, Configuration, read_configuration
from consciousness.engine_errors import EngineMisconfigured
from consciousness.engine_member import Member
from consciousness.engine_watch import Watch

_READ_AGAIN_S = 1.0
_MAX_AGE_S = 2.0  # what operators are promised
_PATIENCE_S = 2.0  # after the beginning of a reading; a database that is well needs milliseconds
# How long after a failure nobody waits. Longer than a second and a reading that fails, so that
# an outage is one, and short, so that an old failure does not make anybody use what is old.
_AWAY_S = 10.0
_LONG_AGO_S = float("-inf")

log = structlog.get_logger(__name__)


class Roster:
    """Safe to share between threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # around changes of these two
        self._default: Member | None = None
        self._added: dict[str, Member] = {}
        self._reading = threading.Lock()  # around reading, and changes of these
        self._configuration = Configuration()
        self._reading_since_s: float | None = None
        self._failed_at_s = _LONG_AGO_S  # since it was last read
        # Also changed by who expires it, hence under the lock above.
        self._read_at_s = _LONG_AGO_S  # when the reading began that succeeded
        self._is_expired = False  # during a reading
        self._watch = Watch(self.known_members)

    @property
    def aliases(self) -> dict[str, str]:
        """What callers may say → what engines call it."""
        return self._configuration.aliases

    def members(self) -> list[Member]:
        """In the order of their priorities, by a configuration that is two seconds old at most,
        unless the database is away."""
        self._read_if_due()
        return self._watched_members()

    def members_without_waiting(self) -> list[Member]:
        """The same by what is known, while the newest is being read: a database that hangs must
        not make the engines look as if they did."""
        if self._is_due() and not self._reading.locked():
            threading.Thread(target=self._read_if_due, name="engine-roster", daemon=True).start()
        return self._watched_members()

    def _watched_members(self) -> list[Member]:
        members = self.known_members()
        if len(members) > 1:
            self._watch.start()
        return members

    def known_members(self) -> list[Member]:
        """The same by what is known. Neither waits nor reads."""
        members = [self._default_member(), *self._added.values()]
        return sorted(members, key=lambda m: (m.priority, m.name != DEFAULT_NAME, m.name))

    def expire(self) -> None:
        """This process has just changed the configuration: the next caller reads it."""
        with self._lock:
            self._read_at_s, self._is_expired = _LONG_AGO_S, True

    def reset(self) -> None:
        """Forget everything, as in a new process."""
        self._watch.stop()
        with self._reading, self._lock:
            self._default, self._added = None, {}
            self._configuration, self._failed_at_s = Configuration(), _LONG_AGO_S
        self.expire()

    def _default_member(self) -> Member:
        try:
            engine = default_engine()
        except EngineMisconfigured:
            engine = None
        with self._lock:
            if self._default is None or self._default.engine is not engine:
                self._default = Member(name=DEFAULT_NAME, engine=engine, clock=self._clock)
            self._default.slots = settings.ENGINE_SLOTS
            return self._default

    def _read_if_due(self) -> None:
        """One thread reads; the others go on with what is known, or wait where that is too old."""
        if not self._is_due() or not self._reading.acquire(timeout=self._patience_s()):
            return
        try:
            if self._is_due():  # still, after waiting
                self._read()
        finally:
            self._reading.release()

    def _read(self) -> None:
        # Before reading, so that a change meanwhile calls for another reading.
        began_s = self._reading_since_s = self._clock()
        self._is_expired = False
        try:
            self._configure(read_configuration())
        except DatabaseFailure as error:
            if self._failed_at_s == _LONG_AGO_S:  # one line an outage
                log.warning("engines_not_read", error=type(error).__name__)
            self._failed_at_s = self._clock()
        else:
            self._failed_at_s = _LONG_AGO_S
            with self._lock:
                self._read_at_s = _LONG_AGO_S if self._is_expired else began_s
        finally:
            self._reading_since_s = None

    def _is_due(self) -> bool:
        """A reading that failed counts from its end, or a database that hangs would delay one
        request after the other."""
        now_s = self._clock()
        return now_s - max(self._read_at_s, self._failed_at_s) >= _READ_AGAIN_S

    def _patience_s(self) -> float:
        """How long to wait for who reads. What nobody reads is not waited for in any case."""
        now_s = self._clock()
        if now_s - self._read_at_s < _MAX_AGE_S or now_s - self._failed_at_s < _AWAY_S:
            return 0
        # Not from now: while a reading hangs, not everybody who comes shall wait.
        since_s = self._reading_since_s
        return _PATIENCE_S if since_s is None else max(0, since_s + _PATIENCE_S - now_s)

    def _configure(self, configuration: Configuration) -> None:
        """Engines that stay keep what is known of them, and the state of their circuits."""
        if configuration == self._configuration:
            return
        identities = {entry.name: entry.identity for entry in self._configuration.entries}
        added: dict[str, Member] = {}
        for entry in configuration.entries:
            if identities.get(entry.name) == entry.identity:
                member = self._added[entry.name]
            else:
                member = Member(name=entry.name, engine=entry.open(), clock=self._clock)
            member.slots, member.weight, member.priority = entry.slots, entry.weight, entry.priority
            added[entry.name] = member
        for name in self._added.keys() - added.keys():
            self._added[name].retire()
        with self._lock:
            self._added, self._configuration = added, configuration
        log.info("engines_configured", engines=[DEFAULT_NAME, *added])
