#!/usr/bin/env python3
"""Draws the pictures of the guide: guide/src/drawings/*.svg. Each says who asks whom, in which order."""
from html import escape
from math import cos, pi, sin
from pathlib import Path

FOLDER = Path(__file__).parent / "src" / "drawings"

# Who takes part, and what happens: (from, to, words); ("", who, words) is a note about one of them.
SEQUENCES = {
    "miss": (["Visitor", "App", "memcached", "Database"], [
        ("Visitor", "App", "show me the list"),
        ("App", "memcached", "get tasks"),
        ("memcached", "App", "no such key: a miss"),
        ("App", "Database", "SELECT …"),
        ("Database", "App", "Milk"),
        ("App", "memcached", "set tasks = Milk"),
        ("App", "Visitor", "Milk"),
        ("Visitor", "App", "show me the list"),
        ("App", "memcached", "get tasks"),
        ("memcached", "App", "Milk: a hit"),
        ("App", "Visitor", "Milk"),
    ]),
    "stale": (["Visitor", "App", "memcached", "Database"], [
        ("App", "memcached", "set tasks = Milk"),
        ("Visitor", "App", "add Tea"),
        ("App", "Database", "INSERT Tea"),
        ("Visitor", "App", "show me the list"),
        ("App", "memcached", "get tasks"),
        ("memcached", "App", "Milk: a hit"),
        ("App", "Visitor", "Milk, without Tea: stale"),
    ]),
    "race": (["Reader", "memcached", "Database", "Writer"], [
        ("Reader", "memcached", "get tasks: a miss"),
        ("Database", "Reader", "Milk"),
        ("Writer", "Database", "INSERT Tea"),
        ("Writer", "memcached", "delete tasks"),
        ("Reader", "memcached", "set tasks = Milk"),
        ("", "memcached", "stale, until the next write"),
    ]),
    "lease": (["Reader", "memcached", "Database", "Writer"], [
        ("Reader", "memcached", "get tasks: a miss"),
        ("Reader", "memcached", "reserve tasks: lease 7"),
        ("Database", "Reader", "Milk"),
        ("Writer", "Database", "INSERT Tea"),
        ("Writer", "memcached", "delete tasks"),
        ("Reader", "memcached", "set, if lease 7 is there"),
        ("memcached", "Reader", "it is not: not stored"),
        ("", "memcached", "empty: the next reader asks"),
    ]),
    "ledger": (["Writer", "Database", "memcached", "Other process"], [
        ("Writer", "Database", "Tea, and a row"),
        ("Writer", "Database", "commit"),
        ("", "Writer", "killed"),
        ("Other process", "Database", "which rows are left?"),
        ("Database", "Other process", "a row: delete tasks"),
        ("Other process", "memcached", "delete tasks"),
        ("Other process", "Database", "remove the row"),
    ]),
    "group": (["Reader", "memcached", "Writer"], [
        ("Reader", "memcached", "get page 1, group"),
        ("memcached", "Reader", "made for 17; it is 17"),
        ("", "Reader", "agreed: a hit"),
        ("Writer", "memcached", "delete group"),
        ("Reader", "memcached", "get page 1, group"),
        ("memcached", "Reader", "made for 17; none"),
        ("Reader", "memcached", "group is 42"),
        ("", "Reader", "17 is not 42: a miss"),
    ]),
    "message": (["Browser", "Cache of pages", "Handler", "Session"], [
        ("Browser", "Handler", "add Milk"),
        ("Handler", "Session", "message: Added Milk."),
        ("Handler", "Browser", "to the list; a marker"),
        ("Browser", "Handler", "the list; here is my marker"),
        ("Session", "Handler", "message: Added Milk."),
        ("Handler", "Browser", "the page with the message"),
        ("Browser", "Cache of pages", "the list"),
        ("Cache of pages", "Browser", "the page of all visitors"),
    ]),
}

