"""A Django project of one application, which is the project itself."""
