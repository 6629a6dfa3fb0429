"""The WSGI application that gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

from sovereigncore.content_type import PlainContentType

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sovereigncore.settings")

application = PlainContentType(get_wsgi_application())
