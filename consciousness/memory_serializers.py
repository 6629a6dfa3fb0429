"""What the memory routes take and give."""

from __future__ import annotations

from rest_framework import serializers

from consciousness.models import MEMORY_LENGTH, Memory
from sovereigncore.strict import StrictCharField, StrictSerializer


class MemoryRequest(StrictSerializer):
    text = StrictCharField(max_length=MEMORY_LENGTH)


class MemorySearchRequest(StrictSerializer):
    search = StrictCharField(allow_blank=True, max_length=MEMORY_LENGTH)


class MemoryResponse(serializers.ModelSerializer[Memory]):
    class Meta:
        model = Memory
        fields = ("id", "text", "created_at", "updated_at")
