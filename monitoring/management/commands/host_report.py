"""`manage.py host_report`: what the sensors of this host say, and what the governor makes of it."""

from __future__ import annotations

import time
from typing import Any

import orjson
from django.core.management.base import BaseCommand

from monitoring.awareness import awareness

_CPU_SAMPLE_S = 1.1


class Command(BaseCommand):
    help = "Print the host's readings and the governor's decision as JSON (takes a second)."

    def handle(self, *args: Any, **options: Any) -> None:
        awareness.current()
        time.sleep(_CPU_SAMPLE_S)  # CPU use is the difference between two readings
        report = awareness.current().described()
        self.stdout.write(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
