"""A bucket on loopback: moto's S3 server, with failures on demand in front of it.

Jobs reach it as any bucket of that kind: by `AWS_ENDPOINT_URL` and credentials in their environment.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUCKET = "promoters"
_ERRORS = {  # code of S3 -> status, message
    "InternalError": ("500 Internal Server Error", "We encountered an internal error. Please try again."),
    "SlowDown": ("503 Slow Down", "Please reduce your request rate."),
    "ExpiredToken": ("400 Bad Request", "The provided token has expired."),
    "AccessDenied": ("403 Forbidden", "Access Denied"),
}
# what a request is given -> the code of the error to answer with, a number of seconds to wait first, or None
Fault = Callable[[str, str], "str | float | None"]


@dataclass
class Server:
    """The server: its address, what it was asked for, and what it is to do instead of answering.

    Attributes:
        url: of the endpoint.
        requests: method and path of each, in order.
        fault: given method and path.
    """

    url: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    fault: Fault = lambda method, path: None

    @property
    def client(self) -> Any:
        """A client of another library than the one under test."""
        import boto3  # noqa: PLC0415 # most tests start Ray and no server

        return boto3.client("s3", endpoint_url=self.url, aws_access_key_id="test", aws_secret_access_key="test")  # noqa: S106 # of no account

    def keys(self, prefix: str = "") -> list[str]:
        """Names of the objects in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        """Content of an object."""
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def upload(self, folder: Path, prefix: str) -> str:
        """Put a local folder into the bucket, and return its address."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.client.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder)}")
        return f"s3://{BUCKET}/{prefix}"

    def uploads(self) -> list[str]:
        """Keys of multipart uploads that were begun and neither completed nor aborted."""
        return [entry["Key"] for entry in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Answer as `fault` says while the block runs."""
        self.fault = fault
        try:
            yield
        finally:
            self.fault = lambda method, path: None


def environment(port: int) -> dict[str, str]:
    """Return what a process needs in its environment to find the server, and no credentials of the machine."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def serve(port: socket.socket) -> Iterator[Server]:
    """Serve an empty bucket from a thread, on a socket that listens."""
    from moto.moto_server.werkzeug_app import (  # noqa: PLC0415 # as above
        DomainDispatcherApplication,
        create_backend_app,
    )
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415

    class Quiet(WSGIRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Print nothing."""

    moto = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        server.requests.append((method, path))
        fault = server.fault(method, path)
        if isinstance(fault, str):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            status, message = _ERRORS[fault]
            body = f"<?xml version='1.0'?><Error><Code>{fault}</Code><Message>{message}</Message></Error>".encode()
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
            start_response(status, headers)
            return [body] if method != "HEAD" else []  # whose bytes would be taken for the next answer
        if fault:
            time.sleep(fault)
        return moto(environ, start_response)

    host, number = port.getsockname()
    http = make_server(host, number, answer, threaded=True, request_handler=Quiet, fd=port.fileno())
    server = Server(f"http://{host}:{number}")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    server.client.create_bucket(Bucket=BUCKET)
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
