"""The audit trail: who did what to whom. `audit.record` writes a deed down.

`recording` is that; `sealing` ties rows together by `chaining` and writes signed `checkpoints`;
`archiving` moves old ones to files; `verification` tells whether all of it is what was written, and
`sources` gives it what to read; `export` takes a part along. `tables` and `files` are where rows
lie, and `append_only` the triggers that refuse changes there.
"""

from __future__ import annotations

from monitoring.audit.recording import Detail, UnknownAction, actions, record, register

__all__ = ["Detail", "UnknownAction", "actions", "record", "register"]
