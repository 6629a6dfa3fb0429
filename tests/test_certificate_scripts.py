"""`scripts/generate_certs.sh` and `use_certificate.sh`: what they make, leave alone and refuse."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.migrated import ROOT

pytestmark = pytest.mark.once

_TIMEOUT_S = 60.0
_DAYS = 397
_NAMES = ("ai.clinic.internal", "10.0.0.5", "::1")


def _run(script: str, *arguments: str | Path, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [ROOT / "scripts" / script, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _generate(folder: Path, *arguments: str, names: tuple[str, ...] = ()) -> str:
    """What it said. Fails where it does."""
    asked = [part for name in names for part in ("--name", name)]
    code, said = _run("generate_certs.sh", "--output", folder, *asked, *arguments)
    assert code == 0, said
    return said


def _openssl(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _about_to_end(folder: Path, *, days: int) -> None:
    """A certificate like the one that is there, for so many days."""
    request, extensions = folder / "request", folder / "extensions"
    extensions.write_text("subjectAltName = DNS:ai.clinic.internal\n")
    _openssl("req", "-new", "-key", folder / "privkey.pem", "-subj", "/CN=x", "-out", request)
    _openssl(
        *("x509", "-req", "-in", request, "-days", str(days), "-extfile", extensions),
        *("-CA", folder / "ca.pem", "-CAkey", folder / "ca-key.pem"),
        *("-set_serial", "7", "-out", folder / "fullchain.pem"),
    )
    request.unlink()
    extensions.unlink()


def test_it_makes_an_authority_and_a_certificate_for_all_names(tmp_path: Path) -> None:
    folder = tmp_path / "etc/tls"
    said = _generate(folder, names=_NAMES)
    assert folder.parent.stat().st_mode & 0o005 == 0o005  # others pass through
    assert set(_content(folder)) == {
        "ca.pem",
        "ca-key.pem",
        "fullchain.pem",
        "privkey.pem",
        "names",
    }
    assert folder.stat().st_mode & 0o777 == 0o711
    for name in ("ca-key.pem", "privkey.pem"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    verify = ("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", folder / "ca.pem")
    for option, name in zip(("-verify_hostname", "-verify_ip", "-verify_ip"), _NAMES, strict=True):
        _openssl(*verify, option, name, folder / "fullchain.pem")
    told = _openssl("x509", "-in", folder / "fullchain.pem", "-noout", "-text")
    assert "ASN1 OID: prime256v1" in told
    assert "CA:FALSE" in told
    _openssl(
        "x509", "-in", folder / "fullchain.pem", "-noout", "-checkend", str(_DAYS * 86400 - 60)
    )
    fingerprint = _openssl("x509", "-in", folder / "ca.pem", "-noout", "-fingerprint", "-sha256")
    assert fingerprint.strip().partition("=")[2] in said


def test_again_it_changes_nothing(tmp_path: Path) -> None:
    _generate(tmp_path, names=_NAMES)
    before = _content(tmp_path)
    assert "Unchanged" in _generate(tmp_path)
    assert "Unchanged" in _generate(tmp_path, names=tuple(reversed(_NAMES)))
    assert _content(tmp_path) == before


def test_it_renews_before_the_end_for_the_same_names(tmp_path: Path) -> None:
    _generate(tmp_path, names=_NAMES)
    authority = (tmp_path / "ca.pem").read_bytes()
    _about_to_end(tmp_path, days=31)
    assert "Unchanged" in _generate(tmp_path)
    _about_to_end(tmp_path, days=29)
    assert "ends within 30 days" in _generate(tmp_path)
    assert (tmp_path / "ca.pem").read_bytes() == authority
    _openssl(
        *("verify", "-CAfile", tmp_path / "ca.pem", "-verify_ip", "10.0.0.5"),
        tmp_path / "fullchain.pem",
    )


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / "privkey.pem").unlink(), "there is none"),
        (lambda folder: (folder / "fullchain.pem").write_text("no"), "do not belong together"),
        (
            lambda folder: (folder / "privkey.pem").write_bytes(
                (folder / "ca-key.pem").read_bytes()
            ),
            "do not belong together",
        ),
    ],
)
def test_it_puts_right_what_is_broken(tmp_path: Path, spoil: object, why: str) -> None:
    _generate(tmp_path, names=_NAMES)
    assert callable(spoil)
    spoil(tmp_path)
    assert why in _generate(tmp_path)
    assert "Unchanged" in _generate(tmp_path)


def test_other_names_make_another_certificate_by_the_same_authority(tmp_path: Path) -> None:
    _generate(tmp_path, names=("old.example.org",))
    authority = (tmp_path / "ca.pem").read_bytes()
    assert "the names are others" in _generate(tmp_path, names=("new.example.org",))
    assert (tmp_path / "ca.pem").read_bytes() == authority
    names = _openssl("x509", "-in", tmp_path / "fullchain.pem", "-noout", "-ext", "subjectAltName")
    assert "DNS:new.example.org" in names
    assert "old.example.org" not in names


def test_only_force_replaces_the_authority(tmp_path: Path) -> None:
    _generate(tmp_path, names=_NAMES)
    authority = (tmp_path / "ca.pem").read_bytes()
    said = _generate(tmp_path, "--force")
    assert "New authority" in said
    assert "by another authority" in said
    assert (tmp_path / "ca.pem").read_bytes() != authority
    assert "Unchanged" in _generate(tmp_path)


def test_a_certificate_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """Let's Encrypt's, say, that took the place of the first one."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        _generate(folder, names=_NAMES)
    for name in ("fullchain.pem", "privkey.pem"):
        (ours / name).write_bytes((theirs / name).read_bytes())
    before = _content(ours)
    code, said = _run("generate_certs.sh", "--output", ours)
    assert code == 1
    assert "by another authority and left alone" in said
    assert _content(ours) == before


