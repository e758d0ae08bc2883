"""Runwell as the backend of Django's tasks: `enqueue()` triggers a run, and workers execute it.

    TASKS = {"default": {"BACKEND": "runwell.django.RunwellBackend"}}

For Django 6 and later, and with the package `django-tasks` for those before. A file in `trigger/`
calls `define_django_tasks("mysite.settings")`, so that a worker has the tasks.
"""

from runwell.django.backend import RunwellBackend
from runwell.django.execution import define_django_tasks

__all__ = ["RunwellBackend", "define_django_tasks"]
