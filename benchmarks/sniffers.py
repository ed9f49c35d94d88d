"""Compare the delimiters that newsbert detects in files of rows with those of other sniffers.

    python benchmarks/sniffers.py [DIRECTORY]

The script writes the files to a temporary directory. With DIRECTORY, it also uses the files there whose delimiter it
knows. newsbert gets every file as it is. The other sniffers get it uncompressed and in UTF-8, so that they fail for no
other reason. The sniffers of Python and clevercsv read the first 16384 characters; they run once more with the choice
of newsbert's four delimiters. For a file of one column, no delimiter is right, and one that does not split a row too.

A time includes reading the file. newsbert's includes all that it detects: compression, encoding, delimiter and header.
clevercsv and DuckDB are measured if they are installed.
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
Sniffers = dict[str, Callable[[Path, Path], str | None]]


def make_rows(bank: str, count: int = 60) -> Rows:
    """Return rows of a text; those that repeat an earlier row have a number."""
    pairs = [line.split("~") for line in bank.splitlines()]
    repeats = [(f" ({i})" if i >= len(pairs) else "", *pairs[i % len(pairs)]) for i in range(count)]
    return [[text + number, label] for number, text, label in repeats]


def quoted(records: Rows, delimiter: str = ",", quoting: Any = csv.QUOTE_MINIMAL, end: str = "\n") -> str:
    """Return records as `csv` writes them."""
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(records)
    return stream.getvalue()


def raw(records: Rows, delimiter: str, end: str = "\n", quotes: tuple[int, ...] = ()) -> str:
    """Return records without quoting; the records with the numbers `quotes` have a stray quote."""
    return "".join('"' * (i in quotes) + delimiter.join(record) + end for i, record in enumerate(records))


def cases() -> dict[str, tuple[str, str]]:
    """Return the text and the right delimiter of every file."""
    mixed, plain, one, head = make_rows(MIXED), make_rows(PLAIN), make_rows(ONE_COMMA), HEADER
    bare = [row for row in make_rows(MIXED, 2000) if not {*row[0]} & {*';|"'}]
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
        "comma_late_in_texts.csv": (quoted(head + make_rows(PLAIN, 100) + make_rows(MIXED, 1900)), ","),
        "comma_stray_quotes.csv": (raw(head + plain, ",", quotes=(6, 41)), ","),
        "comma_below_title.csv": ("News export of 3 May\n\n" + quoted(head + distinct), ","),
        "comma_below_comments.csv": ("# source: wire, desk\n# cleaned; twice\n" + quoted(head + distinct), ","),
        "comma_named.tsv": (quoted(head + mixed), ","),
        "semicolon_all_quoted.csv": (quoted(head + mixed, ";", csv.QUOTE_ALL), ";"),
        "semicolon_raw_commas.csv": (raw(head + few, ";"), ";"),
        "semicolon_late_commas.csv": (raw(head + make_rows(PLAIN, 100) + bare, ";"), ";"),
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


def import_library(name: str) -> Any:
    """Import a module; return `None` if it is not installed."""
    with suppress(ImportError):
        return importlib.import_module(name)
    print(f"{name} is not installed.\n")
    return None


def sniff(library: Any, choice: str | None, _: Path, plain: Path) -> str | None:
    dialect = library.Sniffer().sniff(plain.read_bytes().decode()[:SAMPLE], choice)
    return dialect.delimiter if dialect else None


def sniff_with_duckdb(connection: Any, _: Path, plain: Path) -> str:
    (delimiter,) = connection.execute("SELECT Delimiter FROM sniff_csv(?)", [str(plain)]).fetchone()
    return str(delimiter).replace("(empty)", "").replace("\\t", "\t")


def list_sniffers() -> Sniffers:
    sniffers: Sniffers = {"newsbert": lambda path, _: getattr(file_form.inspect(path).dialect, "delimiter", None)}
    for name in ("csv", "clevercsv"):
        if library := import_library(name):
            sniffers[f"{name}.Sniffer"] = partial(sniff, library, None)
            sniffers[f"{name}.Sniffer, of four"] = partial(sniff, library, DELIMITERS)
    if duckdb := import_library("duckdb"):
        sniffers["DuckDB"] = partial(sniff_with_duckdb, duckdb.connect(config={"threads": 1}))
    return sniffers


def compare(sniffers: Sniffers, files: Mapping[str, File]) -> None:
    """Print the number of files for which every sniffer is right, its time, and its wrong answers."""
    print("| sniffer | right | median µs per file | wrong |\n|---|---|---|---|")
    for sniffer, find in sniffers.items():
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
        print(f"| {sniffer} | {figures} | {', '.join(wrong)} |", flush=True)


def write_plain(path: Path, plain: Path, delimiter: str) -> File:
    """Write a file in plain UTF-8, and return both with the test of an answer; `delimiter` may be empty."""
    form = file_form.inspect(path)
    with file_form.opened(path, form.compression, form.member) as stream:
        text = stream.read().decode("cp1252" if "cp1252" in path.name else form.encoding)
    plain.write_text(text, encoding="utf-8", newline="")

    def is_right(answer: str) -> bool:
        if delimiter or answer in {"", "\r", "\n"}:
            return answer == delimiter or not delimiter
        return all(len(record) < 2 for record in csv.reader(text.splitlines(), delimiter=answer))

    return path, plain, is_right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path)
    other_directory = parser.parse_args().directory
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as name:
        directory, files = Path(name), {}
        for case, (text, delimiter) in cases().items():
            (directory / case).write_bytes(text.encode())
            files[case] = write_plain(directory / case, directory / f"plain-{case}", delimiter)
        others = [case for case in KNOWN if other_directory and (other_directory / case).is_file()]
        print(f"{len(files)} files of the script, {len(others)} of the directory\n")
        for case in others:
            plain = directory / f"plain-{case.replace('/', '-')}"
            files[case] = write_plain(other_directory / case, plain, KNOWN[case])
        compare(list_sniffers(), files)


if __name__ == "__main__":
    main()
