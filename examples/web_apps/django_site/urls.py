"""The addresses of the example."""

from django.urls import path

from django_site import views

urlpatterns = [
    path("reports", views.start),
    path("reports/<int:order_id>", views.progress),
]
