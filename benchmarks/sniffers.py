"""Which delimiters and encodings newsbert finds in files of rows, and which other sniffers find.

    python benchmarks/sniffers.py [DIRECTORY]

The files are written to a temporary directory. With DIRECTORY, its files whose delimiter is known here are asked about,
too. newsbert gets each file as it is, the others unpacked and in UTF-8, so that they fail for no other reason; Python's
and clevercsv's sniffers read its first 16384 characters, and are also asked with newsbert's four delimiters to choose
from. In a file of one column no answer is right, and so is a delimiter that splits nothing.

An encoding is right if the file decodes to its text. newsbert knows only UTF-8 and UTF-16: it refuses a row that is
neither, and offers windows-1252 by name. A time includes the reading of the file; newsbert's is that of all it finds
out: packing, encoding, delimiter and header. clevercsv, DuckDB, charset-normalizer and chardet are asked if installed.
"""

import argparse
import csv
import importlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from newsbert.data import file_form
from newsbert.data.readers import RowFile
from newsbert.errors import DataError

REPEATS = 3
SAMPLE = 16384
DELIMITERS = ",;\t|"
WORDS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", " ": "blank", ":": "colon", "": "none"}
HEADER = [["text", "label"]]
MIXED = """Rain stops play, again, at Lord's~sport\nBank of England holds rates at 5%; pound slips~money
Live | Football: transfer deadline day~sport\n'We won't stop', says union chief~politics
Ministers call plan "unworkable"~politics\nChipmaker: supply, demand and a new plant~tech
Oil, gas, coal: who pays the bill?~money\nRobots don't dream; engineers do~tech
Champions League: City 2-1 Inter, late drama~sport\nPM's aide quits | latest~politics
Browser update breaks 1,000 sites~tech\nGoalkeeper breaks record~sport"""
PLAIN = """Central bank raises the rate~money\nRobot arm opens a jar~tech\nYoung sprinter wins in the rain~sport
Insurer sells its shares~money\nTelescope tests a new sensor~tech\nSwimmer signs for two seasons~sport"""
ONE_COMMA = """Rain stops play, again~sport\nShares fall, banks worried~money\nNew phone, old battery~tech
City win, United lose~sport\nOil up, gas down~money\nRobots learn, humans rest~tech"""
LANGUAGES = {
    "german": "Bürgermeister hält Rede, Bürger verärgert~politik\nBörse schließt höher: DAX über 18.000~wirtschaft\n"
    "Grüne und Union einigen sich „überraschend“~politik\nÖl wird teurer – Händler besorgt~wirtschaft",
    "french": "L'élève à l'école reçoit un prix, très fière~société\nLe maïs souffre, les prix grimpent~économie\n"
    "Où va la forêt brûlée ? Réponse à Nîmes~climat\nGrève à la gare : trains supprimés~société",
    "spanish": "El niño campeón: ¿quién es?~deporte\n¡Qué año! Récord de exportación~economía",
    "one_accent": f"{PLAIN}\nCafé chain cuts its prices by £2~money",
    "russian": "Центральный банк повысил ставку, рубль вырос~экономика\nУчёные открыли новую планету~наука",
    "japanese": "日銀、金利を引き上げ 円相場は小幅高~経済\n新型ロボットが工場で稼働~技術\n予算案を閣議決定~経済",
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252")
COMMAS = """clean d02_utf16 d03_cp1252 d04_trailing_empty_columns d07_float_labels d08_one_unlabelled d08b_nan_string
d09_bool d11_cr_only d12_header_blank d12b_header_case d13_news_aggregator d14_headerless d14b_amazon d14c_amazon_full
d14e_stars d15_pandas_index d16_kaggle/sample_submission d16_kaggle/test d16_kaggle/train d19_label_variants d23_guess
d24_trailing_delim d30_concatenated d32_gz_inside"""
KNOWN = {
    **{f"{name}.csv": "," for name in COMMAS.split()},
    **{"d01_semicolon.csv": ";", "d01b_sep_line.csv": ";", "only_text.csv": ""},
    **{"d02b_utf16.tsv": "\t", "d05_headerless_quotes.tsv": "\t", "d06b_tsv_quotes.tsv": "\t"},
}

Rows = list[list[str]]
File = tuple[Path, Path, Callable[[str], bool]]
"""A file of rows, the same in plain UTF-8, and whether an answer about it is right."""
Finders = dict[str, Callable[[Path, Path], str | None]]


def rows(bank: str, count: int = 60, numbered: bool = True) -> Rows:
    """Return so many rows; those that repeat an earlier one have a number."""
    pairs = [line.split("~") for line in bank.splitlines()]
    repeats = [(f" ({i})" if numbered and i >= len(pairs) else "", *pairs[i % len(pairs)]) for i in range(count)]
    return [[text + number, label] for number, text, label in repeats]


def quoted(records: Rows, delimiter: str = ",", quoting: Any = csv.QUOTE_MINIMAL, end: str = "\n") -> str:
    """Return records as `csv` writes them."""
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(records)
    return stream.getvalue()


def raw(records: Rows, delimiter: str, end: str = "\n", quotes: tuple[int, ...] = ()) -> str:
    """Return records with nothing but a delimiter between fields, and a quote before some."""
    return "".join('"' * (i in quotes) + delimiter.join(record) + end for i, record in enumerate(records))


def cases() -> dict[str, tuple[str, str]]:
    """Return the text and the right delimiter of each file."""
    mixed, plain, one, head = rows(MIXED), rows(PLAIN), rows(ONE_COMMA), HEADER
    bare = [row for row in rows(MIXED, 2000) if not {*row[0]} & {*';|"'}]
    few, swapped = bare[:45], [row[::-1] for row in head + mixed]
    breaks = [[row[0] + "\nBy our staff, in London;\nupdated" * (i % 3 == 0), row[1]] for i, row in enumerate(mixed)]
    unlabelled = [[row[0], row[1] * (i % 2)] for i, row in enumerate(mixed)]
    places, verbs = ("Council", "Harbour", "Museum", "Airline", "Ferry"), ("delays", "reopens", "shrinks", "loses")
    news = [f"{places[i % 5]} {verbs[i // 3 % 4]} {i}" for i in range(56)]
    decimals = [[text, f"0,{i * 37 % 100:02}"] for i, text in enumerate(news)]
    ends, labels = ("critics object", "costs rise", "fans cheer", "talks stall"), ("city", "sport", "money")
    distinct = [[f"{text}, {ends[i * 5 % 4]}", labels[i * 7 % 3]] for i, text in enumerate(news)]
    gaps = [row[:1] if i % 13 == 7 else row for i, row in enumerate(head + distinct)]
    return {
        "comma.csv": (quoted(head + mixed), ","),
        "comma_after_pipe.csv": (quoted(head + [[f"Live | {text}", row] for text, row in plain]), ","),
        "comma_apostrophes.csv": (quoted(head + [[f"'{text}' says editor", row] for text, row in plain]), ","),
        "comma_doubled_quotes.csv": (quoted(head + [[f'"{text}", says "the" boss', row] for text, row in plain]), ","),
        "comma_line_breaks.csv": (quoted(head + breaks, end="\r\n"), ","),
        "comma_label_first.csv": (quoted(swapped), ","),
        "comma_label_first_raw.csv": (raw([row for row in swapped if '"' not in row[1]], ","), ","),
        "comma_half_unlabelled.csv": (quoted(head + unlabelled), ","),
        "comma_late_in_texts.csv": (quoted(head + rows(PLAIN, 100) + rows(MIXED, 1900)), ","),
        "comma_stray_quotes.csv": (raw(head + plain, ",", quotes=(6, 41)), ","),
        "comma_below_title.csv": ("News export of 3 May\n\n" + quoted(head + distinct), ","),
        "comma_below_comments.csv": ("# source: wire, desk\n# cleaned; twice\n" + quoted(head + distinct), ","),
        "comma_named.tsv": (quoted(head + mixed), ","),
        "semicolon_all_quoted.csv": (quoted(head + mixed, ";", csv.QUOTE_ALL), ";"),
        "semicolon_raw_commas.csv": (raw(head + few, ";"), ";"),
        "semicolon_late_commas.csv": (raw(head + rows(PLAIN, 100) + bare, ";"), ";"),
        "semicolon_one_comma.csv": (raw(head + one, ";"), ";"),
        "semicolon_one_comma_headless.csv": (raw(one, ";"), ";"),
        "semicolon_decimals_headless.csv": (raw(decimals, ";"), ";"),
        "semicolon_line_breaks.csv": (quoted(head + breaks, ";", end="\r\n"), ";"),
        "semicolon_trailing.csv": (raw(head + few, ";", ";\n"), ";"),
        "semicolon_cr.csv": (raw(head + few, ";", "\r"), ";"),
        "semicolon_sep_line.csv": ("sep=;\r\n" + raw(head + few, ";", "\r\n"), ";"),
        "semicolon_stray_quote.csv": (raw(head + plain, ";", quotes=(9,)), ";"),
        "semicolon_sometimes_missing.csv": (raw(gaps, ";"), ";"),
        "semicolon_named.tsv": (raw(head + distinct, ";"), ";"),
        "pipe.csv": (raw(head + few, "|"), "|"),
        "pipe_one_comma_headless.csv": (raw(distinct, "|"), "|"),
        "pipe_sep_line_headless.csv": ("sep=|\r\n" + raw(one, "|", "\r\n"), "|"),
        "tab_named.csv": (quoted(head + mixed, "\t"), "\t"),
        "tab_stray_quotes.tsv": (raw(head + mixed, "\t", quotes=(6, 17, 28)), "\t"),
        "tab_quoted_line_breaks.tsv": (quoted(head + breaks, "\t"), "\t"),
        "one_column.csv": ("\n".join(row[0] for row in plain), ""),
        "one_column_commas.csv": ("\n".join(row[0] for row in head + few), ""),
        "one_column_one_comma.csv": ("\n".join(row[0] for row in head + one), ""),
    }


def module(name: str) -> Any:
    with suppress(ImportError):
        return importlib.import_module(name)
    print(f"{name} is not installed, so it is not asked.\n")
    return None


def sniff(library: Any, choice: str | None, _: Path, plain: Path) -> str | None:
    found = library.Sniffer().sniff(plain.read_bytes().decode()[:SAMPLE], choice)
    return found.delimiter if found else None


def ask_duckdb(connection: Any, _: Path, plain: Path) -> str:
    (told,) = connection.execute("SELECT Delimiter FROM sniff_csv(?)", [str(plain)]).fetchone()
    return str(told).replace("(empty)", "").replace("\\t", "\t")


def finders_of_delimiters() -> Finders:
    finders: Finders = {"newsbert": lambda path, _: getattr(file_form.inspect(path).dialect, "delimiter", None)}
    for name in ("csv", "clevercsv"):
        if library := module(name):
            finders[f"{name}.Sniffer"] = partial(sniff, library, None)
            finders[f"{name}.Sniffer, of four"] = partial(sniff, library, DELIMITERS)
    if duckdb := module("duckdb"):
        finders["DuckDB"] = partial(ask_duckdb, duckdb.connect(config={"threads": 1}))
    return finders


def finders_of_encodings() -> Finders:
    finders: Finders = {"newsbert": lambda path, _: file_form.inspect(path).encoding}
    if normalizer := module("charset_normalizer"):
        finders["charset-normalizer"] = lambda path, _: normalizer.from_bytes(path.read_bytes()).best().encoding
    if chardet := module("chardet"):
        finders["chardet"] = lambda path, _: chardet.detect(path.read_bytes())["encoding"]
    return finders


def compare(what: str, finders: Finders, files: Mapping[str, File]) -> None:
    """Print how many files each finder is right about, how fast, and what it says of the others."""
    print(f"| {what} | right | median µs a file | wrong |\n|---|---|---|---|")
    for finder, find in finders.items():
        wrong, seconds = [], []
        for name, (path, plain, is_right) in files.items():
            for _ in range(REPEATS):
                answer, started = "", time.perf_counter()
                with suppress(Exception):
                    answer = find(path, plain) or ""
                seconds.append(time.perf_counter() - started)
            if not is_right(answer):
                wrong.append(f"{name}: {WORDS.get(answer, answer)}")
        figures = f"{len(files) - len(wrong)}/{len(files)} | {statistics.median(seconds) * 1e6:.0f}"
        print(f"| {finder} | {figures} | {', '.join(wrong)} |", flush=True)
    print()


def delimited(path: Path, plain: Path, delimiter: str) -> File:
    """Return a file with a delimiter, or none, and write it in plain UTF-8."""
    form = file_form.inspect(path)
    with file_form.opened(path, form.compression, form.member) as stream:
        text = stream.read().decode("cp1252" if "cp1252" in path.name else form.encoding)
    plain.write_text(text, encoding="utf-8", newline="")

    def is_right(answer: str) -> bool:
        if delimiter or answer in {"", "\r", "\n"}:
            return answer == delimiter or not delimiter
        return all(len(record) < 2 for record in csv.reader(text.splitlines(), delimiter=answer))

    return path, plain, is_right


def encoded(path: Path, text: str, encoding: str) -> File:
    """Write a text in an encoding and return the file."""
    path.write_bytes(text.encode(encoding))

    def is_right(answer: str) -> bool:
        with suppress(LookupError, UnicodeDecodeError):  # the former: no such encoding
            return path.read_bytes().decode(answer).lstrip("\ufeff") == text
        return False

    return path, path, is_right


def offers_windows(path: Path) -> bool:
    """Return whether newsbert refuses the rows of a file and says that it may be windows-1252."""
    try:
        return not list(RowFile(path).rows())
    except DataError as error:
        return "windows-1252" in (error.hint or "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path)
    given = parser.parse_args().directory
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as name:
        directory, files = Path(name), {}
        for case, (text, delimiter) in cases().items():
            (directory / case).write_bytes(text.encode())
            files[case] = delimited(directory / case, directory / f"plain-{case}", delimiter)
        there = [case for case in KNOWN if given and (given / case).is_file()]
        print(f"{len(files)} files written here and {len(there)} of the directory\n")
        for case in there:
            files[case] = delimited(given / case, directory / f"plain-{case.replace('/', '-')}", KNOWN[case])
        compare("delimiters", finders_of_delimiters(), files)
        files = {}
        for language, bank in LANGUAGES.items():
            text = quoted(HEADER + rows(bank, numbered=False))
            for encoding in ENCODINGS[: 5 if language in {"russian", "japanese"} else 6]:
                files[f"{language} {encoding}"] = encoded(directory / f"{language}-{encoding}.csv", text, encoding)
        compare("encodings", finders_of_encodings(), files)
        for windows, which in ((True, "windows-1252"), (False, "UTF-8 or UTF-16")):
            offers = [offers_windows(path) for case, (path, *_) in files.items() if case.endswith("cp1252") is windows]
            print(f"newsbert offers windows-1252 by name for {sum(offers)} of {len(offers)} files in {which}")


if __name__ == "__main__":
    main()
