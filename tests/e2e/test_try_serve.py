"""`pop3-try scrape --serve` in a browser: a first spec with mistakes, mended while one looks."""

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.servers import ROOT, environment

webdriver: Any = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.common.exceptions import WebDriverException  # noqa: E402 - after the skip
from selenium.webdriver.common.by import By  # noqa: E402 - after the skip
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402 - same

SPEC = ROOT / "share" / "scrapes" / "job-board.yaml"
PAGES = SPEC.with_suffix("") / "pages"
PICTURE = (
    "POP3_TRY_PICTURE"  # a path in the environment: the screenshot of the documents goes there
)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """Return a copy of a spec that works."""
    return Path(shutil.copy(SPEC, tmp_path / "jobs.yaml"))


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Return a copy of its saved pages."""
    return Path(shutil.copytree(PAGES, tmp_path / "pages"))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return what starts the preview and returns its address."""
    running: list[subprocess.Popen[str]] = []

    def started(*arguments: object) -> str:
        program = [sys.executable, str(ROOT / "bin" / "pop3-try"), "scrape", *map(str, arguments)]
        process = subprocess.Popen(
            [*program, "--serve", "0"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(tmp_path),
            cwd=tmp_path,
        )
        running.append(process)
        assert process.stdout is not None
        found = re.search("http://[^ ]+", process.stdout.readline())
        assert found is not None
        process.stdout.readline()  # the first look is over
        return found[0]

    yield started
    for process in running:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert [process.returncode for process in running] == [0] * len(running)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a headless Chromium."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",  # it cannot have its own as root
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1100,2290",
        "--no-proxy-server",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    with webdriver.Chrome(options=options, service=service) as one:
        one.set_page_load_timeout(20)
        yield one


def wait(browser: Any, condition: Callable[[Any], Any]) -> Any:
    """Wait until something is so; the page may be replaced meanwhile."""
    return WebDriverWait(browser, 20, 0.05, [WebDriverException]).until(condition)


def header(browser: Any) -> str:
    """Return good or bad."""
    script = "return document.querySelector('header')?.className ?? ''"
    return str(browser.execute_script(script))


def in_frame(browser: Any, title: str, script: str) -> Any:
    """Run a script of the driver's in a frame."""
    browser.switch_to.frame(browser.find_element(By.CSS_SELECTOR, f"iframe[title='{title}']"))
    try:
        return browser.execute_script(script)
    finally:
        browser.switch_to.default_content()


def test_a_spec_is_mended_while_one_looks(
    browser: Any, serve: Callable[..., str], spec: Path, pages: Path
) -> None:
    """A wrong selector is red; the page follows the saved file and shows the mail."""
    right = spec.read_text()
    spec.write_text(right.replace("[itemprop=description]", ".descripton"))
    browser.get(serve(spec, "python:remote", "--pages", pages))
    wait(browser, lambda one: header(one) == "bad")
    missing = browser.find_element(By.CSS_SELECTOR, "table.fields tr.missing")
    assert missing.text.startswith("description missing matches nothing")
    red = missing.find_element(By.TAG_NAME, "td").value_of_css_property("color")
    assert red == "rgba(207, 34, 46, 1)"
    told = browser.find_element(By.ID, "problems").text
    assert "jobs.yaml:28: item.fields.description: required" in told
    assert browser.find_element(By.CSS_SELECTOR, "#excerpt .here").text.strip().startswith("28")

    spec.write_text(right)
    wait(browser, lambda one: header(one) == "good")
    assert not browser.find_elements(By.CSS_SELECTOR, ".missing")
    mail = in_frame(browser, "mail 1", "return document.body.innerText")
    assert "Python Developer" in mail
    assert "PostgreSQL" in mail
    assert in_frame(
        browser,
        "list page 1",
        "return [...document.querySelectorAll('.pop3-try-item')].map(e => e.title)",
    ) == ["item 1", "item 2"]

    spec.write_text(right.replace("list:", "lst:"))
    wait(browser, lambda one: header(one) == "bad")
    told = browser.find_element(By.ID, "problems").text
    assert "no such key" in told
    severe = [line for line in browser.get_log("browser") if "favicon" not in line["message"]]
    assert severe == []


def test_a_hostile_page_does_nothing(
    browser: Any, serve: Callable[..., str], spec: Path, pages: Path
) -> None:
    """Scripts, handlers, loads and frames of a site are not in the copy, nor in the mail."""
    evil = (
        '<script>top.document.title="taken"</script><img src=/version onload="alert(1)" alt=x>'
        '<iframe src="javascript:alert(1)"></iframe><svg onload=alert(1)></svg>'
        '<style>body{background:url(/version)}</style><meta http-equiv=refresh content="0;url=/">'
        '<a href="javascript:alert(1)" onclick="alert(1)">link</a>'
    )
    for name in ("list-1.html", "job-101.html"):
        path = pages / name
        text = path.read_text()
        path.write_text(re.sub("<body[^>]*>|<div itemprop=.description.>", rf"\g<0>{evil}", text))
        assert evil in path.read_text()
    browser.get(serve(spec, "python:remote", "--pages", pages))
    wait(browser, lambda one: header(one) == "good")
    for title in ("list page 1", "mail 1"):
        found = in_frame(
            browser,
            title,
            "return [document.querySelectorAll('script,iframe,svg,img,meta[http-equiv],[onload],"
            "[onclick],a[href^=javascript]').length, document.styleSheets.length,"
            "performance.getEntriesByType('resource').length, self.origin]",
        )
        assert found == [0, 1, 0, "null"], title
    assert browser.title.startswith("✓")


def ask(url: str, path: str, host: str = "", method: str = "GET") -> http.client.HTTPResponse:
    """Ask the preview by hand."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    connection.request(method, path, headers={"Host": host or parts.netloc})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_only_this_machine_is_answered_and_nothing_can_be_changed(
    serve: Callable[..., str], spec: Path
) -> None:
    """Another Host is refused (DNS rebinding), all but GET and HEAD as well; policies are set."""
    url = serve(spec, "python:remote", "--pages", PAGES)
    assert ask(url, "/").status == 200
    assert ask(url, "/", host=f"localhost:{urlsplit(url).port}").status == 200
    assert ask(url, "/", host="evil.example").status == 421
    assert ask(url, "/", host=f"evil.example:{urlsplit(url).port}").status == 421
    assert ask(url, "/", method="POST").status == 501
    assert ask(url, "/../../etc/passwd").status == 404
    policy = str(ask(url, "/").getheader("Content-Security-Policy"))
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    policy = str(ask(url, "/list/1/1").getheader("Content-Security-Policy"))
    assert policy.startswith("sandbox; default-src 'none'")


def test_the_picture(
    browser: Any, serve: Callable[..., str], spec: Path, pages: Path, tmp_path: Path
) -> None:
    """A screenshot of a look with one mistake can be made: the one of the documents is."""
    spec.write_text(
        spec.read_text()
        .replace("[itemprop=baseSalary]", ".pay", 1)
        .replace('salary: {css: ".pay"}', 'salary: {css: ".pay", required: true}')
    )
    browser.get(serve(spec.name, "python:remote", "--pages", pages, "--items", "1"))
    wait(browser, lambda one: header(one) == "bad")
    wait(browser, lambda one: in_frame(one, "mail 1", "return document.readyState") == "complete")
    picture = Path(os.environ.get(PICTURE) or tmp_path / "try-serve.png")
    browser.save_screenshot(str(picture))
    assert picture.stat().st_size > 20_000
