"""What a person with a keyboard, a magnifier or a screen reader needs of a page, asked in it.

The rules are those of WCAG 2.2 AA that a program can check: 1.1.1, 1.3.1, 1.4.3, 1.4.10, 2.4.2,
2.4.3, 2.4.7, 2.5.8, 3.1.1, 4.1.2.
"""

from pathlib import Path

from support.chromium import Page

RULES = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
FOCUS = """
(() => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  const style = getComputedStyle(e), box = e.getBoundingClientRect();
  const order = [...document.querySelectorAll('*')].indexOf(e);
  return { order, seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
           inside: box.bottom > 0 && box.top < innerHeight, what: e.outerHTML.slice(0, 100) };
})()
"""
FOCUSABLE = """
[...document.querySelectorAll(
  "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"
)].filter((e) => e.checkVisibility() && !e.disabled && !(e.type === "radio" && !e.checked)).length
"""


def complaints(page: Page) -> list[str]:
    """Return what the page does wrong."""
    return page.run(RULES)


def walk(page: Page, most: int = 200) -> list[str]:
    """Press Tab through the whole page; return what is wrong on the way.

    Every stop shows that it has the focus, lies inside the window, and follows the one before.
    """
    page.run(
        "document.body.tabIndex = -1; document.body.focus();"
        " document.body.removeAttribute('tabindex'); scrollTo(0, 0)"
    )
    wrong, stops = [], []
    for _ in range(most):
        page.press("Tab")
        stop = page.run(FOCUS)
        if stop is None or (stops and stop["order"] <= stops[-1]):
            break
        stops.append(stop["order"])
        if not stop["seen"]:
            wrong.append(f"2.4.7 focus not seen: {stop['what']}")
        if not stop["inside"]:
            wrong.append(f"2.4.11 focus out of sight: {stop['what']}")
    focusable = page.run(FOCUSABLE)
    if len(stops) < focusable:
        wrong.append(f"2.1.1 {focusable - len(stops)} of {focusable} cannot be reached")
    return wrong
