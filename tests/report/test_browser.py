"""The page in a browser, where there is one: ``apt-get install chromium``."""

import functools
import http.server
import json
import queue
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
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
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
    handler = functools.partial(Listener, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.found = queue.Queue()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        log = tmp_path_factory.mktemp("profile") / "log.txt"
        with log.open("w") as output:
            browser = subprocess.Popen(
                [
                    *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"),
                    # It stays open as long as it could be asked for more.
                    *("--enable-logging=stderr", "--remote-debugging-port=0"),
                    f"--user-data-dir={log.parent}",
                    f"http://127.0.0.1:{server.server_port}/look.html",
                ],
                stdout=output,
                stderr=output,
            )
        try:
            found = server.found.get(timeout=200)
        except queue.Empty:
            pytest.fail(f"the browser has found nothing: {log.read_text()[-3000:]}")
        finally:
            browser.kill()
            browser.wait()
            server.shutdown()
    return found, [line for line in log.read_text().splitlines() if "CONSOLE" in line]


class Listener(http.server.SimpleHTTPRequestHandler):
    """Serves the folder, and takes what the page has found."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.found.put(json.loads(body))
        self.send_response(204)
        self.end_headers()

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
