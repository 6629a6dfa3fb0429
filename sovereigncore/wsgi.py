"""The WSGI application that gunicorn serves."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection

from sovereigncore.content_type import PlainContentType

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sovereigncore.settings")

application = PlainContentType(get_wsgi_application())

if connection.vendor == "postgresql":
    from sovereigncore import database

    database.limit_waits(database.WEB_TIMEOUT_S)
    # So that `verify_deployment` sees with whose role web processes are connected.
    connection.settings_dict["OPTIONS"]["application_name"] = settings.WEB_APPLICATION_NAME
