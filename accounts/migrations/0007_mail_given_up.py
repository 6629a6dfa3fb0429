from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class AddIndexOnline(AddIndexConcurrently):
    """Built beside those who write, where the database can do that; SQLite has one writer anyway."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        online = schema_editor.connection.vendor == "postgresql"
        operation = super() if online else super(AddIndexConcurrently, self)
        operation.database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        online = schema_editor.connection.vendor == "postgresql"
        operation = super() if online else super(AddIndexConcurrently, self)
        operation.database_backwards(app_label, schema_editor, from_state, to_state)


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('accounts', '0006_daily_token_quota'),
    ]

    operations = [
        AddIndexOnline(
            model_name='mail',
            index=models.Index(condition=models.Q(('given_up_at__isnull', False)), fields=['given_up_at'], name='mail_given_up'),
        ),
    ]
