"""Foreign text on a terminal: nothing that it holds is obeyed there."""

import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsbert.bundle.bundle import Bundle
from newsbert.cli._output import Output
from newsbert.core.terminal import has_controls, show_controls
from newsbert.errors import NewsbertError
from newsbert.serving.server_events import ServerEvent
from tests.support.cli import Cli

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u2066\r\ud800\x7f"
OBEYED = set(HOSTILE) - set("]0;owned[2J31mevil")


@given(st.text(st.characters()))
def test_attack_control_characters_are_escaped(text: str) -> None:
    shown = show_controls(text)
    assert not has_controls(shown.replace("\n", "").replace("\t", ""))
    assert json.loads(show_controls(json.dumps(text, ensure_ascii=False))) == text
    if not has_controls(text):
        assert shown == text


def test_attack_no_command_prints_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    for log_format in ("text", "json"):
        output = Output(log_format=log_format)
        output.result(HOSTILE)
        output.table([HOSTILE, "b"], [[HOSTILE, HOSTILE]], title=HOSTILE)
        output.raw(HOSTILE.encode("utf-8", "surrogatepass"))
        output.raw_log(HOSTILE.encode("utf-8", "surrogatepass"))
        output.log(HOSTILE)
        output.event("log", HOSTILE, detail=HOSTILE)
        output.problem(ServerEvent("worker-died", HOSTILE, details={"worker": HOSTILE}))
        output.note(HOSTILE)
        output.next_command(HOSTILE)
        error = NewsbertError(HOSTILE, HOSTILE)
        error.add_note(HOSTILE)
        output.error(error, debug=True)
        with output.progress() as progress:
            progress.phase(HOSTILE)
            progress.update(HOSTILE, 1, 1, {HOSTILE: HOSTILE})
        Output(as_json=True).error(error)
        Output(as_json=True).unexpected(ValueError(HOSTILE))
    written = capsys.readouterr()
    assert written.out.count("owned") >= 12
    assert written.err.count("owned") >= 12
    assert not OBEYED & set(written.out + written.err)


def test_a_chunk_may_end_within_a_character(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    for byte in "Müller\n".encode():
        output.raw(bytes([byte]))
        output.raw_log(bytes([byte]))
    assert capsys.readouterr() == ("Müller\n", "Müller\n")


def test_attack_explain_escapes_the_text(bundle: Bundle) -> None:
    hostile = "goal \x1b]0;owned\x07\x1b[2J\u202e team\x9b"
    master, slave = pty.openpty()
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                chunk = os.read(master, 4096)
            except OSError:  # Linux has this for the end of a terminal
                return
            shown.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run(
        [sys.executable, "-m", "newsbert", "explain", "--model", str(bundle.path), hostile],
        stdin=slave, stdout=slave, stderr=slave, timeout=120, check=False,
    )  # fmt: skip
    os.close(slave)
    reader.join()
    os.close(master)
    text = shown.decode()
    assert done.returncode == 0, text
    assert "goal" in text
    assert "owned" in text
    for obeyed in ("\x1b]", "\x1b[2J", "\x07", "\u202e", "\x9b"):
        assert obeyed not in text


@pytest.mark.parametrize("hostile", ["\x1b[31mSport", "Sp\u202eort"])
def test_attack_a_label_with_a_control_character_is_refused(cli: Cli, tmp_path: Path, hostile: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"text": f"text {index}", "label": ["World", hostile][index % 2]}) + "\n" for index in range(20)
        )
    )
    done = cli("train", "--data", rows, "--epochs", 1)
    assert done.returncode == 1
    assert "holds a control character" in done.stderr
    assert not OBEYED & set(done.stdout + done.stderr)
    named = cli("train", "--data", rows, "--epochs", 1, "--labels", f"World,{hostile}")
    assert named.returncode == 1
    assert "holds a control character" in named.stderr
