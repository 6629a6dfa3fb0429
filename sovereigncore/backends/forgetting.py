"""What both databases share: a failure is forgotten with the request that it belongs to."""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper


class ForgettingMixin(BaseDatabaseWrapper):
    """Django keeps the last error that ended a transaction, for as long as the thread's connection
    object lives: with its traceback, all frames, and so the whole request, prompt and token too."""

    def close_if_unusable_or_obsolete(self) -> None:
        """Called when a request begins and when it has ended."""
        super().close_if_unusable_or_obsolete()
        if not self.in_atomic_block:
            self.rollback_exc = None
