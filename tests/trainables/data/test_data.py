"""Data sets, on the digits and on tiny folders of images; nothing is downloaded."""

from __future__ import annotations

import errno
import hashlib
import io
import pickle
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from tests.conftest import digits_problem
from tests.data_helpers import CLASSES, folder, refusal, trusting, write_fashion, write_images, write_table
from trainables.data import cache, mapped
from trainables.data.dataset import Data, DataSettings, load
from trainables.data.mapped import Mapped
from trainables.data.sets.digits import digits_development
from trainables.data.sets.registry import DATASETS
from trainables.data.settings import SMALLEST_STD
from trainables.records.names import InputError
from trainables.settings import parse
from trainables.storage.store import Store
from trainables.training.feeding import normalise, training_tensors
from trainables.tree import Tree


class FakeCifar10:
    """Stands in for torchvision's; 40 images of two classes."""

    def __init__(self, root: Path, *, train: bool, download: bool) -> None:
        assert train
        assert download
        self.root = root
        self.data = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
        self.targets = [i % 2 for i in range(40)]
        self.classes = ["airplane", "automobile"]


@pytest.fixture(params=sorted(DATASETS))
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSettings:
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCifar10)
    name, root = request.param, tmp_path / "images"
    if name == "folder":
        write_images(root)
    elif name == "csv":
        write_table(root)
    elif name == "torchvision:NAME":
        name = "torchvision:FashionMNIST"
        write_fashion(root)
    elif name == "package.module:factory":
        name = f"{request.getfixturevalue('own')}:pictures"
    return trusting(dataset=name, root=str(root))


def contents(found: Data) -> tuple[bytes, ...]:
    arrays = (found.train_images, found.train_labels, found.validation_images, found.validation_labels)
    return tuple(array[:].tobytes() for array in arrays)


def test_every_dataset_keeps_the_contract(settings: DataSettings) -> None:
    found = load(settings)
    for images, labels in (
        (found.train_images, found.train_labels),
        (found.validation_images, found.validation_labels),
    ):
        assert {type(images), type(labels)} == {np.ndarray}
        assert (images.dtype.name, labels.dtype.name) == ("uint8", "int64")
        assert images.flags.c_contiguous
        assert images.shape == (len(labels), *found.shape)
        assert set(labels.tolist()) == set(range(len(found.classes)))
    scaled = found.train_images / 255
    np.testing.assert_allclose(found.mean, scaled.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(found.std, scaled.std((0, 2, 3)), rtol=1e-9)


def test_every_dataset_loads_the_same_twice_and_its_fingerprint_tells_the_split(settings: DataSettings) -> None:
    first, again = load(settings), load(settings)
    assert contents(first) == contents(again)
    assert first.fingerprint == again.fingerprint
    assert load(settings.model_copy(update={"split_seed": 1})).fingerprint != first.fingerprint


def test_digits_are_eight_pixels_grey_and_never_mirrored() -> None:
    found = load(DataSettings())
    assert (found.shape, found.crop, found.flip) == ((1, 8, 8), 1, False)
    assert (found.train_images.min(), found.train_images.max()) == (0, 255)


def test_held_out_digits_are_not_loaded() -> None:
    kept = digits_development(0)
    found = load(DataSettings())
    assert len(kept) == 1437
    seen = np.concatenate([found.train_images, found.validation_images])
    pixels = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    held_out = {image.tobytes() for image in np.delete(pixels, kept, axis=0)}
    assert len(seen) == len(kept)
    assert not held_out & {image.tobytes() for image in seen}


def test_cifar_photographs_are_cropped_by_four_pixels_and_mirrored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCifar10)
    found = load(DataSettings(dataset="cifar10", root=str(tmp_path)))
    assert (found.shape, found.crop, found.flip) == ((3, 32, 32), 4, True)
    first = FakeCifar10(tmp_path, train=True, download=True).data[0].transpose(2, 0, 1)
    assert any((image == first).all() for image in (*found.train_images, *found.validation_images))


