"""Order a report in a transaction, and follow its run."""

from django.db import IntegrityError, transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST
from trigger.report import ReportRequest, write_report

from django_site.models import Order
from runwell.sync import runs


@csrf_exempt  # the example has no form and no session
@require_POST
def start(request: HttpRequest) -> JsonResponse:
    """Store an order, and trigger its run once the order is there for good."""
    title = request.POST.get("title", "").strip()
    if not title:
        return JsonResponse({"error": "give a title"}, status=422)
    try:
        with transaction.atomic():
            order = Order.objects.create(title=title)
            transaction.on_commit(lambda: write(order))
    except IntegrityError:
        # Rolled back: the trigger never happened.
        return JsonResponse({"error": f"{title!r} is ordered already"}, status=409)
    return JsonResponse({"order": order.pk, "run_id": order.run_id}, status=202)


def write(order: Order) -> None:
    """Trigger the run of an order; however often this is called, there is one."""
    handle = write_report.sync.trigger(
        ReportRequest(title=order.title), idempotency_key=["order", str(order.pk)], tags=["web"]
    )
    order.run_id = handle.id
    order.save(update_fields=["run_id"])


@require_GET
def progress(_request: HttpRequest, order_id: int) -> JsonResponse:
    """How far the report of an order is."""
    order = get_object_or_404(Order, pk=order_id)
    if not order.run_id:
        # The process died between commit and trigger: make up for it.
        write(order)
    run = runs.retrieve(order.run_id)
    return JsonResponse(
        {
            "run_id": run.id,
            "status": run.status,
            "done": (run.metadata or {}).get("done", 0),
            "is_finished": run.is_completed,
            "report": run.output,
        }
    )
