"""A bucket as storage: what is written is read, secrets stay in the environment, and what is wrong is told in one line."""

from __future__ import annotations

import errno
import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest
from obstore.store import from_url

from tests.s3_server import CREDENTIALS, S3
from tests.search_helpers import SWEEP, Raw, raw_study, refusal, write
from trainables.records.names import InputError
from trainables.storage.base import Place, UnreachableError, above, this_process
from trainables.storage.object_store import ObjectStore
from trainables.storage.places import open_storage

NOWHERE = "http://127.0.0.1:1"


def test_what_is_written_is_read_and_replaced_and_removed(place: Place) -> None:
    storage = open_storage(place)
    assert storage.read("a/b c ä.json") is None
    for content in (b"", b"one", bytes(range(256)) * 30_000):  # the last one comes in parts
        storage.write("a/b c ä.json", content)
        assert storage.read("a/b c ä.json") == content
    storage.delete("a/b c ä.json")
    storage.delete("a/b c ä.json")
    assert storage.read("a/b c ä.json") is None


def test_only_folders_directly_below_are_listed(place: Place) -> None:
    storage = open_storage(place)
    assert storage.folders_with("step.json") == []
    for key in ("b/step.json", "a/step.json", "a/c/step.json", "d/other-step.json", "step.json", "e/step.json.old"):
        storage.write(key, b"x")
    assert storage.folders_with("step.json") == ["a", "b"]


def test_neighbours_whose_names_begin_alike_are_not_mixed_up(bucket: str) -> None:
    open_storage(f"{bucket}/study").write("a/step.json", b"x")
    assert open_storage(f"{bucket}/stud").folders_with("step.json") == []
    assert open_storage(f"{bucket}/study2").folders_with("step.json") == []


def test_what_is_sent_to_a_worker_is_the_url_alone(bucket: str) -> None:
    storage = open_storage(f"{bucket}/study")
    storage.write("a", b"x")
    sent = pickle.dumps(storage)
    assert len(sent) < 300
    assert not any(secret.encode() in sent for secret in CREDENTIALS.values())
    assert pickle.loads(sent).read("a") == b"x"  # noqa: S301 - our own


def test_a_storage_says_how_much_is_free_if_there_is_saying(bucket: str, tmp_path: Path) -> None:
    assert open_storage(bucket).free() is None
    assert 0 < (open_storage(tmp_path / "not" / "made").free() or 0) < 1e18


