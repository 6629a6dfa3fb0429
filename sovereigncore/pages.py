"""The front page: the web console for people, a few facts for programs."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from sovereigncore import console


@csrf_exempt
@require_safe
@vary_on_headers("Accept")
def home(request: HttpRequest) -> HttpResponse:
    if "text/html" in request.headers.get("Accept", ""):
        context = {
            "version": settings.VERSION,
            "api_docs": settings.API_DOCS,
            "may_register": settings.REGISTRATION_MODE in ("open", "verified"),
            "assets": console.address(),
            "modules": console.modules(),
        }
        page = render(request, "console/console.html", context)
        page["Cache-Control"] = "no-cache"  # it names the release's files: always asked for anew
        return page
    return JsonResponse(
        {
            "name": "SovereignCore",
            "version": settings.VERSION,
            "docs": "/api/docs" if settings.API_DOCS else None,
            "api": "/api/v1",
            "openai": "/v1",
        }
    )


@csrf_exempt
@require_safe
def to_admin(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/admin/")