@pytest.mark.parametrize("error", [OSError("Read-only\nfile system"), RuntimeError("Dataset not found"), EOFError()])
def test_a_failed_download_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    assert "data.dataset=folder" in refusal(DataSettings(dataset="cifar10", root=str(tmp_path)))


def test_the_split_is_stratified_and_loses_no_image(tmp_path: Path) -> None:
    found = load(folder(write_images(tmp_path, each=20)))
    assert np.bincount(found.train_labels).tolist() == [16, 16]
    assert np.bincount(found.validation_labels).tolist() == [4, 4]
    everything = np.concatenate([found.train_images, found.validation_images])
    assert len(np.unique(everything, axis=0)) == 40


def test_a_larger_limit_only_adds_images_and_every_class_stays() -> None:
    small, large = (load(DataSettings(limit=limit)) for limit in (12, 200))
    assert (len(small.train_labels), len(large.train_labels)) == (12, 200)
    assert np.bincount(large.train_labels).min() >= 18
    assert set(small.train_labels.tolist()) == set(range(10))
    assert {i.tobytes() for i in small.train_images} <= {i.tobytes() for i in large.train_images}
    assert small.validation_labels.tolist() == large.validation_labels.tolist()


def test_a_limit_beyond_the_data_changes_nothing() -> None:
    assert load(DataSettings(limit=10**6)).fingerprint == load(DataSettings()).fingerprint


def test_a_square_that_covers_every_image_is_refused() -> None:
    assert load(DataSettings(cutout=8)).cutout == 8
    assert "data.cutout: a square of 9 pixels" in refusal(DataSettings(cutout=9))


def test_a_limit_below_the_classes_is_refused() -> None:
    assert "data.limit: 9 " in refusal(DataSettings(limit=9))


def test_a_constant_channel_has_a_standard_deviation_to_divide_by(tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8), (i * 20, 0, 77)).save(tmp_path / "train" / name / f"{i}.png")
    std = load(folder(tmp_path)).std
    assert std[1] == std[2] == SMALLEST_STD
    assert std[0] > 0.1


def test_a_given_network_keeps_the_normalisation_that_it_was_trained_with() -> None:
    own = load(DataSettings())
    given = load(DataSettings(mean=(0.5,), std=(0.25,)))
    assert (given.mean, given.std) == ((0.5,), (0.25,)) and given.fingerprint != own.fingerprint
    half = load(DataSettings(std=(0.25,)))
    assert (half.mean, half.std) == (own.mean, (0.25,)) and half.fingerprint not in (own.fingerprint, given.fingerprint)
    white = torch.full((2, 8, 8, 1), 255, dtype=torch.uint8)
    assert torch.equal(normalise(white, given), torch.full((2, 1, 8, 8), (1 - 0.5) / 0.25))
    assert "data.std: 3 values for images of 1 channels" in refusal(DataSettings(mean=(0.5,), std=(0.2, 0.2, 0.2)))
    assert "data.mean: 0 values" in refusal(DataSettings(mean=()))


def test_a_folder_keeps_pixels_and_sorted_class_names(tmp_path: Path) -> None:
    write_images(tmp_path, ("zebra", "ant"), size=(12, 16))
    found = load(folder(tmp_path))
    assert found.classes == ("ant", "zebra")
    assert (found.shape, found.crop, found.flip) == ((3, 16, 12), 1, True)
    first = np.asarray(Image.open(tmp_path / "train" / "zebra" / "000.png")).transpose(2, 0, 1)
    labels = [
        label
        for images, some in (
            (found.train_images, found.train_labels),
            (found.validation_images, found.validation_labels),
        )
        for image, label in zip(images, some, strict=True)
        if (image == first).all()
    ]
    assert labels == [1]


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("P", 3), ("RGBA", 3)])
def test_only_grey_images_have_one_channel(tmp_path: Path, mode: str, channels: int) -> None:
    assert load(folder(write_images(tmp_path, mode=mode))).shape == (channels, 16, 12)


