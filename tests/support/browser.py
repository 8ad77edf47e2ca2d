"""A headless Chromium for the tests, driven by WebDriver's HTTP (https://www.w3.org/TR/webdriver2/)."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1200,900",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # nothing is to be asked of a network
    "--force-device-scale-factor=1",
]
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key by which WebDriver names elements
_DIRECT = build_opener(ProxyHandler({}))  # the driver is on this machine


def missing() -> str | None:
    """Say what a browser test lacks here, if anything."""
    lost = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return (
        f"there is no {' and no '.join(lost)}; on Debian: apt-get install chromium chromium-driver"
        if lost
        else None
    )


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Start a browser with a profile of its own in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        [str(shutil.which("chromedriver")), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        flags = [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]
        options = {"args": flags, "binary": str(shutil.which("chromium"))}
        asked = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        _await(f"http://127.0.0.1:{port}/status")
        made = _send(f"http://127.0.0.1:{port}/session", "POST", {"capabilities": {"alwaysMatch": asked}})
        browser = Browser(f"http://127.0.0.1:{port}/session/{made['sessionId']}")
        try:
            yield browser
        finally:
            _send(browser.address, "DELETE")
    finally:
        driver.terminate()
        driver.wait()


class Browser:
    """A page, and what can be done to it."""

    def __init__(self, address: str) -> None:
        self.address = address

    def open(self, page: Path) -> None:
        """Open a file, and wait until it is loaded."""
        self._do("url", {"url": page.as_uri()})

    def script(self, text: str, *arguments: Any) -> Any:
        """Return what a function body returns."""
        return self._do("execute/sync", {"script": text, "args": list(arguments)})

    def until(self, text: str, seconds: float = 600) -> Any:
        """Wait until a function body returns something true, and return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            result = self.script(text)
            if result:
                return result
            time.sleep(0.1)
        raise AssertionError(f"never true: {text}\n{self.messages()}")

    def click(self, selector: str) -> None:
        """Click as a person does: at the middle of what can be seen."""
        self._do(f"element/{self._find(selector)}/click", {})

    def keys(self, selector: str, text: str) -> None:
        """Focus an element and type."""
        self.script("document.querySelector(arguments[0]).focus()", selector)
        presses = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self._do("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": presses}]})

    def point(self, selector: str, x: int, y: int, to: tuple[int, int] | None = None) -> None:
        """Move the mouse to a position relative to an element's middle; with `to`, drag it from there."""
        origin = {_ELEMENT: self._find(selector)}
        moves: list[dict[str, Any]] = [{"type": "pointerMove", "origin": origin, "x": x, "y": y, "duration": 0}]
        if to is not None:
            moves += [
                {"type": "pointerDown", "button": 0},
                {"type": "pointerMove", "origin": origin, "x": to[0], "y": to[1], "duration": 100},
                {"type": "pointerUp", "button": 0},
            ]
        self._do("actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moves}]})

    def wheel(self, selector: str, by: int) -> None:
        """Turn the wheel over the middle of an element."""
        origin = {_ELEMENT: self._find(selector)}
        turn = {"type": "scroll", "origin": origin, "x": 0, "y": 0, "deltaX": 0, "deltaY": by, "duration": 0}
        self._do("actions", {"actions": [{"type": "wheel", "id": "wheel", "actions": [turn]}]})

    def devtools(self, command: str, **settings: Any) -> Any:
        """Send a command of Chromium's own protocol."""
        return self._do("goog/cdp/execute", {"cmd": command, "params": settings})

    def screenshot(self, path: Path) -> None:
        """Write the page as PNG, also what is not in view."""
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def messages(self) -> list[dict[str, Any]]:
        """Return what has been written to the console since the last call."""
        messages: list[dict[str, Any]] = self._do("se/log", {"type": "browser"})
        return messages

    def _find(self, selector: str) -> str:
        return self._do("element", {"using": "css selector", "value": selector})[_ELEMENT]

    def _do(self, what: str, body: dict[str, Any]) -> Any:
        return _send(f"{self.address}/{what}", "POST", body)


def _send(address: str, method: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = Request(address, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310 # loopback
    try:
        with _DIRECT.open(request, timeout=600) as answer:
            return json.loads(answer.read())["value"]
    except URLError as error:
        body_of_error = error.read().decode() if hasattr(error, "read") else ""  # type: ignore[union-attr] # HTTPError has it
        raise AssertionError(f"{address}: {error} {body_of_error[:500]}") from error


def _await(address: str) -> None:
    end = time.monotonic() + 600
    while True:
        try:
            if _send(address, "GET")["ready"]:
                return
        except AssertionError:
            if time.monotonic() > end:
                raise
        time.sleep(0.1)
