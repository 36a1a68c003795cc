"""A prefix in an object store, reached with ``obstore``: reading, writing, and conditional writing, which claims need.

Endpoint, region and credentials come from the environment alone (``AWS_*``, ``GOOGLE_*``) or from the host's role, and so
never into a results folder.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import from_url

from trainables.records.names import InputError
from trainables.storage.base import Held, UnreachableError
from trainables.storage.lease import lease, look

if TYPE_CHECKING:
    from obstore import UpdateVersion as Version
    from obstore.store import BackoffConfig, ClientConfig, RetryConfig
    from obstore.store import ObjectStore as Client

SCHEMES = ("s3", "gs")
"""Stores with conditional puts whose clients read their settings from the environment."""
LONGEST_REASON = 400
SETTINGS = {
    "s3": "endpoint, region and credentials in the environment "
    "(AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
    "gs": "the credentials in the environment (GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT)",
}
"""What may have to be put right."""


@dataclass(frozen=True)
class ObjectStore:
    """The objects below a URL. Only the URL is sent to a worker, which has an environment of its own.

    A ``patient`` one sits out an outage of minutes; another gives up within seconds.
    """

    url: str
    patient: bool = True

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in SCHEMES or not parts.netloc:
            raise InputError(
                f"storage: {parts.scheme}://… is no place to store; give a folder, s3://bucket/prefix or gs://…"
            )
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise InputError(
                "storage: a URL is written into results, so it holds bucket and prefix alone; put credentials and endpoint "
                "into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL)"
            )

    def read(self, key: str) -> bytes | None:
        """The content, or None if there is no such object."""
        found = self.read_version(key)
        return found and found[0]

    def read_version(self, key: str) -> tuple[bytes, Version] | None:
        """The content and which version of the object it is, or None if there is no such object."""
        with self._told(), _none_if_missing() as found:
            answer = obstore.get(self._client(), key)
            found.append((bytes(answer.bytes()), _version(answer.meta["e_tag"], answer.meta["version"])))
        return found[0] if found else None

    def write(self, key: str, content: bytes) -> None:
        """Put a whole object there; a store shows it when all of it has arrived."""
        with self._told():
            obstore.put(self._client(), key, content)

    def write_if(self, key: str, content: bytes, before: Version | None) -> Version | None:
        """Put an object where this version (None: nothing) is, or return None because something else is there."""
        try:
            with self._told():
                result = obstore.put(self._client(), key, content, mode=before or "create", use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return None
        return _version(result["e_tag"], result["version"])

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        with self._told(), _none_if_missing():
            obstore.delete(self._client(), key)

    def clear(self, folder: str) -> None:
        """Remove all objects below a folder."""
        with self._told():
            for page in obstore.list(self._client(), prefix=f"{folder}/"):
                obstore.delete(self._client(), [entry["path"] for entry in page])

    def folders_with(self, name: str) -> list[str]:
        """The folders directly below that have an object of this name."""
        with self._told():
            paths = [entry["path"] for page in obstore.list(self._client()) for entry in page]
        return sorted(path.removesuffix(f"/{name}") for path in paths if path.endswith(f"/{name}") and path.count("/") == 1)

    def claim(self, key: str, *, wait: bool = True) -> AbstractContextManager[Held]:
        """A lease, which its holder renews."""
        return lease(self, key, wait=wait, quick=self._quick())

    def holder(self, key: str) -> str | None:
        """Who holds the lease."""
        return look(self._quick(), key)[0]

    def free(self) -> None:
        """There is no saying."""

    def check(self, *, writing: bool = True) -> None:
        """InputError if the bucket can't be listed, or lets two hosts hold one claim."""
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            endpoint = os.environ.get(name, "http://localhost")
            if not endpoint.startswith(("http://", "https://")):  # obstore would panic
                raise InputError(f"storage: {self.url} can't be used: {name} {endpoint!r} is no http:// or https:// URL")
        with self._told():
            next(iter(obstore.list(self._quick()._client())), None)
        if writing and not _keeps_conditions(self.url):
            raise InputError(
                f"storage: {self.url} can't be used: this store writes over an object that it is told to leave "
                "(If-None-Match and If-Match are ignored), so two hosts could run one study; choose another store"
            )

    def _quick(self) -> ObjectStore:
        return replace(self, patient=False)

    def _client(self) -> Client:
        return _client(self.url, self.patient)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong on the way, as one line."""
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except (BaseError, FileNotFoundError) as error:  # what isn't found where an object is written is the bucket
            raise UnreachableError(
                f"storage: {self.url} can't be used ({_reason(error)}); check the bucket, and {SETTINGS[self.url[:2]]}"
            ) from None


def _reason(error: Exception) -> str:
    """What the store, or the way to it, said, without the source of the message and the tags of XML."""
    told = re.sub(r"<[^>]*>", " ", str(error).partition("\n\nDebug source")[0])
    return " ".join(told.split())[:LONGEST_REASON].rstrip(": ")


@contextmanager
def _none_if_missing() -> Iterator[list[tuple[bytes, Version]]]:
    with suppress(FileNotFoundError):
        yield []


def _version(e_tag: str | None, version: str | None) -> Version:
    found: Version = {}
    if e_tag is not None:
        found["e_tag"] = e_tag
    if version is not None:
        found["version"] = version
    return found


@lru_cache
def _keeps_conditions(url: str) -> bool:
    """Whether the store refuses to write over what is there, and over another version than the one named."""
    store, key = ObjectStore(url, patient=False), f".conditions-{uuid.uuid4().hex}"
    try:
        first = store.write_if(key, b"1", None)
        return (
            store.write_if(key, b"2", None) is None
            and store.write_if(key, b"3", first) is not None
            and store.write_if(key, b"4", first) is None
        )
    finally:
        with suppress(InputError):  # it may not be allowed, and does no harm
            store.delete(key)


@lru_cache
def _client(url: str, patient: bool) -> Client:
    """One client a process."""
    # Between two attempts obstore waits at random, often hardly longer than the first time: with 20 attempts beginning
    # at its 0.1 s, one client in five gave up within five seconds. So it is the time that counts here.
    backoff: BackoffConfig = {"init_backoff": timedelta(seconds=0.5), "max_backoff": timedelta(seconds=10)}
    retry: RetryConfig = {"max_retries": 1000, "retry_timeout": timedelta(minutes=3), "backoff": backoff}
    # A server without TLS is only ever asked if the environment names it.
    options: ClientConfig = {"allow_http": True, "connect_timeout": "5s", "read_timeout": "30s", "timeout": "5m"}
    if not patient:
        retry = {"max_retries": 2, "retry_timeout": timedelta(seconds=5)}
        options = {"allow_http": True, "connect_timeout": "3s", "timeout": "5s"}
    return from_url(url, retry_config=retry, client_options=options)
