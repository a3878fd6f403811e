"""An SVG of ns per packet against number of connections, beside macswap; legible on light and on dark pages."""

import math

from inside import millions

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 74, 150, 56, 64
SERIES = (("director_ns", "director", "#d9480f", "circle"), ("macswap_ns", "MAC swap", "#1c7ed6", "square"),
          ("lines_ns", "lines of memory alone", "#868e96", "circle"))


def step_for(most):
    """Distance of the lines: a round number, five to ten of them."""
    rough = most / 6
    magnitude = 10 ** math.floor(math.log10(rough))
    return next(magnitude * n for n in (1, 2, 5, 10) if magnitude * n >= rough)


def draw(points, caption):
    """The SVG's text; points are the rows of the pipeline."""
    points = sorted(points, key=lambda point: point["connections"])
    low, high = (math.log10(points[i]["connections"]) for i in (0, -1))
    margin = (high - low) * 0.06 or 0.5
    low, high = low - margin, high + margin
    most = max(point[key] for point in points for key, *_ in SERIES)
    step = step_for(most)
    top = step * math.ceil(most / step + 0.2)

    def x(n):
        return LEFT + (math.log10(n) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(ns):
        return HEIGHT - BOTTOM - ns / top * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">',
        "<title>Nanoseconds per packet against number of connections</title>",
        "<style>"
        "text{font:13px sans-serif;fill:#212529}.small{font-size:11px;fill:#495057}.title{font-size:16px;font-weight:bold}"
        ".page{fill:#ffffff}.grid{stroke:#ced4da}.axis{stroke:#495057}"
        "@media (prefers-color-scheme:dark){text{fill:#f1f3f5}.small{fill:#ced4da}.page{fill:#161b22}.grid{stroke:#373e47}.axis{stroke:#adb5bd}}"
        "</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="24">Nanoseconds per packet, direct routing, one worker</text>',
        f'<text class="small" x="{LEFT}" y="42">{escaped(caption)}</text>',
    ]
    for n in range(round(top / step) + 1):
        at = y(n * step)
        out.append(f'<line class="{"grid" if n else "axis"}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{n * step:g}</text>')
    decades = [10**n for n in range(math.ceil(low), math.floor(high) + 1)]
    for decade in decades:
        out.append(f'<line class="grid" x1="{x(decade):.1f}" x2="{x(decade):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke-dasharray="2 4"/>')
    out.append(f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for point in points:
        at = x(point["connections"])
        out.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 5}"/>')
        out.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{millions(point["connections"])}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text x="{middle:.0f}" y="{HEIGHT - 18}" text-anchor="middle">established connections (logarithmic)</text>')
    across = (TOP + HEIGHT - BOTTOM) / 2
    out.append(f'<text x="20" y="{across:.0f}" text-anchor="middle" transform="rotate(-90 20 {across:.0f})">ns per packet</text>')
    for key, name, colour, shape in SERIES:
        places = [(x(point["connections"]), y(point[key]), point[key]) for point in points]
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2.5" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b, _ in places)}"/>')
        for a, b, value in places:
            if shape == "circle":
                out.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4.5" fill="{colour}"/>')
            else:
                out.append(f'<rect x="{a - 4:.1f}" y="{b - 4:.1f}" width="8" height="8" fill="{colour}"/>')
            out.append(f'<text class="small" x="{a:.1f}" y="{b - 10:.1f}" text-anchor="middle">{value:.1f}</text>')
        a, b, _ = places[-1]
        out.append(f'<text x="{a + 34:.1f}" y="{b + 4:.1f}" style="fill:{colour};font-weight:bold">{name}</text>')
    return "\n".join([*out, "</svg>", ""])


def escaped(text):
    """For XML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
