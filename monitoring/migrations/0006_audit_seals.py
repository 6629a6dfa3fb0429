"""Seals of the audit trail, and archives of old ones. 0007 makes the triggers again that this takes
away while it changes the table."""

import django.db.models.deletion
from django.db import migrations, models

from monitoring.audit.append_only import permit_changes


def _permit(apps, schema_editor):
    permit_changes(schema_editor.connection)


class Migration(migrations.Migration):

    dependencies = [
        ('monitoring', '0005_job_succeeded_at'),
    ]

    operations = [
        migrations.RunPython(_permit, migrations.RunPython.noop),
        migrations.CreateModel(
            name='AuditArchive',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('first_seal', models.BigIntegerField(unique=True)),
                ('last_seal', models.BigIntegerField(unique=True)),
                ('last_id', models.BigIntegerField()),
                ('count', models.PositiveBigIntegerField()),
                ('chain', models.BinaryField(max_length=32)),
                ('file_name', models.CharField(max_length=100)),
                ('file_digest', models.BinaryField(max_length=32)),
                ('size_bytes', models.PositiveBigIntegerField()),
                ('archived_at', models.DateTimeField()),
                ('digest', models.BinaryField(max_length=32)),
            ],
        ),
        migrations.CreateModel(
            name='AuditSeal',
            fields=[
                ('id', models.BigIntegerField(primary_key=True, serialize=False)),
                ('first_id', models.BigIntegerField()),
                ('last_id', models.BigIntegerField()),
                ('count', models.PositiveIntegerField()),
                ('ids', models.JSONField()),
                ('sealed_at', models.DateTimeField()),
                ('contents', models.BinaryField(max_length=32)),
                ('chain', models.BinaryField(max_length=32)),
                ('digest', models.BinaryField(max_length=32)),
            ],
        ),
        migrations.RemoveIndex(
            model_name='auditevent',
            name='audit_by_actor',
        ),
        migrations.RemoveIndex(
            model_name='auditevent',
            name='audit_by_subject',
        ),
        migrations.AddConstraint(
            model_name='auditarchive',
            constraint=models.CheckConstraint(condition=models.Q(('last_seal__gte', models.F('first_seal'))), name='audit_archive_holds_seals'),
        ),
        migrations.AddConstraint(
            model_name='auditseal',
            constraint=models.CheckConstraint(condition=models.Q(('count__gte', 1), ('id__gte', 1), ('last_id__gte', models.F('first_id'))), name='audit_seal_holds_events'),
        ),
        migrations.AddField(
            model_name='auditevent',
            name='seal',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='events', to='monitoring.auditseal'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['seal', 'id'], name='audit_by_seal'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(condition=models.Q(('seal', None)), fields=['id'], name='audit_unsealed'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['-at', '-id'], name='audit_by_time'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['action', '-at'], name='audit_by_action'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['actor_id', '-at'], name='audit_by_actor'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['subject_id', '-at'], name='audit_by_subject'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['request_id', '-at'], name='audit_by_request'),
        ),
    ]
