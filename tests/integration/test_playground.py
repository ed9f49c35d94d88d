"""The page to try models on: its answers over HTTP, and what is seen of them in a browser."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

import newsbert
from newsbert.serving.playground.server import MOST_BYTES
from newsbert.serving.torchserve.process import Server
from tests.support.calls import free_port
from tests.support.cli import Cli
from tests.support.tiny_model import LABELS

AXE = Path(sys.prefix) / "npm/node_modules/axe-core/axe.min.js"
TEXT = "Coach and team: the cup, a vote"
WAIT_S = 30


@contextlib.contextmanager
def playing(*arguments: object, directory: Path) -> "Iterator[tuple[str, subprocess.Popen[str]]]":
    """`newsbert playground ARGUMENTS` and its URL, until Ctrl+C, to which it must answer with 0."""
    command = [sys.executable, "-m", "newsbert", "playground", "--port", "0", *map(str, arguments)]
    with (directory / "playground.log").open("w") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0."), (directory / "playground.log").read_text()
    try:
        yield url, process
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        process.stdout.close()


@pytest.fixture(scope="module")
def models(
    trained: tuple[newsbert.TrainResult, str], mlflow_server: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """A version on a tracking server, and that server."""
    version = newsbert.register(str(trained[0].bundle), "PlayModel", tracking_uri=mlflow_server)
    return str(version), mlflow_server


@pytest.fixture(scope="module")
def page(
    models: tuple[str, str], trained: tuple[newsbert.TrainResult, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The page of that version beside the bundle's directory."""
    directory = tmp_path_factory.mktemp("playground")
    name, uri = models
    with playing(name, "--compare-to", trained[0].bundle, "--tracking-uri", uri, directory=directory) as (url, _):
        yield url


def ask(url: str, body: bytes | dict[str, Any] | None = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, headers and document of an answer."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    sent = {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    request = urllib.request.Request(url, data, sent)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.headers, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            content = error.read()
            return error.code, error.headers, json.loads(content) if content[:1] == b"{" else content.decode()


def test_it_answers_as_the_model_does(page: str, trained: tuple[newsbert.TrainResult, str]) -> None:
    model = newsbert.load(trained[0].bundle)
    (expected,) = model.predict([TEXT])
    (explained,) = model.explain([TEXT], label=LABELS[1])
    assert ask(f"{page}/models/0/predictions", {"text": TEXT})[2] == expected.to_dict()
    assert ask(f"{page}/models/1/predictions", {"text": TEXT})[2] == expected.to_dict()
    assert ask(f"{page}/models/0/explanations", {"text": TEXT, "label": LABELS[1]})[2] == explained.to_dict()


def test_it_describes_its_models(page: str, models: tuple[str, str], trained: tuple[newsbert.TrainResult, str]) -> None:
    _, _, document = ask(f"{page}/models")
    first, second = document["models"]
    assert (first["name"], second["name"], second["run_id"]) == (models[0], trained[0].bundle.name, None)
    assert first["run_page"].startswith(f"{models[1]}/#/experiments/")
    assert first["run_page"].endswith(f"/runs/{first['run_id']}")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("models/0/predictions", {"text": " "}, {}, 400, "the text is empty"),
        ("models/0/predictions", {"text": 3}, {}, 400, "expected an object with 'text'"),
        ("models/0/predictions", b"[" * 100_000, {}, 400, "."),
        ("models/0/predictions", b"\xff", {}, 400, "."),
        ("models/0/explanations", {"text": "a", "label": "Cheese"}, {}, 400, "there is no label 'Cheese'"),
        ("models/0/explanations", {"text": "a", "label": [1]}, {}, 400, "there is no label"),
        ("models/9/predictions", {"text": "a"}, {}, 404, "there is no model 9"),
        ("models/0/predictions", {"text": "a" * MOST_BYTES}, {}, 413, "longer than 1,048,576 bytes"),
        # What a form on another page can send, and a page that reaches this machine by another name.
        ("models/0/predictions", {"text": "a"}, {"Content_Type": "text/plain"}, 415, "send application/json"),
        ("models", None, {"Host": "elsewhere.test"}, 400, "Invalid host"),
    ],
    ids=["empty", "number", "deep", "bytes", "label", "labels", "model", "long", "form", "host"],
)
def test_a_wrong_request_is_an_error(
    page: str, path: str, body: Any, headers: dict[str, str], status: int, message: str
) -> None:
    code, _, answer = ask(f"{page}/{path}", body, **headers)
    text = answer["message"] if isinstance(answer, dict) else answer
    assert code == status
    assert re.search(message, text)


