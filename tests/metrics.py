"""What a metric says in this process."""

from __future__ import annotations

from prometheus_client import REGISTRY


def value_of(sample: str, /, **labels: str) -> float | None:
    """The value of the sample of that name with just these labels, or None if there is none.

    Like `REGISTRY.get_sample_value`, which renders every metric there is to find one.
    """
    return next(
        (
            each.value
            for family in REGISTRY.restricted_registry([sample]).collect()
            for each in family.samples
            if each.name == sample and each.labels == labels
        ),
        None,
    )