STYLE = """<style>
text { font: 14px system-ui, sans-serif; fill: #1c1c1e } .note { font-style: italic }
.box { fill: #e8f0fb; stroke: #0b57a4 } .line { stroke: #9aa0a8; stroke-dasharray: 3 4 }
.arrow { stroke: #0b57a4; stroke-width: 1.5; fill: none } .head { fill: #0b57a4 }
@media (prefers-color-scheme: dark) {
text { fill: #e6e6e8 } .box { fill: #1d2b3d; stroke: #8ec2ff } .line { stroke: #6b7078 }
.arrow { stroke: #8ec2ff } .head { fill: #8ec2ff } }
</style>"""


def svg(width, height, title, parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
            f"<title>{escape(title)}</title>{STYLE}\n" + "\n".join(parts) + "\n</svg>\n")


def text(x, y, words, anchor="middle", kind=""):
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def box(x, y, words, width=130):
    return (f'<rect class="box" x="{x - width / 2:g}" y="{y}" width="{width}" height="30" rx="5"/>' + text(x, y + 20, words))


def arrow(x1, y1, x2, y2):
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    along_x, along_y = (x2 - x1) / length, (y2 - y1) / length
    back_x, back_y = x2 - 9 * along_x, y2 - 9 * along_y
    corners = [(x2, y2), (back_x - 5 * along_y, back_y + 5 * along_x), (back_x + 5 * along_y, back_y - 5 * along_x)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return (f'<path class="arrow" d="M{x1:.1f} {y1:.1f}L{back_x:.1f} {back_y:.1f}"/>'
            f'<polygon class="head" points="{points}"/>')


def sequence(title, names, steps):
    gap, width = 190, 190 * len(names)
    x = {name: gap * (number + 0.5) for number, name in enumerate(names)}
    height = 60 + 38 * len(steps) + 10
    parts = [f'<path class="line" d="M{at:g} 40V{height - 8}"/>' for at in x.values()]
    parts += [box(at, 10, name) for name, at in x.items()]
    for number, (sender, receiver, words) in enumerate(steps):
        y = 76 + 38 * number
        if sender:
            parts += [arrow(x[sender], y, x[receiver], y), text((x[sender] + x[receiver]) / 2, y - 6, words)]
        else:
            at = min(max(x[receiver], 100), width - 100)
            parts.append(text(at, y, words, kind="note"))
    return svg(width, height, title, parts)


def servers():
    parts = [box(110, 20, "App, process 1", 150), box(110, 130, "App, process 2", 150),
             box(500, 20, "memcached A"), box(500, 130, "memcached B")]
    for y in (35, 145):
        parts += [arrow(186, y, 434, 35), arrow(186, y, 434, 145)]
    parts += [text(310, 28, "tasks"), text(310, 163, "count"), text(310, 62, "count"), text(310, 128, "tasks")]
    parts.append(text(500, 95, "they do not know each other", kind="note"))
    return svg(620, 180, "Both processes compute the same server from a key", parts)


def ring():
    middle_x, middle_y, radius = 300, 165, 115
    parts = [f'<circle class="arrow" cx="{middle_x}" cy="{middle_y}" r="{radius}"/>']
    points = [("server A", 0.05, True), ("tasks", 0.18, False), ("server B", 0.30, True), ("count", 0.42, False),
              ("server A", 0.55, True), ("page 1", 0.67, False), ("server B", 0.80, True), ("page 2", 0.93, False)]
    for name, part, is_server in points:
        angle = 2 * pi * part - pi / 2
        x, y = middle_x + radius * cos(angle), middle_y + radius * sin(angle)
        anchor = "start" if cos(angle) > 0 else "end"
        shape = f'<circle class="head" cx="{x:.1f}" cy="{y:.1f}" r="5"/>' if not is_server else (
            f'<rect class="box" x="{x - 9:.1f}" y="{y - 9:.1f}" width="18" height="18"/>')
        parts += [shape, text(x + 18 * cos(angle), y + 18 * sin(angle) + 5, name, anchor)]
    parts += [text(middle_x, middle_y, "clockwise: a key (dot) belongs"), text(middle_x, middle_y + 20, "to the next server (square)")]
    return svg(600, 330, "A ring of keys and servers", parts)


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, (names, steps) in SEQUENCES.items():
        (FOLDER / f"{name}.svg").write_text(sequence(name, names, steps))
    (FOLDER / "servers.svg").write_text(servers())
    (FOLDER / "ring.svg").write_text(ring())


if __name__ == "__main__":
    main()
