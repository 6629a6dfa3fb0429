"""The progress bar: on a terminal only, and gone when what follows is written."""

from __future__ import annotations

import itertools
from io import StringIO

from monitoring.progress import Progress


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_shows_how_far_it_is() -> None:
    out, now_s = Terminal(), 5.0
    progress = Progress(out, total=10_000, what="rows", clock_s=lambda: now_s)
    for number in progress.counted(range(6000)):
        if number == 5000:
            now_s += 10
    shown = out.getvalue().split("\r\x1b[K")
    assert len(shown) == 2, "once in each fifth of a second at most"
    assert shown[1] == "[###############               ]  51%  5,120 rows, 10 s left"
    progress.close()
    assert out.getvalue().endswith("\r\x1b[K")


def test_elsewhere_it_writes_nothing() -> None:
    out = StringIO()
    progress = Progress(out, total=10_000, what="rows")
    assert list(progress.counted(range(5000))) == list(range(5000))
    progress.close()
    assert out.getvalue() == ""


def test_more_than_was_expected_is_all_of_it() -> None:
    out, seconds = Terminal(), itertools.count()
    progress = Progress(out, total=0, what="rows", clock_s=lambda: float(next(seconds)))
    assert len(list(progress.counted(range(3000)))) == 3000
    assert "100%  1,024 rows, 0 s left" in out.getvalue()
