"""A real S3 server on this host, moto's, for tests of what is stored in a bucket."""

from __future__ import annotations

import logging
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "an-access-key-id", "AWS_SECRET_ACCESS_KEY": "a-secret-access-key"}
CONDITIONS = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")


@dataclass
class S3:
    """A server that runs.

    While ``refusal`` is an HTTP status, it does nothing but answer with it; with ``unconditional`` it ignores conditions.
    """

    endpoint: str = ""
    refusal: str | None = None
    unconditional: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint, "NO_PROXY": urlsplit(self.endpoint).hostname or ""}


class _Handler(WSGIRequestHandler):
    """Waits for no client that was cut off in the middle of a request: all others wait behind it."""

    timeout = 5


@contextmanager
def s3_server(address: str = "127.0.0.1") -> Iterator[S3]:
    """A server that takes one request after the other, so that a conditional put is atomic, as in S3."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    told, moto = S3(), DomainDispatcherApplication(create_backend_app)

    def answer(environment: Any, start_response: Any) -> Any:
        if told.unconditional:
            environment = {key: value for key, value in environment.items() if key not in CONDITIONS}
        if told.refusal is None:
            return moto(environment, start_response)
        environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
        start_response(told.refusal, [("Content-Length", "0")])
        return [b""]

    server = make_server(address, 0, answer, threaded=False, request_handler=_Handler)
    told.endpoint = f"http://{address}:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield told
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def make_bucket(endpoint: str, name: str) -> None:
    """Make an empty bucket."""
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")  # noqa: S310 - an http:// of our own
    with urllib.request.urlopen(request):  # noqa: S310
        pass
