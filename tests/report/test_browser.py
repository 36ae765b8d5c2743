"""The page in a browser, where there is one: ``apt-get install chromium``."""

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading

import pytest
from made_run import make_run

from d2_ssod.artifacts import RunFolder
from d2_ssod.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

# Opens the page in frames of two widths, and writes down what it finds.
LOOK = """<!doctype html><link rel="icon" href="data:,"><body><script>
async function look(width) {
  const frame = document.createElement("iframe");
  Object.assign(frame, {width, height: 900, src: "report.html"});
  await new Promise((done) => { frame.onload = done; document.body.append(frame); });
  const page = frame.contentDocument;
  const images = [...page.images];
  images.forEach((image) => { image.loading = "eager"; });
  const decoded = await Promise.allSettled(images.map((image) => image.decode()));
  const column = (n) => [...page.querySelectorAll("#metrics tbody tr")].map(
    (row) => parseFloat(row.cells[n].textContent));
  const button = page.querySelectorAll("#metrics th button")[2];
  const orders = [];
  for (let turn = 0; turn < 2; turn++) { button.click(); orders.push(column(2)); }
  button.focus();
  return {
    width, orders, images: images.length,
    broken: decoded.filter((result) => result.status === "rejected").length,
    wider: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    focus: page.activeElement === button,
    sort: button.parentElement.getAttribute("aria-sort"),
    unnamed: [...page.querySelectorAll("svg:not([aria-hidden])")].filter(
      (svg) => !svg.getAttribute("aria-label")).length,
  };
}
(async () => {
  const found = [await look(1280), await look(400)];
  document.body.innerHTML = "";
  const text = document.createElement("pre");
  text.textContent = JSON.stringify(found);
  document.body.append(text);
})();
</script></body>
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """What the browser finds at two widths, and what it says on its console."""
    cfg = make_run(tmp_path_factory.mktemp("browser"), classes=("<i>cat", "dog" * 30))
    write_report(cfg)
    folder = RunFolder(cfg.OUTPUT_DIR).root
    (folder / "look.html").write_text(LOOK)
    handler = functools.partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = subprocess.run(
            [
                *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"),
                *("--enable-logging=stderr", "--virtual-time-budget=30000", "--dump-dom"),
                f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
                f"http://127.0.0.1:{server.server_port}/look.html",
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        server.shutdown()
    found = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found[1])), console


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_the_console_is_silent(opened):
    _, console = opened
    assert console == []


@pytest.mark.parametrize("number", [0, 1], ids=["1280", "400"])
def test_it_fits_and_works_at_both_widths(opened, number):
    found = opened[0][number]
    assert found["wider"] <= 0
    assert (found["images"] > 20, found["broken"]) == (True, 0)
    down, up = found["orders"]
    assert down == sorted(down, reverse=True) == [52, 50, 42, 40, 38]
    assert up == sorted(down)
    assert (found["focus"], found["sort"], found["unnamed"]) == (True, "ascending", 0)
