from runwell.django import define_django_tasks

django_task = define_django_tasks("shop.settings")
