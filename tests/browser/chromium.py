"""A headless Chromium, spoken to over its own pipe: the DevTools protocol as JSON, without a driver or a socket."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

CANDIDATES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", 
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
WAIT_MS = 20_000
"""How long a condition of a page may take to come true."""

WAIT = """
new Promise((done, fail) => {
  const started = performance.now();
  const look = () => {
    let value;
    try { value = %s } catch (error) { value = undefined }
    if (value) done(typeof value === "object" || value);
    else if (performance.now() - started > %d)
      fail(new Error("never came true; the page says: " + document.body.innerText.slice(0, 500)));
    else setTimeout(look, 20);
  };
  look();
})
"""


def executable() -> str | None:
    """Return the browser of this machine, or None."""
    return next((found for name in CANDIDATES if (found := shutil.which(name))), None)


class PageFault(AssertionError):
    """What a page or the browser says went wrong."""


class Chromium:
    """A browser process and the conversation with it; events are kept by the page that they concern."""

    def __init__(self, profile: Path):
        path = executable()
        assert path, "no Chromium on this machine"
        to_browser, ours_out = os.pipe()
        ours_in, from_browser = os.pipe()
        # the browser reads commands from descriptor 3 and writes answers to 4
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash",
             path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._out, self._in = os.fdopen(ours_out, "wb", buffering=0), os.fdopen(ours_in, "rb")
        self._rest = b""
        self._asked = 0
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come meanwhile are kept.

        Raises:
            PageFault: the browser refuses it, or has ended.
        """
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._asked:
                if "error" in heard:
                    raise PageFault(f"{method}: {heard['error']}")
                return heard["result"]
            self.events.append(heard)

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = self._in.read1(65_536)
            if not read:
                raise PageFault(f"the browser ended with {self._process.wait(10)}")
            self._rest += read
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def close(self) -> None:
        self._out.close()
        self._in.close()
        self._process.terminate()
        self._process.wait(20)

    @contextmanager
    def page(self, width: int = 1280, height: int = 900, dark: bool = False, still: bool = True) -> Iterator["Page"]:
        """A page of this size in a context of its own: no cookie or storage of another one."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        target = self.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, context)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        page.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        page.ask("Emulation.setEmulatedMedia", features=features)
        try:
            yield page
        finally:
            self.ask("Target.disposeBrowserContext", browserContextId=context)


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, session: str, context: str):
        self._browser, self._session, self._context = browser, session, context

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.ask(method, self._session, **params)

    def open(self, url: str, until: str) -> Self:
        """Go to an address and wait until a JavaScript condition holds there."""
        self.ask("Page.navigate", url=url)
        self.wait(f"location.href !== 'about:blank' && ({until})")
        return self

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for.

        Raises:
            PageFault: it threw.
        """
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageFault(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait(self, condition: str) -> Any:
        """Return the first truthy value of an expression. A navigation on the way only makes it ask again."""
        while True:
            try:
                return self.run(WAIT % (condition, WAIT_MS))
            except PageFault as fault:
                if "context was destroyed" not in str(fault) and "navigated" not in str(fault):
                    raise

    def press(self, key: str) -> None:
        """Press a key: a character, or a named one such as `Tab`."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = codes.get(key, ord(key[0].upper()))
        down = {"key": key, "windowsVirtualKeyCode": code} | ({"text": text} if text else {})
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **down)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def complaints(self) -> list[str]:
        """Return what the console, uncaught errors and the content security policy have said so far."""
        self.run("1")  # what was said before is heard by now
        said = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                said.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in {"error", "assert"}:
                said.append(" ".join(str(part.get("value", part.get("description"))) for part in params["args"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                said.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return said

    def requested(self) -> list[str]:
        """Return the addresses that the page has asked for, in order."""
        self.run("1")
        return [
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event.get("sessionId") == self._session and event["method"] == "Network.requestWillBeSent"
        ]

    def keep_downloads(self, folder: Path) -> None:
        """Write what the page offers as a download into a folder."""
        self._browser.ask(
            "Browser.setDownloadBehavior", behavior="allow", browserContextId=self._context, downloadPath=str(folder)
        )

    def screenshot(self, path: Path, whole: bool = False) -> Path:
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path
