"""The chapters in one text, to be read in one go and printed: what ``{{< cell book >}}`` of ``report/print.qmd`` shows.

That page's front matter lists the chapters. Everything of theirs stands open in it, and what needs a hand, such as a
widget, the code of a figure, or a way to its notebook, is left out. Python's standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

EQUATION = re.compile(r"\$\$((?:(?!\$\$).)+?)\s*\$\$ *\{#(eq-[\w-]+)\}", re.DOTALL)
HEADING = re.compile(r"^(#+) ", re.MULTILINE)
LINK = re.compile(r"\]\(([\w-]+)\.qmd(#[\w-]+)?\)")
TITLE = re.compile(r"^title: *(.*?) *$", re.MULTILINE)


def book(texts: Mapping[str, str], shortcode: re.Pattern[str], shown: Callable[[str, str], str],
         without_code: Callable[[str], str]) -> str:
    """The chapters in their order, each below a heading.

    Args:
        texts: the chapters' sources, by name.
        shortcode: the pattern of ``{{< cell label >}}`` and ``{{< var name >}}``.
        shown: what stands for one, of its two words.
        without_code: blanks in place of a text's code.
    """
    parts = [_chapter(name, text, texts, shortcode, shown, without_code) for name, text in texts.items()]
    whole = "\n\n".join(parts) + "\n"
    # Quarto numbers no equation in what a shortcode brings.
    numbers = {match[2]: number for number, match in enumerate(EQUATION.finditer(whole), 1)}
    whole = EQUATION.sub(lambda match: f"[]{{#{match[2]}}} $$ {match[1].strip()} \\qquad({numbers[match[2]]}) $$",
                         whole)
    return re.sub(r"@(eq-[\w-]+)", lambda match: f"[Equation {numbers[match[1]]}](#{match[1]})"
                  if match[1] in numbers else match[0], whole)


def _chapter(name: str, text: str, texts: Mapping[str, str], shortcode: re.Pattern[str],
             shown: Callable[[str, str], str], without_code: Callable[[str], str]) -> str:
    _, front, body = text.split("---\n", 2)
    visible = without_code(body)
    changes = [(match.span(1), "#" + match[1]) for match in HEADING.finditer(visible)]
    changes += [(match.span(), shown(match[1], match[2])) for match in shortcode.finditer(visible)]
    changes += [(match.span(), f"]({match[2] or f'#chapter-{match[1]}'})") for match in LINK.finditer(visible)
                if match[1] in texts]
    for (start, end), new in sorted(changes, reverse=True):
        body = body[:start] + new + body[end:]
    body = body.replace(' collapse="true"', "")
    title = TITLE.search(front)[1].strip("\"'")
    return f"## {title} {{#chapter-{name} .chapter}}\n\n{body.strip()}"
