"""What the database says about engines: read whole, in one query, and opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import structlog
from django.db import connection
from django.db.models import BinaryField, IntegerField, Value

from consciousness.engine import Engine
from consciousness.engine_errors import EngineMisconfigured
from consciousness.engine_keys import SealBroken, unseal
from consciousness.models import ModelAlias, Upstream

DEFAULT_NAME = "default"  # the engine that ENGINE_URL names
NAME = re.compile(r"[a-z0-9_-]{1,50}")  # what the line of requests knows engines by

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An enabled engine. Another `identity` makes another engine of it."""

    name: str
    url: str = field(repr=False)
    sealed_api_key: bytes = field(repr=False)
    slots: int
    weight: int
    priority: int

    @property
    def identity(self) -> tuple[str, bytes]:
        return self.url, self.sealed_api_key

    def open(self) -> Engine | None:
        """The client; None when the row cannot be used, which is logged."""
        try:
            return Engine(url=self.url, api_key=unseal(self.sealed_api_key))
        except (SealBroken, EngineMisconfigured) as error:
            log.error("engine_misconfigured", engine=self.name, reason=type(error).__name__)
            return None


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """`aliases`: what callers say → what the engine calls it."""

    entries: tuple[Entry, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)


def read_configuration() -> Configuration:
    """Everything that is enabled. Raises django.db.Error.

    Both tables hold a handful of rows, so reading them is as cheap as asking whether they
    changed, and cannot miss a change. The connection is left as it was found: callers may be
    about to wait for an engine, or be a thread that ends.
    """
    was_closed = connection.connection is None
    upstreams = Upstream.objects.filter(is_enabled=True).order_by()
    aliases = ModelAlias.objects.filter(is_enabled=True).order_by()
    none, nothing = Value(0, IntegerField()), Value(None, BinaryField())
    rows = upstreams.values_list("name", "url", "sealed_api_key", "slots", "weight", "priority")
    try:
        found = list(
            rows.union(aliases.values_list("alias", "model", nothing, none, none, none), all=True)
        )
    finally:
        if was_closed:
            connection.close()
    entries: list[Entry] = []
    names: dict[str, str] = {}
    for name, target, sealed, slots, weight, priority in found:
        if sealed is None:
            names[name] = target
        elif name != DEFAULT_NAME and NAME.fullmatch(name):
            entries.append(
                Entry(
                    name=name,
                    url=target,
                    sealed_api_key=bytes(sealed),
                    slots=slots,
                    weight=weight,
                    priority=priority,
                )
            )
    return Configuration(entries=tuple(sorted(entries, key=lambda e: e.name)), aliases=names)
