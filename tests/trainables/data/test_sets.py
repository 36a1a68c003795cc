"""What each data set takes, and what it refuses in one line; every image is made on the spot."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data_helpers import CLASSES, folder, refusal, trusting, write_fashion, write_images, write_table
from trainables.data import cache, preparation, test_split
from trainables.data.dataset import Data, load
from trainables.data.preparation import as_evaluated, draw
from trainables.records.names import InputError
from trainables.training.feeding import training_tensors
from trainables.training.loop import evaluate


def mixed(root: Path) -> Path:
    """Photographs of several sizes."""
    write_images(root, each=20, size=(12, 16))
    for i, size in enumerate([(40, 20), (33, 47), (150, 140)]):
        Image.effect_noise(size, 60).convert("RGB").save(root / "train" / "dog" / f"large{i}.jpg")
    return root


def augmented(images: torch.Tensor, found: Data, random: torch.Generator) -> torch.Tensor:
    return preparation.augmented(images, found, draw(found, len(images), random))


def every(found: Data) -> list[np.ndarray]:
    return [*found.train_images, *found.validation_images]


def moved(root: Path, part: str, each: int = 3) -> Path:
    """Some of the training images as another part."""
    for name in CLASSES:
        (root / part / name).mkdir(parents=True)
        for file in sorted((root / "train" / name).iterdir())[:each]:
            file.rename(root / part / name / file.name)
    return root


@pytest.mark.parametrize("part", ["validation", "valid", "val"])
def test_validation_images_of_a_folder_s_own_validate_and_nothing_is_split_off(tmp_path: Path, part: str) -> None:
    found = load(folder(moved(write_images(tmp_path), part)))
    assert (len(found.train_labels), len(found.validation_labels)) == (14, 6)
    first = np.asarray(Image.open(tmp_path / part / "cat" / "000.png")).transpose(2, 0, 1)
    assert (found.validation_images[0] == first).all()
    (tmp_path / "val" / "horse").mkdir(parents=True)
    assert "horse" in refusal(folder(tmp_path)) or "keep the one" in refusal(folder(tmp_path))


def test_images_of_several_sizes_come_to_one_and_that_is_told(tmp_path: Path) -> None:
    root = moved(mixed(tmp_path), "test")
    settings = folder(root)
    found = load(settings)
    assert (found.shape, found.preparation["resize"]) == ((3, 128, 128), "shorter_side")
    assert "128x128" in found.told[0]
    assert load(settings).fingerprint == found.fingerprint and load(settings).told == found.told
    images, labels = test_split.load(settings, found)
    assert images.shape == (6, 3, 128, 128) and labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("resize", ["squash", "shorter_side", "random_resized_crop"])
def test_a_size_is_come_to_as_the_study_says(tmp_path: Path, resize: str) -> None:
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, 6:26] = 255
    write_images(tmp_path, mode="RGB")
    for file in tmp_path.rglob("*.png"):
        Image.fromarray(wide).save(file)
    found = load(folder(tmp_path, size=14, resize=resize, flip=False))
    assert found.shape == (3, 14, 14)
    assert "4 of 4 validation images are training images too" in found.told[0]
    white = (found.validation_images == 255).mean()
    assert white == 1 if resize != "squash" else white < 0.7
    side = 16 if resize == "random_resized_crop" else 14
    assert found.train_images.shape[1:] == (3, side, side)
    assert load(folder(tmp_path, size=(7, 14), resize=resize)).shape == (3, 7, 14)


def test_random_parts_of_images_train_and_the_middle_evaluates(tmp_path: Path) -> None:
    found = load(folder(write_images(tmp_path, size=(64, 64)), size=28, resize="random_resized_crop", flip=False))
    images, _ = training_tensors(found, "cpu")
    torch.manual_seed(0)
    one, other = (augmented(images, found, torch.Generator()) for _ in range(2))
    assert one.shape == other.shape == (len(images), 28, 28, 3)
    assert not torch.equal(one, other)
    torch.manual_seed(0)
    assert torch.equal(one, augmented(images, found, torch.Generator()))
    assert torch.equal(as_evaluated(images, found), images[:, 2:30, 2:30])


def test_settings_that_say_what_is_usual_leave_the_fingerprint_as_it_was(tmp_path: Path) -> None:
    root = str(write_images(tmp_path, size=(16, 16)))
    usual = load(folder(tmp_path))
    for raw in ({"crop": 2, "flip": True}, {"preset": "cifar"}, {"size": 16}, {"resize": "squash"}, {"color": 0}):
        assert load(trusting(dataset="folder", root=root, **raw)).fingerprint == usual.fingerprint, raw
    for raw in ({"crop": 1}, {"flip": False}, {"color": 0.1}, {"size": 15}, {"resize": "random_resized_crop"}):
        assert load(trusting(dataset="folder", root=root, **raw)).fingerprint != usual.fingerprint, raw


def test_a_preset_fills_what_is_not_said() -> None:
    chosen = trusting(preset="imagenet", size=64)
    assert (chosen.size, chosen.resize, chosen.flip) == ((64, 64), "random_resized_crop", True)
    assert trusting(**chosen.model_dump()) == chosen


def test_colours_change_at_random_and_geometry_does_not(tmp_path: Path) -> None:
    found = load(folder(write_images(tmp_path), color=0.5, crop=0, flip=False))
    images, _ = training_tensors(found, "cpu")
    changed = augmented(images, found, torch.Generator())
    assert changed.dtype == torch.uint8 and not torch.equal(changed, images)
    assert torch.corrcoef(torch.stack([changed.flatten().float(), images.flatten().float()]))[0, 1] > 0.7


def test_pictures_stand_upright_and_what_is_transparent_is_white(tmp_path: Path) -> None:
    write_images(tmp_path, size=(12, 16))
    turned = Image.new("RGB", (16, 12), (0, 0, 255))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "train" / "cat" / "turned.png", exif=exif)
    Image.new("RGBA", (12, 16), (0, 0, 0, 0)).save(tmp_path / "train" / "dog" / "clear.png")
    found = every(load(folder(tmp_path)))
    assert any((image == 255).all() for image in found)
    assert any((image[2] == 255).all() and not image[:2].any() for image in found)


def test_classes_may_be_named_in_any_script_written_in_either_way(tmp_path: Path) -> None:
    names = ("猫", "chien été", "собака")
    write_images(tmp_path, names)
    decomposed = unicodedata.normalize("NFD", names[1])
    (tmp_path / "train" / names[1]).rename(tmp_path / "train" / decomposed)
    for name in names:
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (12, 16)).save(tmp_path / "val" / name / "0.png")
    assert set(load(folder(tmp_path)).classes) == set(names)


def test_unreadable_images_are_counted_and_left_out_if_they_are_few(tmp_path: Path) -> None:
    write_images(tmp_path, each=100, size=(6, 6))
    for i in (3, 4):
        (tmp_path / "train" / "dog" / f"{i:03}.png").write_bytes(b"")
    line = refusal(folder(tmp_path))
    assert "dog/003.png' can't be read" in line and "1 more of 200" in line and "data.skip_unreadable" in line
    for _ in range(2):  # decoded, and from the cache
        found = load(folder(tmp_path, skip_unreadable=True))
        assert len(every(found)) == 198
        assert "2 left out" in found.told[0] and "dog/003.png" in found.told[0] and "dog/004.png" in found.told[0]
    (tmp_path / "train" / "dog" / "005.png").write_bytes(b"GIF89a")
    assert "more than the 1%" in refusal(folder(tmp_path, skip_unreadable=True))


def test_a_class_with_one_image_is_named_with_the_remedy(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "train" / "lone").mkdir()
    Image.new("RGB", (12, 16)).save(tmp_path / "train" / "lone" / "0.png")
    line = refusal(folder(tmp_path))
    assert "'lone' has 1 image" in line and "validation images of your own" in line


def test_images_that_train_and_validate_are_told(tmp_path: Path) -> None:
    write_images(tmp_path)
    assert load(folder(tmp_path)).told == ()
    (tmp_path / "train" / "dog" / "again.png").write_bytes((tmp_path / "train" / "dog" / "000.png").read_bytes())
    told = [load(folder(tmp_path, split_seed=seed)).told for seed in range(9)]
    assert any(notes and "1 of 5 validation images are training images too" in notes[0] for notes in told)


def test_a_table_names_images_labels_and_parts(tmp_path: Path) -> None:
    parts = (["train"] * 6 + ["val"] * 2 + ["test"] * 2) * 2
    settings = trusting(dataset="csv", root=str(write_table(tmp_path, split=parts)))
    found = load(settings)
    assert (found.classes, len(found.train_labels), len(found.validation_labels)) == (CLASSES, 12, 4)
    images, labels = test_split.load(settings, found)
    assert labels.tolist() == [0, 0, 1, 1]
    assert (images[0] == np.asarray(Image.open(tmp_path / "train" / "cat" / "008.png")).transpose(2, 0, 1)).all()


def test_labels_that_are_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    write_table(tmp_path, classes=("10", "9"))
    assert load(trusting(dataset="csv", root=str(tmp_path))).classes == ("9", "10")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label_column": "lable"}, ("data.label_column", "no column 'lable'", "did you mean 'label'")),
        ({"path_column": "file"}, ("data.path_column", "no column 'file'")),
        ({"table": "none.csv"}, ("data.table", "none.csv")),
        ({"split_column": "label"}, ("data.split_column", "'cat' is no part")),
    ],
)
def test_a_table_without_what_is_named_is_refused(tmp_path: Path, change: dict[str, str], words: tuple[str, ...]) -> None:
    line = refusal(trusting(dataset="csv", root=str(write_table(tmp_path)), **change))
    assert all(word in line for word in words)


def test_a_table_s_missing_file_and_empty_label_are_named(tmp_path: Path) -> None:
    table = write_table(tmp_path) / "labels.csv"
    rows = table.read_text()
    table.write_text(f"{rows}\nnowhere.png,cat")
    settings = trusting(dataset="csv", root=str(tmp_path))
    assert "nowhere.png' can't be read (FileNotFoundError" in refusal(settings)
    table.write_text(f"{rows}\ntrain/cat/000.png,")
    assert "empty in line 22" in refusal(settings)


def test_torchvision_s_parts_are_found_by_name(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    settings = trusting(dataset="torchvision:FashionMNIST", root=str(tmp_path))
    found = load(settings, writable=False)
    assert (found.shape, found.flip, found.classes[9]) == ((1, 28, 28), True, "Ankle boot")
    images, labels = test_split.load(settings, found)
    assert images.shape == (100, 1, 28, 28) and labels[:3].tolist() == [0, 1, 2]
    assert trusting(dataset="torchvision:SVHN").dataset == "torchvision:SVHN"
    with pytest.raises(InputError, match="did you mean 'FashionMNIST'"):
        trusting(dataset="torchvision:FashonMNIST")
    line = refusal(trusting(dataset="torchvision:Flowers102", root=str(tmp_path / "none")), writable=False)
    assert "torchvision's Flowers102 is not in" in line


def test_a_user_s_own_data_set_trains_validates_and_keeps_its_test_images_sealed(own: str) -> None:
    found = load(trusting(dataset=f"{own}:sealed"))
    assert (found.shape, found.classes, found.flip) == ((3, 12, 12), ("0", "1"), False)
    with pytest.raises(InputError, match="the test split was opened"):
        test_split.load(trusting(dataset=f"{own}:sealed"), found)
    more = load(trusting(dataset=f"{own}:pictures", arguments={"validation": 6}))
    assert (len(more.train_labels), len(more.validation_labels)) == (40, 6)
    images, _ = test_split.load(trusting(dataset=f"{own}:pictures"), found)
    assert images.shape == (10, 3, 12, 12)


def test_floats_are_taken_as_they_are(own: str) -> None:
    found = load(trusting(dataset=f"{own}:of", arguments={"make": "floats"}))
    assert (found.shape, found.train_images.dtype, found.crop) == ((4, 9, 9), np.float32, 0)
    assert (found.mean, found.std) == ((0.0,) * 4, (1.0,) * 4)
    assert abs(found.train_images.mean() - 100) < 1
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4 * 81, 2))
    assert 0 <= evaluate(model, found) <= 1


def test_what_identifies_a_user_s_data_set_is_its_content(own: str) -> None:
    first, again, more = (load(trusting(dataset=f"{own}:pictures", arguments={"count": n})) for n in (40, 40, 41))
    assert first.fingerprint == again.fingerprint != more.fingerprint


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("of", {"make": "breaks"}, "item 17 of train can't be read (KeyError: 'no seventeenth')"),
        ("of_another_class", {}, "item 1 of train is of class 2, and there are 2 classes"),
        ("of_words", {}, "its target is 'cat', which is no number"),
        ("at_random", {}, "item 0 of train is another image each time"),
        ("nothing", {}, "returns list; return {'train': ..., 'test': ...}"),
        ("pictures", {"count": "x"}, "'train' of 'sets_for_tests:pictures' is Some, which has no length"),
        ("pictures", {"cuont": 3}, "returns ['cuont', 'test', 'train']"),
        ("of", {"kame": 3}, "can't be made (TypeError"),
    ],
)
def test_a_user_s_data_set_that_fails_is_one_line(own: str, name: str, arguments: dict[str, object], words: str) -> None:
    assert words in refusal(trusting(dataset=f"{own}:{name}", arguments=arguments))


def test_code_of_the_user_s_own_needs_to_be_trusted(own: str) -> None:
    for raw in ({"dataset": f"{own}:pictures"}, {"transforms": f"{own}:six"}):
        with pytest.raises(InputError, match="--allow-code"):
            trusting(False, **raw)


def test_transforms_of_the_user_s_own_stand_for_all_others(own: str, tmp_path: Path) -> None:
    settings = trusting(dataset="folder", root=str(write_images(tmp_path / "images")), transforms=f"{own}:six")
    found = load(settings)
    assert (found.shape, found.mean, found.crop, found.flip) == ((3, 6, 6), (0.0,) * 3, 0, False)
    assert found.validation_images.dtype == np.float32 and abs(found.validation_images.mean()) < 0.2
    images, _ = training_tensors(found, "cpu")
    torch.manual_seed(0)
    assert augmented(images, found, torch.Generator()).shape == as_evaluated(images, found).shape == (16, 6, 6, 3)
    assert not torch.equal(augmented(images, found, torch.Generator()), as_evaluated(images, found))
    assert load(settings).fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("other_shapes", "makes [3, 6, 6] with train=True and [3, 7, 7] with train=False"),
        ("fails", "fails at image 0 (ZeroDivisionError: by hand)"),
    ],
)
def test_transforms_that_do_not_fit_are_one_line(own: str, tmp_path: Path, name: str, words: str) -> None:
    settings = trusting(dataset="folder", root=str(write_images(tmp_path / "images")), transforms=f"{own}:{name}")
    assert words in refusal(settings)


def test_what_a_cache_holds_of_another_size_is_not_taken_for_it(tmp_path: Path) -> None:
    write_images(tmp_path)
    shapes = [
        load(folder(tmp_path, **how)).shape for how in ({}, {"size": 8}, {"size": 9}, {"size": 8, "resize": "squash"})
    ]
    assert shapes == [(3, 16, 12), (3, 8, 8), (3, 9, 9), (3, 8, 8)]
    assert len(list((tmp_path / cache.CACHE_FOLDER).glob("*.npy"))) == 4
