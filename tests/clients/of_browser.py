"""A page of another origin in Chromium, which ``gateway.cors_origins`` allows to ask."""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.clients.asked import CHAT, EMBEDS, PATIENCE_S, At, asks

_CHROMIUM = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
_PAGE = """<!doctype html><title>a client</title><script>
(async () => {
  let seen;
  try {
    const answer = await fetch(URL_ASKED, {method: "POST", headers: {"Content-Type": "application/json"}, body: BODY});
    seen = {status: answer.status, text: await answer.text(), id: answer.headers.get("X-Request-Id")};
  } catch (error) { seen = {status: 0, text: String(error)}; }
  await fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
})();
</script>"""


@asks(EMBEDS, "a page of another origin, /predict")
def predict(at: At) -> str:
    return _asked(at, at.predict, {"inputs": "a cat"})


@asks(CHAT, "a page of another origin, /v1/chat/completions")
def chat(at: At) -> str:
    body = {"model": at.model, "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
    return _asked(at, f"{at.openai}/chat/completions", body)


def _asked(at: At, url: str, body: object) -> str:
    """Serve the page, open it, and wait for what it saw."""
    page = _PAGE.replace("URL_ASKED", json.dumps(url)).replace("BODY", json.dumps(json.dumps(body)))
    found: queue.Queue[dict[str, Any]] = queue.Queue()

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(page.encode())

        def do_POST(self) -> None:
            found.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._say(b"")

        def _say(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", at.page), Site) as site, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        command = [*_CHROMIUM, f"--user-data-dir={profile}", f"http://127.0.0.1:{at.page}/"]
        with subprocess.Popen(
            [*command, "--remote-debugging-port=0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as browser:
            try:
                seen = found.get(timeout=PATIENCE_S)
            finally:
                browser.terminate()
                browser.wait()
                site.shutdown()
    if seen["status"] != 200:
        raise OSError(f"{seen['status']}: {seen['text']}")
    return str(seen["text"])
