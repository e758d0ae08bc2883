"""Charts, drawn here as SVG: no script is needed to read them."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

_WIDTH, _GAP, _HEIGHT = 6, 2, 28


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One interval of a chart: how much went well, how much went wrong."""

    good: int
    bad: int
    title: str


def draw_bars(bars: Sequence[Bar], *, label: str) -> Markup:
    """Bars of two colours, as high as the most there is; each says its numbers when pointed at."""
    most = max([1, *(bar.good + bar.bad for bar in bars)])
    step = _WIDTH + _GAP
    parts: list[Markup] = []
    for place, bar in enumerate(bars):
        bad = round(bar.bad / most * _HEIGHT, 1)
        good = round(bar.good / most * _HEIGHT, 1)
        x = place * step
        parts.append(
            Markup(
                "<g><title>{title}</title>"
                '<rect class="back" x="{x}" y="0" width="{w}" height="{h}"/>'
                '<rect class="good" x="{x}" y="{gy}" width="{w}" height="{good}"/>'
                '<rect class="bad" x="{x}" y="{by}" width="{w}" height="{bad}"/></g>'
            ).format(
                title=bar.title,
                x=x,
                w=_WIDTH,
                h=_HEIGHT,
                gy=round(_HEIGHT - good - bad, 1),
                good=good,
                by=round(_HEIGHT - bad, 1),
                bad=bad,
            )
        )
    return Markup(
        '<svg class="bars" role="img" aria-label="{}" width="{}" height="{}" '
        'viewBox="0 0 {} {}">{}</svg>'
    ).format(
        label,
        len(bars) * step - _GAP,
        _HEIGHT,
        len(bars) * step - _GAP,
        _HEIGHT,
        Markup().join(parts),
    )
