"""What the example keeps: who wants which report, and which run writes it."""

from django.db import models


class Order(models.Model):
    """An order of a report."""

    title: "models.CharField[str, str]" = models.CharField(max_length=100, unique=True)
    run_id: "models.CharField[str, str]" = models.CharField(max_length=40, blank=True)
