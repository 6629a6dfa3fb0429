"""How settings are read: what wins, what is refused, and that one start tells every mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sovereigncore.environment import Environment, weakness_of_secret
from tests.log_capture import LogCapture

pytestmark = pytest.mark.once

Read = Callable[..., Environment]
GOOD_SECRET = "Tz4kQ9wLm2Xc7VbN1pRs8YdF3hJg6Ka0"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def build(dotenv: str | None = None, **process: str) -> Environment:
        path = tmp_path / ".env"
        if dotenv is not None:
            path.write_text(dotenv, encoding="utf-8")
        return Environment(process, dotenv=path)

    return build


def problem_of(environment: Environment) -> str:
    with pytest.raises(ImproperlyConfigured) as caught:
        environment.finish()
    return str(caught.value)


def test_a_missing_value_is_the_default(read: Read) -> None:
    environment = read()
    assert environment.text("NAME", "default") == "default"
    assert environment.integer("PORT", 80, at_least=1, at_most=99) == 80
    assert environment.words("HOSTS", ("a", "b")) == ["a", "b"]
    environment.finish()


def test_an_empty_value_is_the_default(read: Read) -> None:
    environment = read("A=\n", B="", HOSTS=" ", KEY_FILE="")
    assert environment.text("A", "default") == "default"
    assert environment.integer("B", 7, at_least=1, at_most=9) == 7
    assert environment.words("HOSTS", ("a",)) == ["a"]
    assert environment.text("KEY", "no file") == "no file"
    environment.finish()


def test_the_process_beats_dotenv(read: Read) -> None:
    environment = read("NAME=from-dotenv\nOTHER=kept\n", NAME="from-process")
    assert environment.text("NAME") == "from-process"
    assert environment.text("OTHER") == "kept"
    environment.finish()


@pytest.mark.parametrize("in_process", [True, False])
def test_a_value_may_come_from_a_file(read: Read, tmp_path: Path, in_process: bool) -> None:
    file = tmp_path / "value"
    file.write_text("  from a file\n")
    environment = read(
        None if in_process else f"NAME_FILE={file}\n",
        **({"NAME_FILE": str(file)} if in_process else {}),
    )
    assert environment.text("NAME") == "from a file"
    environment.finish()


def test_a_name_in_the_process_beats_a_file_in_dotenv(read: Read, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_text("from a file")
    environment = read(f"NAME_FILE={file}\n", NAME="from-process")
    assert environment.text("NAME") == "from-process"
    environment.finish()


def test_a_file_in_the_process_beats_a_name_in_dotenv(read: Read, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_text("from a file")
    environment = read("NAME=from-dotenv\n", NAME_FILE=str(file))
    assert environment.text("NAME") == "from a file"
    environment.finish()


def test_a_file_that_cannot_be_read_is_a_problem(read: Read, tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    environment = read(
        A_FILE=str(tmp_path / "missing"), B_FILE=str(tmp_path), C_FILE=str(binary), D_FILE="a\0b"
    )
    for name in "ABCD":
        assert environment.text(name, "default") == "default"
    problem = problem_of(environment)
    assert [line.split(":")[0] for line in problem.splitlines()[1:]] == [
        "  - A_FILE",
        "  - B_FILE",
        "  - C_FILE",
        "  - D_FILE",
    ]


def test_dotenv_knows_comments_blank_lines_quotes_and_export(read: Read) -> None:
    environment = read(
        "# a comment\n\n   \nexport A=1\nB='single = quoted'\nC=\"double # quoted\"\nD=a=b#c\n"
    )
    values = [environment.text(name) for name in "ABCD"]
    assert values == ["1", "single = quoted", "double # quoted", "a=b#c"]
    environment.finish()


def test_unknown_names_in_dotenv_are_problems_and_in_the_process_are_not(read: Read) -> None:
    environment = read("PROT=80\nPORT=80\n", EDITOR="vi")
    assert environment.integer("PORT", 1, at_least=1, at_most=99) == 80
    problem = problem_of(environment)
    assert "unknown setting PROT" in problem
    assert "EDITOR" not in problem
    assert "unknown setting PORT" not in problem


def test_a_name_that_is_set_twice_is_a_problem(read: Read) -> None:
    environment = read("A=1\nB=2\nA=3\n")
    environment.text("A")
    environment.text("B")
    assert "line 3: A is set twice" in problem_of(environment)


@pytest.mark.parametrize("line", ["PORT", "=80", "2PORT=80", "PO RT=80", "  PORT=80", "PORT: 80"])
def test_a_line_that_is_no_assignment_is_a_problem(read: Read, line: str) -> None:
    assert "line 2: expected NAME=value" in problem_of(read(f"# one\n{line}\n"))


def test_a_malformed_line_is_repeated_nowhere(read: Read, logs: LogCapture) -> None:
    problem = problem_of(read(f"SECRET KEY = {GOOD_SECRET}\n"))
    assert GOOD_SECRET not in problem
    assert GOOD_SECRET not in logs.text


def test_a_dotenv_that_is_no_text_is_a_problem(read: Read, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    assert "cannot be read" in problem_of(read())


def test_every_problem_is_reported_at_once(read: Read) -> None:
    environment = read("nonsense\nUNKNOWN=1\n", PORT="x", DEBUG="maybe")
    environment.integer("PORT", 1, at_least=1, at_most=9)
    environment.flag("DEBUG", default=False)
    environment.secret("SECRET", min_length=32, stand_in=None)
    problem = problem_of(environment)
    assert problem.count("\n  - ") == 5
    for part in ("line 1", "UNKNOWN", "PORT", "DEBUG", "SECRET"):
        assert part in problem


@pytest.mark.parametrize(
    "raw", ["x", "1.5", "0", "100", "1e1", "1_0", "\u0667", "nan", "0x10", "1 0", "9" * 5000]
)
def test_a_whole_number_out_of_form_or_range_is_a_problem(read: Read, raw: str) -> None:
    environment = read(PORT=raw)
    assert environment.integer("PORT", 5, at_least=1, at_most=99) == 5
    assert "PORT: expected a whole number from 1 to 99" in problem_of(environment)


@pytest.mark.parametrize("raw", ["x", "nan", "inf", "-inf", "1e999", "0.9", "1_0", "\u0667", "1,5"])
def test_a_number_out_of_form_or_range_is_a_problem(read: Read, raw: str) -> None:
    environment = read(LIMIT=raw)
    assert environment.number("LIMIT", 5, at_least=1, at_most=99) == 5
    assert "LIMIT: expected a number from 1 to 99" in problem_of(environment)


def test_numbers_may_have_space_around_them(read: Read) -> None:
    environment = read(PORT=" 80 ", LIMIT="1.5\n")
    assert environment.integer("PORT", 1, at_least=1, at_most=99) == 80
    assert environment.number("LIMIT", 1, at_least=1, at_most=99) == 1.5
    environment.finish()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        *(("true", True), ("YES", True), ("1", True), ("On", True)),
        *(("false", False), ("No", False), ("0", False), ("off", False)),
    ],
)
def test_flags(read: Read, raw: str, expected: bool) -> None:
    environment = read(FLAG=raw)
    assert environment.flag("FLAG", default=not expected) is expected
    environment.finish()


@pytest.mark.parametrize("raw", ["2", "truee", "-", "t", "tru e"])
def test_a_flag_is_one_of_its_words(read: Read, raw: str) -> None:
    environment = read(FLAG=raw)
    assert environment.flag("FLAG", default=True) is True
    assert "FLAG: expected true or false" in problem_of(environment)


def test_a_choice_is_one_of_its_words_exactly(read: Read) -> None:
    environment = read(GOOD="closed", BAD="Closed")
    assert environment.choice("GOOD", "open", ("open", "closed")) == "closed"
    assert environment.choice("BAD", "open", ("open", "closed")) == "open"
    assert "BAD: expected one of open, closed, got 'Closed'" in problem_of(environment)


def test_a_pattern_has_to_match_from_end_to_end(read: Read) -> None:
    environment = read(RATE="5/m; drop")
    assert environment.matching("RATE", "1/m", r"\d/m", "a rate") == "1/m"
    assert "RATE: expected a rate" in problem_of(environment)


def test_lists_drop_blanks(read: Read) -> None:
    assert read(HOSTS=" a, ,b ,").words("HOSTS") == ["a", "b"]


def test_a_bad_url_is_not_repeated(read: Read) -> None:
    environment = read(URL=f"redis//:{GOOD_SECRET}@host", IPV6="redis://[::::]", PORT="redis://h:x")
    for name in ("URL", "IPV6", "PORT"):
        assert environment.url(name, "", r"redis://\S+", "a URL") == ""
    problem = problem_of(environment)
    assert problem.count("expected a URL") == 3
    assert GOOD_SECRET not in problem


@pytest.mark.parametrize("raw", ["300.1.1.1", "abc", "::::", "127.0.0.1:80", "example.org"])
def test_an_address_is_an_ip_address_or_localhost(read: Read, raw: str) -> None:
    environment = read(BIND=raw, V4="127.0.0.1", V6="::1", NAME="localhost")
    assert environment.address("BIND", "127.0.0.1") == "127.0.0.1"
    assert [environment.address(name, "") for name in ("V4", "V6", "NAME")] == [
        "127.0.0.1",
        "::1",
        "localhost",
    ]
    assert "BIND: expected an IP address" in problem_of(environment)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("Tz4kQ9wLm2Xc7VbN1pRs8YdF3hJg6Ka", "too short"),
        ("ab" * 40, "too uniform"),
        ("change-me-0123456789-abcdefghijk", "it looks like an example"),
        ("Your-Secret-0123456789-abcdefghi", "it looks like an example"),
    ],
)
def test_a_weak_secret_is_refused_and_not_repeated(read: Read, raw: str, reason: str) -> None:
    environment = read(KEY=raw)
    environment.secret("KEY", min_length=32, stand_in=None)
    problem = problem_of(environment)
    assert f"KEY: {reason}" in problem
    assert raw not in problem


def test_a_missing_secret_is_refused_unless_there_is_a_stand_in(read: Read) -> None:
    environment = read(GIVEN=GOOD_SECRET)
    assert environment.secret("GIVEN", min_length=32, stand_in=None) == GOOD_SECRET
    assert environment.secret("OPTIONAL", min_length=32, stand_in="") == ""
    assert environment.secret("REQUIRED", min_length=32, stand_in=None) == ""
    problem = problem_of(environment)
    assert "REQUIRED: required (or REQUIRED_FILE)" in problem
    assert "OPTIONAL" not in problem


@given(st.text(alphabet="0123456789!$%&/()=?", max_size=80))
def test_a_secret_long_and_mixed_enough_is_accepted(tail: str) -> None:
    assert weakness_of_secret(GOOD_SECRET + tail, min_length=32) == ""


@given(st.text(max_size=200), st.text(max_size=20))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_dotenv_and_no_value_is_an_unexpected_error(
    tmp_path: Path, dotenv: str, value: str
) -> None:
    path = tmp_path / ".env"
    path.write_text(dotenv.encode("utf-8", "ignore").decode(), encoding="utf-8")
    environment = Environment({"V": value, "W_FILE": value}, dotenv=path)
    environment.text("W")
    environment.integer("V", 1, at_least=0, at_most=9)
    environment.number("V", 1, at_least=0, at_most=9)
    environment.flag("V", default=True)
    environment.url("V", "", ".*", "a URL")
    environment.address("V", "::1")
    environment.secret("V", min_length=32, stand_in=None)
    if environment.problems:
        problem_of(environment)
