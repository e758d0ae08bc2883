"""Orders of reports."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Makes the table."""

    initial = True
    operations = [  # noqa: RUF012 (Django's form)
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("title", models.CharField(max_length=100, unique=True)),
                ("run_id", models.CharField(max_length=40, blank=True)),
            ],
        )
    ]