def test_the_page_takes_nothing_from_elsewhere(page: str) -> None:
    for path in ("", "page.css", "page.js"):
        with urllib.request.urlopen(f"{page}/{path}", timeout=10) as response:
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            assert not re.search(rb"(https?:)?//\w", response.read().replace(b"// ", b""))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "http://127.0.0.1:1", "BertModel/1"], "--url and MODEL exclude each other"),
        (
            ["--url", "http://127.0.0.1:1", "--review-threshold", "0.5"],
            "--url and --review-threshold exclude each other",
        ),
        (["--url", "http://127.0.0.1:1"], "no model server answers"),
        (["./nowhere"], "nowhere"),
        (["--port", "70000"], "less than or equal to 65535"),
    ],
)
def test_what_cannot_be_shown_is_an_error(cli: Cli, arguments: list[str], message: str) -> None:
    done = cli("playground", *arguments)
    assert done.returncode in {1, 2}
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_an_error(cli: Cli, page: str, trained: tuple[newsbert.TrainResult, str]) -> None:
    done = cli("playground", trained[0].bundle, "--port", page.rpartition(":")[2])
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert "newsbert playground --port 0" in done.stderr


Browse = Callable[..., Any]


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Browse]:
    """Open a page in headless Chromium; its console must be empty by the end."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        if os.environ.get("NEWSBERT_REQUIRE_ENGINE"):
            pytest.fail("NEWSBERT_REQUIRE_ENGINE is set, and there is no chromium with chromedriver")
        pytest.skip("there is no chromium with chromedriver (Debian's packages chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'chromium'}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser: Any = webdriver.Chrome(options, webdriver.ChromeService(driver))

    def opened(url: str, width: int = 1200, *, dark: bool = False) -> Any:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(url)
        return browser

    try:
        yield opened
        assert browser.get_log("browser") == []
    finally:
        browser.quit()


def wait(browser: Any, condition: Callable[[Any], Any]) -> Any:
    return WebDriverWait(browser, WAIT_S).until(condition)


def all_of(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements(By.CSS_SELECTOR, selector))


def classify(browser: Any, text: str) -> None:
    """Type a text and Ctrl+Enter, and wait until both models have explained it."""
    wait(browser, lambda browser: all_of(browser, "section h2"))
    area = browser.find_element(By.ID, "text")
    area.clear()
    area.send_keys(text, Keys.CONTROL, Keys.ENTER)
    wait(browser, are_words_explained)


def are_words_explained(browser: Any) -> bool:
    cards = all_of(browser, "section")
    return bool(cards) and all(
        card.find_elements(By.CSS_SELECTOR, ".words span")
        and card.find_elements(By.CSS_SELECTOR, "details:not([hidden])")
        for card in cards
    )


def test_a_person_sees_probabilities_words_and_two_models(
    browse: Browse, page: str, models: tuple[str, str], trained: tuple[newsbert.TrainResult, str]
) -> None:
    browser = browse(page)
    classify(browser, TEXT)
    (expected,) = newsbert.load(trained[0].bundle).predict([TEXT])
    first, second = all_of(browser, "section")
    assert first.find_element(By.TAG_NAME, "h2").text == models[0]
    assert second.find_element(By.TAG_NAME, "h2").text == trained[0].bundle.name
    for card in (first, second):
        assert card.find_element(By.CSS_SELECTOR, ".verdict .label").text == expected.label
        assert card.find_element(By.CSS_SELECTOR, ".score").text == f"{expected.score * 100:.1f}% sure"
        assert card.find_element(By.CSS_SELECTOR, ".review").is_displayed() == expected.review
        shown = [row.text.split() for row in card.find_elements(By.CSS_SELECTOR, ".bars tbody tr")]
        assert [float(row[-1]) for row in shown] == pytest.approx(list(expected.probabilities.values()), abs=5e-4)
        widths = [bar.size["width"] for bar in card.find_elements(By.CSS_SELECTOR, ".bar span")]
        assert widths.index(max(widths)) == list(expected.probabilities).index(expected.label)
        assert card.find_element(By.CSS_SELECTOR, ".words").text == TEXT
    assert expected.label in browser.find_element(By.ID, "status").text


def test_another_label_can_be_explained(browse: Browse, page: str) -> None:
    browser = browse(page)
    classify(browser, TEXT)
    button = next(button for button in all_of(browser, "section:first-child .bars button") if button.text == LABELS[1])
    button.click()
    wait(
        browser,
        lambda browser: LABELS[1] in all_of(browser, "section:first-child .method")[0].get_attribute("textContent"),
    )
    assert button.get_attribute("aria-pressed") == "true"
    assert LABELS[1] in all_of(browser, "section:first-child h3")[0].text


def test_the_link_leads_to_the_run_in_mlflow(browse: Browse, page: str) -> None:
    browser = browse(page)
    wait(browser, lambda browser: all_of(browser, ".about a"))
    link = all_of(browser, ".about a")[0].get_attribute("href")
    run_id = link.rpartition("/")[2]
    browser.get(link)
    wait(browser, lambda browser: run_id in browser.page_source and "test_f1_macro" in browser.page_source)
    browser.get_log("browser")  # MLflow's own


def test_what_is_typed_is_shown_as_text(browse: Browse, page: str) -> None:
    """HTML of a text is taken out by the cleaning rules; what is left of it is never read as HTML."""
    browser = browse(page)
    classify(browser, 'cup < i > "team" &amp;lt;img src=x onerror=alert(1)&amp;gt; 🏆 goal')
    assert all_of(browser, "section img") == []
    assert "🏆 goal" in all_of(browser, ".words")[0].text


def test_it_works_with_the_keyboard_alone(browse: Browse, page: str) -> None:
    browser = browse(page)
    wait(browser, lambda browser: all_of(browser, "#examples button"))
    reached = []
    for _ in range(3):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(browser.switch_to.active_element)
    assert [element.tag_name for element in reached] == ["textarea", "button", "button"]
    reached[-1].send_keys(Keys.ENTER)  # the first example
    wait(browser, are_words_explained)
    assert browser.find_element(By.ID, "text").get_attribute("value") == reached[-1].text


def test_an_empty_text_is_not_sent(browse: Browse, page: str) -> None:
    browser = browse(page)
    wait(browser, lambda browser: all_of(browser, "#examples button"))
    all_of(browser, "button.main")[0].click()
    assert browser.find_element(By.ID, "status").text == ""
    assert browser.execute_script("return document.querySelector('#text').validity.valueMissing") is True


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_read_by_all(browse: Browse, page: str, dark: bool) -> None:
    """Axe finds nothing wrong: names, roles, contrast in light and dark."""
    if not AXE.is_file():
        if os.environ.get("NEWSBERT_REQUIRE_ENGINE"):
            pytest.fail(f"NEWSBERT_REQUIRE_ENGINE is set, and there is no {AXE}")
        pytest.skip("axe-core is not installed: make test does that, with npm")
    browser = browse(page, dark=dark)
    classify(browser, TEXT)
    for summary in all_of(browser, "summary"):
        summary.click()
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    script = "axe.run().then(arguments[0])"
    report: Any = browser.execute_async_script(script)
    assert len(report["passes"]) > 20
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in report["violations"]] == []


def test_it_fits_on_a_phone(browse: Browse, page: str) -> None:
    browser = browse(page, 360)
    classify(browser, TEXT)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360


def test_a_served_model_can_be_used(browse: Browse, server: Server, tmp_path: Path) -> None:
    with playing("--url", server.address.url, directory=tmp_path) as (url, _):
        browser = browse(url)
        classify(browser, TEXT)
        assert all_of(browser, "h2")[0].text == "TinyModel/1"
        assert [button.text for button in all_of(browser, ".bars button")] == list(LABELS)


def test_a_page_whose_server_has_ended_shows_an_error(
    browse: Browse, trained: tuple[newsbert.TrainResult, str], tmp_path: Path
) -> None:
    with playing(trained[0].bundle, directory=tmp_path) as (url, process):
        browser = browse(url)
        classify(browser, TEXT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        browser.find_element(By.ID, "text").send_keys(Keys.CONTROL, Keys.ENTER)
        error = wait(
            browser,
            lambda browser: next(element for element in all_of(browser, ".error[role]") if element.is_displayed()),
        )
        assert "Start it again: newsbert playground" in error.text
    browser.get_log("browser")  # the request that failed


def test_a_served_model_that_goes_away_is_an_error(
    browse: Browse, trained: tuple[newsbert.TrainResult, str], tmp_path: Path, cli: Cli
) -> None:
    port = free_port()
    done = cli("serve", "locally", trained[0].bundle, "--detach", "--port", port)
    assert done.returncode == 0, done.stderr
    with playing("--url", f"http://127.0.0.1:{port}", "--host", "127.0.0.2", directory=tmp_path) as (url, _):
        assert cli("serve", "stop", "--port", port).returncode == 0
        code, _, answer = ask(f"{url}/models/0/predictions", {"text": TEXT})
    assert code == 502
    assert "no model server answers" in answer["message"]
