"""Thirty labelled rows, as text and in the forms that files of the world have."""

import io
import zipfile

LABELS = ("money", "sport", "tech")
ROWS = [(f"Headline {number}, of a “paper”", LABELS[number % 3]) for number in range(30)]
TEXT = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS)
JSON = [{"text": text, "label": label} for text, label in ROWS]
EVEN = dict.fromkeys(LABELS, 10)


def zipped(**members: str) -> bytes:
    """Return a zip archive of these files; `_` stands for the dot of a name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_csv", ".csv").replace("_dir", "/._x"), content)
    return stream.getvalue()


def swapped(header: str, **names: str) -> str:
    """Return the rows below another header, the label first and perhaps by another name."""
    lines = [header] if header else []
    return "".join(f"{line}\n" for line in [*lines, *(f'{names.get(label, label)},"{text}"' for text, label in ROWS)])