def test_the_place_above() -> None:
    assert above("s3://bucket/study/steps") == "s3://bucket/study"
    assert above("/data/results/study/steps/") == "/data/results/study"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/results", "ftp://… is no place"),
        ("http://host/results", "is no place"),
        ("s3://", "is no place"),
        ("s3:///results", "is no place"),
        ("s3://key:secret@bucket/results", "put credentials and endpoint into the environment"),
        ("s3://bucket/results?endpoint_override=localhost", "put credentials and endpoint into the environment"),
    ],
)
def test_urls_that_are_no_place_are_refused_and_secrets_not_repeated(url: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        ObjectStore(url)
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_store_that_refuses_is_told_from_one_that_lacks_an_object(s3: S3, bucket: str) -> None:
    missing = ObjectStore("s3://there-is-no-such-bucket/results")
    with pytest.raises(UnreachableError, match="NoSuchBucket"):
        missing.write("key", b"content")
    store = ObjectStore(f"{bucket}/results")
    assert store.read("key") is None
    store.delete("key")
    s3.refusal = "403 Forbidden"
    try:
        for use in (store.read, store.delete, store.clear, store.folders_with, lambda key: store.write(key, b"")):
            with pytest.raises(UnreachableError, match=r"403 Forbidden\); check the bucket") as told:
                use("key")
            assert "\n" not in str(told.value)
    finally:
        s3.refusal = None


@pytest.mark.slow
def test_an_outage_of_some_seconds_is_sat_out_by_everyone(s3: S3, bucket: str) -> None:
    stores = [ObjectStore(f"{bucket}/results/{number}") for number in range(12)]
    s3.refusal = "503 Service Unavailable"
    with ThreadPoolExecutor(len(stores)) as pool:
        try:
            read = [pool.submit(store.read, "key") for store in stores]
            time.sleep(8)
            assert not any(one.done() for one in read)
        finally:
            s3.refusal = None
        assert [one.result() for one in read] == [None] * len(stores)


def test_a_store_that_ignores_conditions_is_told_in_one_line_before_anything_is_written(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{bucket}/results"
    file = write(tmp_path, study_at(tmp_path, url))
    monkeypatch.chdir(tmp_path)
    s3.unconditional = True
    try:
        line = refusal(["run", str(file)], capsys)
    finally:
        s3.unconditional = False
    assert line.startswith(f"error: storage: {url}/tiny can't be used: this store writes over an object ")
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]
    client = from_url(url, client_options={"allow_http": True})
    assert [entry for page in obstore.list(client) for entry in page] == []


def test_a_store_that_keeps_conditions_passes_and_reading_asks_for_no_more(s3: S3, bucket: str) -> None:
    ObjectStore(f"{bucket}/kept").check()
    s3.unconditional = True
    try:
        ObjectStore(f"{bucket}/read").check(writing=False)
    finally:
        s3.unconditional = False


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_folder_without_file_locks_is_told_in_one_line(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(InputError, match="file system without file locks") as told, open_storage(tmp_path).claim("key"):
        pass
    assert "\n" not in str(told.value)


def test_a_folder_tells_who_holds_a_claim(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    assert storage.holder("key") is None
    with storage.claim("key"):
        assert storage.holder("key") == this_process()


GOOGLE = {"client_email": "somebody", "private_key": "", "private_key_id": "", "disable_oauth": True}
"""A service account as obstore reads it; one without OAuth needs no key."""


def test_a_google_store_takes_its_settings_from_the_environment_and_is_given_up_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, account = "gs://a-bucket/results/tiny", tmp_path / "account.json"
    account.write_text(json.dumps({**GOOGLE, "gcs_base_url": NOWHERE}))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(account))
    storage, began = open_storage(url), time.monotonic()
    assert isinstance(storage, ObjectStore)
    for use in (storage.check, lambda: storage.holder("key")):
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1.*GOOGLE_APPLICATION_CREDENTIALS") as told:
            use()
        assert str(told.value).startswith(f"storage: {url} can't be used (")
        assert "\n" not in str(told.value)
    assert time.monotonic() - began < 30


def test_a_google_store_without_credentials_is_given_up_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/account.json")
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="gs://another-bucket/results can't be used") as told:
        ObjectStore("gs://another-bucket/results").check()
    assert "\n" not in str(told.value)
    assert time.monotonic() - began < 30


def test_a_folder_in_a_bucket_is_cleared_with_all_below_it_and_nothing_beside(bucket: str) -> None:
    store = ObjectStore(f"{bucket}/results")
    store.clear("a")
    for key in ("a/1", "a/b/2", "ab/3", "c"):
        store.write(key, b"content")
    store.clear("a")
    assert [store.read(key) is None for key in ("a/1", "a/b/2", "ab/3", "c")] == [True, True, False, False]


def study_at(tmp_path: Path, storage: str) -> Raw:
    return raw_study(tmp_path, storage=storage, sweep=SWEEP)


@pytest.mark.parametrize(
    ("environment", "storage", "words"),
    [
        ({}, "s3://there-is-no-such-bucket/results", "NoSuchBucket"),
        ({"AWS_ENDPOINT_URL": NOWHERE}, "s3://unreachable/results", "127.0.0.1:1"),
        ({"AWS_ENDPOINT_URL": "localhost:9000"}, "s3://misspelt/results", "AWS_ENDPOINT_URL"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_METADATA_ENDPOINT": NOWHERE},
         "s3://no-credentials/results", "credentials"),
    ],
)  # fmt: skip
def test_a_bucket_that_can_t_be_used_is_told_in_one_line_and_nothing_is_written(
    environment: dict[str, str | None], storage: str, words: str, bucket: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in environment.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    file = write(tmp_path, study_at(tmp_path, storage))
    monkeypatch.chdir(tmp_path)
    line = refusal(["run", str(file)], capsys)
    assert line.startswith(f"error: storage: {storage}/tiny can't be used")
    assert words in line
    assert not any(secret in line for secret in CREDENTIALS.values())
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]
