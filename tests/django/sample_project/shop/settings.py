"""Settings with Runwell as the backend of tasks."""

SECRET_KEY = "only-for-tests"
INSTALLED_APPS = ["shop"]
USE_TZ = True
TASKS = {
    "default": {"BACKEND": "runwell.django.RunwellBackend", "QUEUES": ["default", "mails"]},
    "patient": {
        "BACKEND": "runwell.django.RunwellBackend",
        "QUEUES": ["slow"],
        "OPTIONS": {"max_attempts": 2, "priority_step": "1s"},
    },
}
