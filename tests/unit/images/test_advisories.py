"""Advisories in the OSV format: which components of an SBOM they affect, and files that have none."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from newsbert.errors import NewsbertError
from newsbert.images import advisories

SBOM = {
    "components": [
        {"name": "Jinja2", "purl": "pkg:pypi/jinja2@3.1.2"},
        {"name": "netty-codec", "purl": "pkg:maven/io.netty/netty-codec@4.1.53.Final"},
        {
            "name": "libssl3",
            "purl": "pkg:deb/debian/libssl3@3.0.11-1~deb12u2?arch=amd64&distro=debian-12&upstream=openssl",
        },
        {
            "name": "libgcc-s1",
            "purl": "pkg:deb/debian/libgcc-s1@12.2.0-14?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-13",
        },
        {"name": "BertModel", "type": "machine-learning-model"},
    ]
}


def _advisory(ecosystem: str, name: str, *, versions: list[str] | None = None, **range_: Any) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", **range_}] if range_ else []
    affected = {"package": {"ecosystem": ecosystem, "name": name}, "versions": versions or [], "ranges": ranges}
    return {"id": "GHSA-1", "aliases": ["CVE-1"], "summary": "bad", "affected": [affected]}


def _affected(advisory: dict[str, Any]) -> list[str]:
    return [finding.component for finding in advisories.find(SBOM, [advisory])]


@pytest.mark.parametrize(
    ("events", "affected"),
    [
        ([{"introduced": "0"}, {"fixed": "3.1.3"}], True),
        ([{"introduced": "0"}, {"fixed": "3.1.2"}], False),
        ([{"fixed": "3.1.3"}, {"introduced": "0"}], True),
        ([{"introduced": "3.1.2"}], True),
        ([{"introduced": "3.1.3rc1"}], False),
        ([{"introduced": "0"}, {"last_affected": "3.1.2"}], True),
        ([{"introduced": "0"}, {"last_affected": "3.1.1"}], False),
        ([{"introduced": "0"}, {"fixed": "2.0"}, {"introduced": "3.0"}, {"fixed": "3.2"}], True),
        ([{"introduced": "0"}, {"fixed": "2.0"}, {"introduced": "3.1.10"}, {"fixed": "3.2"}], False),
        ([{"introduced": "0"}, {"fixed": "no version at all"}], False),
    ],
)
def test_a_range_has_a_version_between_its_events(events: list[dict[str, str]], affected: bool) -> None:
    assert _affected(_advisory("PyPI", "Jinja2", events=events)) == (["Jinja2"] if affected else [])


def test_a_version_in_a_list_is_affected() -> None:
    assert _affected(_advisory("PyPI", "jinja2", versions=["3.1.2"])) == ["Jinja2"]
    assert _affected(_advisory("PyPI", "jinja2", versions=["3.1.1"])) == []


def test_versions_are_compared_as_their_ecosystem_does() -> None:
    events = [{"introduced": "4.0.0"}, {"fixed": "4.1.100.Final"}]
    assert _affected(_advisory("Maven", "io.netty:netty-codec", events=events)) == ["netty-codec"]
    assert _affected(_advisory("Maven", "io.netty:netty-codec", events=[{"introduced": "4.1.60.Final"}])) == []
    until = [{"introduced": "0"}, {"fixed": "3.0.11-1~deb12u10"}]
    assert _affected(_advisory("Debian:12", "openssl", events=until)) == ["libssl3"]
    assert _affected(_advisory("Debian:13", "openssl", events=until)) == []
    assert _affected(_advisory("Debian:12", "libssl3", events=until)) == []  # it is named for its source


def test_the_version_of_the_source_counts() -> None:
    events = [{"introduced": "0"}, {"fixed": "12.2.0-14"}]
    (finding,) = advisories.find(SBOM, [_advisory("Debian:12", "gcc-12", events=events)])
    assert (finding.component, finding.version, finding.fixed) == ("libgcc-s1", "12.2.0-13", ("12.2.0-14",))
    assert (finding.advisory, finding.aliases, finding.summary) == ("GHSA-1", ("CVE-1",), "bad")


def test_withdrawn_advisories_and_commits_do_not_count() -> None:
    advisory = _advisory("PyPI", "jinja2", events=[{"introduced": "0"}])
    assert _affected({**advisory, "withdrawn": "2026-01-01T00:00:00Z"}) == []
    assert _affected(_advisory("PyPI", "jinja2", type="GIT", events=[{"introduced": "0"}])) == []


def test_files_have_one_or_many(tmp_path: Path) -> None:
    advisory = _advisory("PyPI", "jinja2", versions=["3.1.2"])
    file = tmp_path / "advisories"
    for content in (advisory, [advisory], {"vulns": [advisory]}):
        file.write_text(json.dumps(content))
        assert advisories.read(file) == [advisory]
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.json", json.dumps(advisory))
    assert advisories.read(file) == [advisory] * 3


@pytest.mark.parametrize(
    "content",
    [
        "", "[", "7", "[7]", '{"id": 7}', '{"name": "x"}', '{"id": "x", "affected": 7}', '{"vulns": [{}]}',
        '{"id": "x", "affected": [{"package": {"ecosystem": "PyPI", "name": "y"}, "ranges": [7]}]}',
        '{"id": "x", "affected": [{"package": {"ecosystem": "PyPI", "name": "y"}, "ranges": [{"events": [7]}]}]}',
        '{"id": "x", "affected": [{"package": {"ecosystem": "PyPI", "name": "y"}, "ranges": 7}]}',
        '{"id": "x", "affected": [{"package": {"ecosystem": "PyPI", "name": "y"}, "versions": 7}]}',
        pytest.param("[" * 100_000, id="nested"),
    ],
)  # fmt: skip
def test_what_is_no_advisory_is_an_error(content: str, tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text(content)
    with pytest.raises(NewsbertError) as caught:
        advisories.read(file)
    assert "file.json" in caught.value.message
    assert "osv.dev" in str(caught.value.hint)


@pytest.mark.parametrize(
    "sbom", [{}, {"components": 7}, {"components": [7, {}, {"purl": 7, "name": "x"}, {"purl": "pkg:pypi/x@1"}]}]
)
def test_an_sbom_of_another_form_has_no_packages(sbom: dict[str, Any]) -> None:
    assert list(advisories.list_packages(sbom)) == []


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NewsbertError, match="cannot be read"):
        advisories.read(tmp_path / "none.json")
