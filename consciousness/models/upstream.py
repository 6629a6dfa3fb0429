"""The engines that an operator added, and other names for models."""

from __future__ import annotations

import uuid

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from consciousness.models.query import MODEL_ID_LENGTH

ENGINE_NAME_LENGTH = 50


class Upstream(models.Model):
    """One server of the OpenAI protocol beside the one that ENGINE_URL names.

    Of those that serve a model, the lowest `priority` is asked first; among equals, shares go by
    `weight`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.SlugField(max_length=ENGINE_NAME_LENGTH, unique=True)
    url = models.URLField(max_length=300)
    sealed_api_key = models.BinaryField(blank=True, default=b"", editable=False)
    slots = models.PositiveSmallIntegerField(
        default=4, validators=[MinValueValidator(1), MaxValueValidator(1024)]
    )
    weight = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(100)]
    )
    priority = models.PositiveSmallIntegerField(default=0)
    is_enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "engine"
        ordering = ["priority", "name"]

    def __str__(self) -> str:
        return self.name


class ModelAlias(models.Model):
    """A name that callers may use for a model, such as the one their program insists on."""

    alias = models.CharField(max_length=MODEL_ID_LENGTH, unique=True)
    model = models.CharField(max_length=MODEL_ID_LENGTH)
    is_enabled = models.BooleanField(default=True)

    class Meta:
        verbose_name_plural = "model aliases"
        ordering = ["alias"]

    def __str__(self) -> str:
        return f"{self.alias} → {self.model}"
