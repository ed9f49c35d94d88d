"""200 texts that no model of the tests was trained on: long, short, odd Unicode, HTML entities, title with text."""

import csv
import random
from importlib import resources
from typing import Any

from newsbert.data.text import NewsItem

_ODD = (
    "東京株式市場は小幅に反発した",
    "فاز الفريق بثلاثة أهداف",
    "Ærø, Łódź und Zürich wählen",
    "🏆⚽🥅 win!",
    "naïve café, fiancée",
    "e\u0301cole in decomposed form",
    "zero\u200bwidth\u200djoiner",
    "\u202eright to left override",
    "Ⅷ ½ ﬁne ligatures",
    "\ufefftext after a byte order mark",
    "tabs\tand\nnew\r\nlines",
    "𝔣𝔯𝔞𝔨𝔱𝔲𝔯 𝕕𝕠𝕦𝕓𝕝𝕖",
    "nul\x00and bell\x07",
    "ß İ ı ſ",
    "한국 정상회담",
)
_HTML = (
    "Profits at Smith &amp; Sons rise &gt; 5%", "It #39;s a deal:  quot;done quot;", "&lt;b&gt;Bold&lt;/b&gt; plan",
    "AT amp;T pays \\$41 billion,\\a record", "<a href='x'>Minister</a> resigns", "&#8220;No&#8221; says coach",
    "5 &lt; 6 and &unknown; stays", "caf&eacute; &nbsp; bank", "100 #36; a share", "a < b, b > c",
)  # fmt: skip


def sample_rows() -> list[dict[str, str]]:
    """The bundled sample."""
    content = (resources.files("newsbert") / "data/sample.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(content.splitlines()))


def held_out() -> list[NewsItem]:
    """The 200 items, in an order that mixes the kinds."""
    rows = sample_rows()
    rng = random.Random(7)
    titled: list[Any] = [{"title": row["title"], "text": row["text"]} for row in rows[:70]]
    plain = [row["text"] for row in rows[70:100]]
    short = [row["title"].split()[0] for row in rows[100:130]]
    long = [" ".join(row["text"] for row in rng.sample(rows, 12)) for _ in range(30)]
    odd = [f"{_ODD[index % len(_ODD)]}{' again' * (index // len(_ODD))}" for index in range(25)]
    html = [f"{_HTML[index % len(_HTML)]} {index // len(_HTML)}" for index in range(15)]
    items = [*titled, *plain, *short, *long, *odd, *html]
    rng.shuffle(items)
    return items