def test_one_image_of_colour_makes_grey_ones_rgb(tmp_path: Path) -> None:
    write_images(tmp_path, mode="L")
    grey = load(folder(tmp_path))
    Image.new("RGB", (12, 16), (255, 0, 0)).save(tmp_path / "train" / "dog" / "red.png")
    found = load(folder(tmp_path))
    assert (grey.shape, found.shape) == ((1, 16, 12), (3, 16, 12))
    coloured = {image.tobytes() for image in (*found.train_images, *found.validation_images)}
    assert {image.repeat(3, 0).tobytes() for image in (*grey.train_images, *grey.validation_images)} < coloured


def test_hidden_and_other_files_are_passed_over_and_nested_images_found(tmp_path: Path) -> None:
    write_images(tmp_path)
    cat = tmp_path / "train" / "cat"
    for name in (".hidden.png", "._000.png", "Thumbs.db", "notes.txt"):
        (cat / name).write_text("no image")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "labels.csv").write_text("a,b")
    (cat / "more").mkdir()
    (cat / "000.png").rename(cat / "more" / "000.PNG")
    found = load(folder(tmp_path))
    assert len(found.train_labels) + len(found.validation_labels) == 20


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    decode = cache._decode

    def counted(items: cache.Items, *rest: Any) -> cache.Decoded:
        calls.append(len(items))
        return decode(items, *rest)

    monkeypatch.setattr(cache, "_decode", counted)
    return calls


def test_images_are_decoded_once_until_one_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_decodes(monkeypatch)
    settings = folder(write_images(tmp_path))
    before = load(settings).fingerprint
    assert load(settings).fingerprint == before
    assert calls == [20]
    Image.new("RGB", (12, 16)).save(tmp_path / "train" / "cat" / "000.png")
    assert load(settings).fingerprint != before
    (tmp_path / "train" / "cat" / "001.png").unlink()
    load(settings)
    assert calls == [20, 20, 19]
    assert not list((tmp_path / ".cache").glob("*.tmp"))


def test_a_damaged_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = folder(write_images(tmp_path))
    before = load(settings).fingerprint
    (file,) = (tmp_path / ".cache").glob("*.npy")
    calls = count_decodes(monkeypatch)
    for damaged in (b"", file.read_bytes()[:-100], b"not numpy"):
        file.write_bytes(damaged)
        assert load(settings).fingerprint == before
    assert calls == [20] * 3


def test_a_read_only_root_is_cached_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_images(tmp_path / "images")
    (root / ".cache").write_text("a file here is as good as a read-only folder, also for the superuser")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    calls = count_decodes(monkeypatch)
    assert load(folder(root)).fingerprint == load(folder(root)).fingerprint
    assert calls == [20]
    assert len(list((tmp_path / "user" / "pruning-front").glob("*/*.npy"))) == 1


def test_without_any_cache_the_images_are_still_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_images(tmp_path / "images")
    (root / ".cache").write_text("")
    (tmp_path / "user").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert load(folder(root)).shape == (3, 16, 12)
    assert "decoded again" in caplog.text


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load(folder(write_images(tmp_path / "one"))).fingerprint
    root, add = write_images(tmp_path / "images"), cache._Array.add

    def full(array: cache._Array, image: Any) -> None:
        add(array, image)
        if not isinstance(array.file, io.BytesIO):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(cache._Array, "add", full)
    assert load(folder(root)).fingerprint == before
    assert not (root / ".cache").exists()
    assert not [path for path in (tmp_path / "user").rglob("*") if path.is_file()]


SIDE = 256


def large_images(root: Path, each: int = 50) -> int:
    """A folder of images that are small on disk; how many bytes they decode to."""
    for shade, name in enumerate(CLASSES):
        (root / "train" / name).mkdir(parents=True)
        for i in range(each):
            Image.new("RGB", (SIDE, SIDE), (i, shade, 77)).save(root / "train" / name / f"{i}.png")
    return each * len(CLASSES) * 3 * SIDE**2


