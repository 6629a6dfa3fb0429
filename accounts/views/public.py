"""What needs no account."""

from __future__ import annotations

from rest_framework.permissions import AllowAny
from rest_framework.views import APIView


class PublicView(APIView):
    """No account needed; a stale Authorization header is not even looked at."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
