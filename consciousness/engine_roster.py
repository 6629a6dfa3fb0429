"""Which engines this process has: the one that ENGINE_URL names, and those that the database adds.

Changes in the database are found by looking, at most once a second and only when somebody wants
to know; while it is away, what is known goes on.
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
_LONG_AGO_S = float("-inf")

log = structlog.get_logger(__name__)


class Roster:
    """Safe to share between threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # around changes of these two
        self._default: Member | None = None
        self._added: dict[str, Member] = {}
        self._reading = threading.Lock()  # around reading, and changes of these two
        self._configuration = Configuration()
        self._read_at_s = _LONG_AGO_S
        self._has_read = False
        self._is_database_away = False
        self._watch = Watch(self.known_members)

    @property
    def aliases(self) -> dict[str, str]:
        """What callers may say → what engines call it."""
        return self._configuration.aliases

    def members(self) -> list[Member]:
        """In the order of their priorities, by a configuration that is a second old at most."""
        self._read_if_old()
        return self._watched_members()

    def members_without_waiting(self) -> list[Member]:
        """The same by what is known, while the newest is being read: a database that hangs must
        not make the engines look as if they did."""
        if not self._is_fresh() and not self._reading.locked():
            threading.Thread(target=self._read_if_old, name="engine-roster", daemon=True).start()
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

    def known_member(self, name: str) -> Member | None:
        return self._default if name == DEFAULT_NAME else self._added.get(name)

    def expire(self) -> None:
        """This process has just changed the configuration: the next caller reads it."""
        self._read_at_s = _LONG_AGO_S

    def reset(self) -> None:
        """Forget everything, as in a new process."""
        self._watch.stop()
        with self._reading, self._lock:
            self._default, self._added = None, {}
            self._configuration, self._has_read = Configuration(), False
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

    def _read_if_old(self) -> None:
        """One thread reads; the others go on with what is known, or wait while that is nothing."""
        if self._is_fresh() or not self._reading.acquire(blocking=not self._has_read):
            return
        try:
            if self._is_fresh():
                return
            # Before reading, so that a change meanwhile calls for another reading.
            self._read_at_s = self._clock()
            self._has_read = True
            self._configure(read_configuration())
            self._is_database_away = False
        except DatabaseFailure as error:
            if not self._is_database_away:  # one line an outage
                log.warning("engines_not_read", error=type(error).__name__)
            self._is_database_away = True
        finally:
            self._reading.release()

    def _is_fresh(self) -> bool:
        return self._clock() - self._read_at_s < _READ_AGAIN_S

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
