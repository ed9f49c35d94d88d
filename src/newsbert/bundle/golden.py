"""Texts whose answers every bundle remembers, so that any environment can prove that it gives the same ones.

Written for newsbert; never rows of a user's data. They cover what preparation and tokenization must agree on: short
and long, title with text, HTML, AG News's broken entities, other scripts, emoji, odd white space, an unknown word.
"""

from newsbert.data.text import NewsItem

_LONG = (
    "Negotiators from eleven coastal states returned to the table after a night of storms had kept their aircraft on "
    "the ground, and began with the question that had divided them in spring: who pays when a harbour closes. "
)

GOLDEN_ITEMS: tuple[NewsItem, ...] = (
    "Stocks fall as oil rises",
    "Champions held to a goalless draw",
    "New chip doubles the battery life of phones",
    "Ministers sign border treaty",
    {"title": "Central bank leaves rates alone", "text": "Prices rose less than expected in the third quarter."},
    {"title": "Probe reaches ring of ice", "text": ""},
    {"title": "", "text": "The keeper saved two penalties and the cup stayed north."},
    "It #39;s a record: shares of AT amp;T rose to \\$41,\\said  quot;nobody quot; at all",
    "&lt;b&gt;Update&lt;/b&gt; <a href='x'>Parliament</a> votes on Caf&eacute; &amp; bar law&#8212;again",
    "Élections à Genève : São Paulo, Kraków, Ærø and Łódź send mayors",
    "東京株式市場は小幅に反発した",
    "فاز الفريق بثلاثة أهداف 🏆⚽ نظيفة",
    "tabs\tand\nlines \u00a0 and \u200bzero width",
    "qqzzxw",
    _LONG * 12,
)
