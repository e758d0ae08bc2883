"""A Django project whose tasks are runs."""
