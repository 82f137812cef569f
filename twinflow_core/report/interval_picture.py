"""A rule's value and interval against its bound, as a small SVG whose colours come from the page."""

from __future__ import annotations

from markupsafe import Markup

from twinflow_core.gates.outcome import RuleOutcome

WIDTH, HEIGHT = 280.0, 46.0
BAND_TOP, BAND_HEIGHT = 6.0, 22.0
LABEL_BASELINE = HEIGHT - 4
ROOM_FOR_LABEL = 24.0
# Of numbers closer than that, parts of the span would round to nothing.
SMALLEST_SPAN = 1e-300


def interval_picture(outcome: RuleOutcome) -> Markup:
    """The allowed side tinted, the bound as a line, the interval as a bar, the value as a dot.

    Args:
        outcome: a rule's outcome.

    Returns:
        An `<svg>` element, or empty markup where there is no value or no bound to draw.
    """
    if outcome.value is None or outcome.bound is None:
        return Markup("")
    marks = [outcome.value, outcome.bound]
    marks += [mark for mark in (outcome.low, outcome.high) if mark is not None]
    if outcome.kind == "margin":
        marks.append(0.0)
    span = max(marks) - min(marks) or abs(outcome.bound)
    if span < SMALLEST_SPAN:
        span = 1.0
    left, right = min(marks) - 0.15 * span, max(marks) + 0.15 * span

    def x(value: float) -> float:
        return round(WIDTH * (value - left) / (right - left), 1)

    bound, middle = x(outcome.bound), BAND_TOP + BAND_HEIGHT / 2
    upwards = outcome.kind == "min" or (outcome.kind == "margin" and outcome.better == "higher")
    start, width = (bound, WIDTH - bound) if upwards else (0.0, bound)
    parts = [
        _box("forbidden", 0, WIDTH),
        _box("allowed", start, width),
        _line("bound", bound, BAND_TOP - 4, BAND_TOP + BAND_HEIGHT + 4),
        _label(f"{outcome.bound:.3g}", bound),
    ]
    if outcome.kind == "margin":
        parts.append(_line("same", x(0.0), BAND_TOP, BAND_TOP + BAND_HEIGHT))
        if abs(x(0.0) - bound) > 2.5 * ROOM_FOR_LABEL:
            parts.append(_label("champion", x(0.0)))
    if outcome.low is not None and outcome.high is not None:
        low, high = x(outcome.low), x(outcome.high)
        length = f'width="{max(high - low, 1):.1f}" height="6" rx="3"'
        parts.append(f'<rect class="interval" x="{low}" y="{middle - 3}" {length}/>')
    parts.append(f'<circle class="value" cx="{x(outcome.value)}" cy="{middle}" r="5"/>')
    box = f'viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img"'
    # Numbers and fixed words alone: nothing here needs escaping.
    return Markup(
        f'<svg class="interval-picture" {box}><title>{_describe(outcome)}</title>{"".join(parts)}</svg>'
    )


def _describe(outcome: RuleOutcome) -> str:
    interval = ""
    if outcome.low is not None and outcome.high is not None:
        interval = f", interval {outcome.low:.4g} to {outcome.high:.4g}"
    return f"value {outcome.value:.4g}{interval}, bound {outcome.bound:.4g}"


def _box(name: str, start: float, width: float) -> str:
    return f'<rect class="{name}" x="{start:g}" y="{BAND_TOP}" width="{width:.1f}" height="{BAND_HEIGHT}"/>'


def _line(name: str, x: float, top: float, bottom: float) -> str:
    return f'<line class="{name}" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>'


def _label(text: str, x: float) -> str:
    place = min(max(x, ROOM_FOR_LABEL), WIDTH - ROOM_FOR_LABEL)
    return f'<text x="{place:g}" y="{LABEL_BASELINE}" text-anchor="middle">{text}</text>'
