"""Who may use the engines now: a bounded number of slots, a bounded line, fair among callers.

- A free slot goes to the waiting caller who holds fewest, among equals to the one that has waited
  longest. A caller's own requests are served in their order. Who could only use an engine that is
  full stands in nobody's way.
- Of the engines that could take a request it gets the one with the lowest share busy/capacity.
- One caller fills at most a quarter of the line. While others have been seen within 30 s, one that
  holds a slot leaves one free for each of them that holds none, up to half of the slots of the
  engines it asks for, and never takes the last one: who comes back need not wait for the end of a
  long answer.
- A slot is a lease of 30 s that its holder renews; a place in the line one of 3 s. What a killed
  process had comes back by itself.

`gate` is the way in. `shared` (Redis, all processes) and `local` (this process) are the two lines,
which follow one policy: `ledger`, and `line.lua` for Redis.
"""

from consciousness.admission.gate import Admission, Slot, admission
from consciousness.admission.policy import Candidate, Terms
from consciousness.admission.refusals import CallerGone, QueueFull, QueueTimeout, TooManyWaiting

__all__ = [
    "Admission",
    "CallerGone",
    "Candidate",
    "QueueFull",
    "QueueTimeout",
    "Slot",
    "Terms",
    "TooManyWaiting",
    "admission",
]