def test_without_the_authoritys_key_it_says_so_once_it_is_needed(tmp_path: Path) -> None:
    _generate(tmp_path, names=_NAMES)
    (tmp_path / "ca-key.pem").rename(tmp_path / "elsewhere")
    assert "Unchanged" in _generate(tmp_path)
    code, said = _run("generate_certs.sh", "--output", tmp_path, "--name", "new.example.org")
    assert code == 1
    assert "ca-key.pem is not here to sign it" in said


def test_an_authority_without_its_certificate_is_not_replaced(tmp_path: Path) -> None:
    _generate(tmp_path, names=_NAMES)
    (tmp_path / "ca.pem").unlink()
    before = _content(tmp_path)
    code, said = _run("generate_certs.sh", "--output", tmp_path)
    assert code == 1
    assert "--force" in said
    assert _content(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "-x.org",
        "a..b",
        "x_y.org",
        "http://a.org",
        "a.org,DNS:b.org",
        "a\nb",
        "é",
        "999.1.1.1",
        "1.2.3",
    ],
)
def test_what_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    code, said = _run("generate_certs.sh", "--output", tmp_path / "tls", "--name", name)
    assert code == 2
    assert "neither a host name nor an address" in said
    assert not (tmp_path / "tls").exists()


def test_several_at_once_make_one_authority(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: _generate(tmp_path, names=_NAMES), range(4)))
    assert sum("New authority" in each for each in said) == 1
    _openssl("verify", "-CAfile", tmp_path / "ca.pem", tmp_path / "fullchain.pem")


def test_it_wants_a_name_once(tmp_path: Path) -> None:
    code, said = _run("generate_certs.sh", "--output", tmp_path / "tls")
    assert code == 2
    assert "--name" in said
    assert _content(tmp_path) == {}


def test_a_pair_from_elsewhere_is_put_in_place(tmp_path: Path) -> None:
    _generate(tmp_path / "new", names=_NAMES)
    used = {"TLS_DIR": str(tmp_path / "tls"), "RELOAD_COMMAND": f"touch {tmp_path}/reloaded"}
    # As certbot runs it.
    code, said = _run("use_certificate.sh", RENEWED_LINEAGE=str(tmp_path / "new"), **used)
    assert code == 0, said
    assert (tmp_path / "reloaded").exists()
    for name in ("fullchain.pem", "privkey.pem"):
        assert (tmp_path / "tls" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()
    assert (tmp_path / "tls/privkey.pem").stat().st_mode & 0o777 == 0o600
    assert set(_content(tmp_path / "tls")) == {"fullchain.pem", "privkey.pem"}


def test_a_pair_that_is_none_is_not(tmp_path: Path) -> None:
    _generate(tmp_path / "new", names=_NAMES)
    used = {"TLS_DIR": str(tmp_path / "tls"), "RELOAD_COMMAND": f"touch {tmp_path}/reloaded"}
    new = tmp_path / "new"
    code, said = _run("use_certificate.sh", new / "fullchain.pem", new / "ca-key.pem", **used)
    assert code == 1
    assert "do not belong together" in said
    code, said = _run("use_certificate.sh", new / "privkey.pem", new / "privkey.pem", **used)
    assert code == 1
    assert "is no certificate" in said
    assert not (tmp_path / "tls").exists()
    assert not (tmp_path / "reloaded").exists()