@pytest.mark.parametrize("cached", [False, True])
def test_images_of_a_folder_are_in_memory_once(cached: bool, tmp_path: Path) -> None:
    size = large_images(tmp_path)
    if cached:
        load(folder(tmp_path))
    tracemalloc.start()
    try:
        load(folder(tmp_path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    widened = 5 * 8 * 2**20  # grey levels are counted some millions of pixels at a time, as int64
    assert size < peak < size + widened


def test_images_that_fit_on_no_disk_are_decoded_in_memory_or_as_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    size = large_images(tmp_path, each=10)
    room = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room._replace(free=size - 1))
    monkeypatch.setattr(cache, "machine_memory", lambda: size)
    in_memory = load(folder(tmp_path))
    assert len(in_memory.train_labels) == 16
    monkeypatch.setattr(cache, "machine_memory", lambda: size - 1)
    as_read = load(folder(tmp_path))
    told = "20 images of 256x256 pixels, decoded once, take 0.0 GB, for which neither a disk nor the memory has room"
    assert told in caplog.text and not list(tmp_path.rglob("*.np*"))
    assert as_read.fingerprint == in_memory.fingerprint
    sent = pickle.loads(pickle.dumps(as_read))  # noqa: S301 - as Ray does
    assert len(pickle.dumps(as_read)) < 10_000
    here, there = (training_tensors(one, "cpu")[0] for one in (in_memory, sent))
    order = torch.randperm(len(here)).split(5)
    there.ahead(order[1])  # not what is asked for first
    for some in order:
        assert torch.equal(here[some], there[some])
    assert all(torch.equal(*pair) for pair in zip(here.split(7), there.split(7), strict=True))
    with pytest.raises(InputError, match=r"\.png' can't be read any more \(FileNotFoundError: .*\); put it back"):
        shutil.rmtree(tmp_path / "train") or sent.train_images[:1]
    large_images(tmp_path, each=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room._replace(free=size))
    monkeypatch.setattr(cache, "TOLD_FROM", size - 1)
    caplog.clear()
    load(folder(tmp_path))
    assert f"take 0.0 GB at {tmp_path}" in caplog.text
    assert len(list((tmp_path / ".cache").glob("*.npy"))) == 1


@pytest.mark.parametrize("changes", [{}, {"resize": "random_resized_crop", "size": 8}, {"limit": 20, "size": 8}])
def test_many_images_stay_in_their_file_and_are_the_same(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = folder(write_images(tmp_path, each=20), **changes)
    before = load(settings)
    monkeypatch.setattr(mapped, "MAPPED_FROM", 0)
    found = load(settings)
    sent = pickle.dumps(found)
    assert isinstance(found.train_images, Mapped) and isinstance(found.validation_images, Mapped)
    assert len(sent) < 4000 + found.train_labels.nbytes * 2 + found.validation_labels.nbytes * 2
    for one in (found, pickle.loads(sent)):  # noqa: S301 - as Ray does
        assert (one.fingerprint, one.mean, one.std, one.shape) == (
            before.fingerprint,
            before.mean,
            before.std,
            before.shape,
        )
        assert contents(one) == contents(before)
    here, there = (training_tensors(one, "cpu")[0] for one in (before, found))
    order = torch.randperm(len(here), generator=torch.Generator().manual_seed(0))
    assert torch.equal(here[order], there[order]) and len(here) == len(there)
    assert all(torch.equal(*pair) for pair in zip(here.split(7), there.split(7), strict=True))


def test_training_on_images_in_their_file_is_the_same_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = folder(write_images(tmp_path, each=20))
    states = []
    for bound in (10**9, 0):
        monkeypatch.setattr(mapped, "MAPPED_FROM", bound)
        problem = digits_problem(data=load(settings))
        states.append(Tree(problem, Store(tmp_path / str(bound))).network(problem.root(0)).model.state_dict())
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


def test_a_file_of_images_that_another_node_doesnt_see_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MAPPED_FROM", 0)
    sent = pickle.dumps(load(folder(write_images(tmp_path))))
    shutil.rmtree(tmp_path / ".cache")
    with pytest.raises(InputError, match=r"have data\.root, .* on a file system that all nodes share"):
        _ = pickle.loads(sent).train_images[:1]  # noqa: S301


def test_test_images_are_never_opened(tmp_path: Path) -> None:
    write_images(tmp_path)
    for name in CLASSES:
        (tmp_path / "test" / name).mkdir(parents=True)
        (tmp_path / "test" / name / "0.png").write_text("would be an error if it were read")
    assert load(folder(tmp_path)).classes == CLASSES


def test_test_classes_must_be_those_of_train(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "test" / "cat").mkdir(parents=True)
    (tmp_path / "test" / "horse").mkdir()
    assert "dog, horse" in refusal(folder(tmp_path))


def test_a_folder_without_train_is_refused(tmp_path: Path) -> None:
    assert "no folder 'train'" in refusal(folder(tmp_path / "nowhere"))


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    assert "1 class folders" in refusal(folder(write_images(tmp_path, ("cat",))))


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "train" / "empty").mkdir()
    assert "train/empty" in refusal(folder(tmp_path))


@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_broken_image_is_named(tmp_path: Path, damage: str, kind: str) -> None:
    write_images(tmp_path)
    broken = tmp_path / "train" / "dog" / f"003b.{kind}"
    Image.effect_noise((12, 16), 50).convert("RGB").save(broken)
    whole = broken.read_bytes()
    broken.write_bytes({"empty": b"", "truncated": whole[: len(whole) * 3 // 4], "text": b"hello\n\nworld"}[damage])
    assert f"dog/003b.{kind}" in refusal(folder(tmp_path))
    assert not (tmp_path / ".cache").exists()


def test_a_dangling_link_is_an_input_error(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "train" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert "gone.png" in refusal(folder(tmp_path))


@pytest.mark.parametrize(("deep", "plain"), [(40_000, 156), (0, 0), (65_535, 255)])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, deep: int, plain: int) -> None:
    write_images(tmp_path, mode="L")
    Image.fromarray(np.full((16, 12), deep, np.uint16)).save(tmp_path / "train" / "cat" / "deep.png")
    found = load(folder(tmp_path))
    assert found.shape == (1, 16, 12)
    assert any((image == plain).all() for image in (*found.train_images, *found.validation_images))


def test_values_of_an_unknown_scale_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    Image.fromarray(np.full((16, 12), 0.5, np.float32)).save(tmp_path / "train" / "cat" / "floats.tif")
    assert "floats.tif' can't be read (ValueError: its values are floats of an unknown scale" in refusal(folder(tmp_path))


@pytest.mark.parametrize(("each", "fraction"), [(1, 0.5), (10, 0.01), (10, 0.99), (2, 0.1)])
def test_too_few_images_to_split_are_refused(tmp_path: Path, each: int, fraction: float) -> None:
    message = refusal(folder(write_images(tmp_path, each=each), validation_fraction=fraction))
    assert message.startswith("data.validation_fraction")


def test_a_rare_class_without_validation_images_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, each=30)
    shutil.copytree(tmp_path / "train" / "cat", tmp_path / "train" / "rare")
    for image in sorted((tmp_path / "train" / "rare").iterdir())[2:]:
        image.unlink()
    assert "'rare'" in refusal(folder(tmp_path, validation_fraction=0.1))


def test_the_fingerprint_tells_labels_and_class_names_apart(tmp_path: Path) -> None:
    write_images(tmp_path)
    before = load(folder(tmp_path)).fingerprint
    assert len(before) == len(hashlib.sha256().hexdigest())
    (tmp_path / "train" / "dog").rename(tmp_path / "train" / "wolf")
    assert load(folder(tmp_path)).fingerprint != before


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"dataset": "digts"}, "did you mean 'digits'"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"validation_fraction": 0}, "validation_fraction"),
        ({"limit": 0}, "limit"),
        ({"cutout": -1}, "cutout"),
        ({"mean": [123.7, 116.3, 103.5]}, "mean"),
        ({"std": [0.0]}, "std"),
        ({"mean": float("nan")}, "mean"),
        ({"split_seed": -1}, "split_seed"),
        ({"rot": "x"}, "'root'"),
    ],
)
def test_bad_settings_are_one_line(raw: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        parse(DataSettings, raw, "study.yaml")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in DataSettings.model_fields.values())
