"""`manage.py ask "…"`: the same question as over HTTP, from the terminal."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from consciousness.asks import Answer, Ask
from consciousness.engine_stream import Chunk
from consciousness.serializers import ProcessRequest
from consciousness.services import start_query
from sovereigncore.api import ServiceError


class Command(BaseCommand):
    help = (
        "Ask the model and print the answer as it is written. The query is recorded and counted "
        "like any other, for the user named, by default the first administrator."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("prompt")
        parser.add_argument("--user", help="whose query it is: a user name")
        parser.add_argument("--temperature", type=float, default=0.7, help="0 to 2 (0.7)")
        parser.add_argument("--max-tokens", type=int, default=500, help="1 to 4096 (500)")
        parser.add_argument("--model", default="", help="one of several models, by its id")
        parser.add_argument("--no-store", action="store_true", help="do not keep the text")

    def handle(self, *args: Any, **options: Any) -> None:
        form = ProcessRequest(
            data={
                "prompt": options["prompt"],
                "temperature": options["temperature"],
                "max_tokens": options["max_tokens"],
                **({"model": options["model"]} if options["model"] else {}),
                "store": not options["no_store"],
            }
        )
        if not form.is_valid():
            raise CommandError("; ".join(f"{k}: {v[0]}" for k, v in form.errors.items()))
        given = dict(form.validated_data)
        given.pop("stream")
        try:
            with start_query(user=_user(options["user"]), ask=Ask(**given)) as running:
                self._print(running)
        except ServiceError as error:
            raise CommandError(f"{error.detail} ({error.code})") from error

    def _print(self, events: Any) -> None:
        for event in events:
            if isinstance(event, Chunk):
                self.stdout.write(event.text, ending="")
                self.stdout.flush()
            elif isinstance(event, Answer):
                usage = event.usage
                self.stdout.write("")
                self.stderr.write(
                    f"[{event.model}: {usage.prompt_tokens} + {usage.completion_tokens} tokens,"
                    f" {event.processing_time_ms} ms, {event.finish_reason}]"
                )


def _user(username: str | None) -> Any:
    users = get_user_model().objects
    if username:
        try:
            return users.get_by_natural_key(username)
        except get_user_model().DoesNotExist as error:
            raise CommandError(f"there is no user {username!r}") from error
    first = users.filter(is_superuser=True).order_by("created_at").first()
    if first is None:
        raise CommandError("there is no administrator yet; run manage.py bootstrap")
    return first
