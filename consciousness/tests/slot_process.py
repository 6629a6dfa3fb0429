"""A process of its own that asks for one slot, says so, and holds it until its input ends.

`python -m consciousness.tests.slot_process CALLER CAPACITY LEASE_S TICKET_S`, with REDIS_URL set,
writes "asking", then "holding" or the code of what refused it, and "done".
"""

from __future__ import annotations

import select
import sys

import django


def main(caller: str, capacity: str, lease_s: str, ticket_s: str) -> None:
    django.setup()
    from consciousness.admission import Admission, Candidate, Terms
    from sovereigncore.errors import ServiceError

    terms = Terms(lease_us=int(float(lease_s) * 1e6), ticket_us=int(float(ticket_s) * 1e6))
    candidates = [Candidate(name="default", capacity=int(capacity))]
    say("asking")
    try:
        with Admission(terms).slot(
            caller=caller, candidates=lambda: candidates, is_abandoned=lambda: False
        ) as slot:
            say("holding")
            while not select.select([sys.stdin], [], [], 0.05)[0]:
                assert slot.renew()
    except ServiceError as error:
        say(error.code)
    say("done")


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
