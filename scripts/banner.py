"""What the launcher shows once the platform answers. Words only: it does nothing."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from scripts.prepare import Administrator, Plan

_QUESTION = '{"prompt": "What is the capital of France?", "temperature": 0}'
_ACCOUNT = '{"username": "NAME", "email": "NAME@example.org", "password": "PASSWORD"}'
_GEMMA_TERMS = "https://ai.google.dev/gemma/terms"
_PASSWORD_TO_FILL_IN = "YOUR-PASSWORD"  # noqa: S105 - says what to put there


def compose(plan: Plan, admin: Administrator | None, *, env_file: Path, python: str) -> str:
    """What a newcomer needs next: where it is, how to get in, and a first question to paste."""
    url = plan.public_base_url
    rows = [("Admin site", f"{url}/admin/")]
    if plan.has_api_docs:
        rows.append(("API documentation", f"{url}/api/docs"))
    if admin is not None:
        rows.append(("Administrator", admin.username))
        if admin.password:
            rows.append(("Password (shown once)", admin.password))
        else:
            rows.append(
                ("Lost its password?", f"{python} manage.py changepassword {admin.username}")
            )
    rows += [
        ("Settings", str(env_file)),
        ("Data", str(plan.data_dir)),
        ("Logs", str(plan.data_dir / "logs")),
    ]
    width = max(len(name) for name, _ in rows) + 3
    return "\n".join(
        [
            "",
            f"SovereignCore is running: {url}",
            "",
            *(f"  {name:<{width}}{value}" for name, value in rows),
            "",
            *_first_question(plan, admin),
            *_model_notice(plan),
            "Ctrl-C stops everything.",
            "",
        ]
    )


def _first_question(plan: Plan, admin: Administrator | None) -> list[str]:
    """Two commands for any shell, with nothing but curl and sed."""
    username = admin.username if admin else "YOU"
    if admin and admin.password:
        return [
            "Ask it something: copy both commands into another terminal.",
            "",
            *_question_commands(plan, username, admin.password),
        ]
    return [
        f"Ask it something (with the password in place of {_PASSWORD_TO_FILL_IN}):",
        "",
        *_question_commands(plan, username, _PASSWORD_TO_FILL_IN),
        *_registration(plan),
    ]


def _question_commands(plan: Plan, username: str, password: str) -> list[str]:
    url = plan.public_base_url
    curl = _curl(url)
    token = (
        f"{curl} {url}/api/v1/auth/token -d username={username}"
        f" --data-urlencode 'password={password}'"
        """ | sed -n 's/.*"access_token": *"\\([^"]*\\)".*/\\1/p'"""
    )
    question = (
        f"{curl} -w '\\n' {url}/api/v1/consciousness/process"
        """ -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json'"""
        f" -d '{_QUESTION}'"
    )
    return [f"TOKEN=$({token})", question, ""]


def _registration(plan: Plan) -> list[str]:
    if not plan.may_register:
        return []
    url = plan.public_base_url
    command = (
        f"{_curl(url)} -w '\\n' {url}/api/v1/users/register"
        f" -H 'Content-Type: application/json' -d '{_ACCOUNT}'"
    )
    return ["No account? Make one:", "", command, ""]


def _curl(url: str) -> str:
    """curl would send even loopback addresses to a proxy that the environment names."""
    host = urlsplit(url).hostname or ""
    proxies = urllib.request.getproxies()
    is_proxied = ("http" in proxies or "all" in proxies) and not urllib.request.proxy_bypass(host)
    is_local = host in ("127.0.0.1", "localhost", "::1")
    return "curl -s --noproxy '*'" if is_proxied and is_local else "curl -s"


def _model_notice(plan: Plan) -> list[str]:
    if not plan.uses_bundled_model:
        return []
    return [
        "The bundled model, Gemma 3 270M, is small and often wrong. Gemma is provided under and",
        f"subject to the Gemma Terms of Use found at {_GEMMA_TERMS}",
        "",
    ]
