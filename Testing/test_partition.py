"""Series sorted into training, validation and testing as the tutorial's rule does."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from CTLungScreeningLib.errors import Cancelled, InputError
from CTSliceToolsLib.cli import app
from CTSliceToolsLib.dataset import conversion
from CTSliceToolsLib.dataset.conversion import LabelledSlice, Part, part_of, partition

BY_REMAINDER = {
    0: "1.2.840.99999.20",
    1: "1.2.840.99999.10",
    2: "1.2.840.99999.38",
    3: "1.2.840.99999.17",
    4: "1.2.840.99999.9",
    5: "1.2.840.99999.19",
    6: "1.2.840.99999.5",
    7: "1.2.840.99999.3",
    8: "1.2.840.99999.11",
    9: "1.2.840.99999.1",
}
"""UIDs by the last decimal digit of their SHA-256, worked out with `sha256sum` and `bc`."""

TRAINING, VALIDATION, TESTING = BY_REMAINDER[0], BY_REMAINDER[8], BY_REMAINDER[9]


def npz(file: Path, uid: str, value: int = 7, location: float = 0.25) -> Path:
    LabelledSlice(np.full((256, 256), value, np.uint8), location, uid).write(file)
    return file


def source(root: Path) -> Path:
    for number, uid in enumerate([TRAINING, VALIDATION, TESTING]):
        for k in range(number + 1):
            npz(root / f"P{number}" / "study" / "series" / f"{k}.npz", uid, 10 * number + k)
    return root


def held(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(("remainder", "uid"), BY_REMAINDER.items())
def test_part_of_hand_computed_uids(remainder: int, uid: str) -> None:
    expected = {7: Part.VALIDATION, 8: Part.VALIDATION, 9: Part.TESTING}
    assert part_of(uid) is expected.get(remainder, Part.TRAINING)


def test_part_of_a_published_scan() -> None:
    # sha256sum: 8807a8bd…6beacdd8c; its last decimal digit is 8.
    uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192"
    assert part_of(uid) is Part.VALIDATION


@given(uid=st.text(alphabet="0123456789.", min_size=1, max_size=64))
def test_rule_is_that_of_the_seed(uid: str) -> None:
    value = int(hashlib.sha256(str(np.str_(uid)).encode("utf-8")).hexdigest(), 16) % 10
    assert part_of(uid) == ("training" if value < 7 else "validation" if value < 9 else "testing")


@pytest.mark.parametrize("hard_links", [False, True])
def test_slices_are_sorted_by_series_and_the_source_stays(tmp_path: Path, hard_links: bool) -> None:
    root = source(tmp_path / "npz")
    before = held(root)
    found = partition(root, tmp_path / "parts", hard_links)
    assert found.slices == {"training": 1, "validation": 2, "testing": 3}
    assert found.series == {"training": 1, "validation": 1, "testing": 1}
    assert (found.kept, found.failed) == (0, ())
    train, validate, test = (uid.replace(".", "_") for uid in (TRAINING, VALIDATION, TESTING))
    there = held(tmp_path / "parts")
    assert {name: there[name] for name in sorted(there)} == {
        f"testing/{test}_0.npz": before["P2/study/series/0.npz"],
        f"testing/{test}_1.npz": before["P2/study/series/1.npz"],
        f"testing/{test}_2.npz": before["P2/study/series/2.npz"],
        f"training/{train}_0.npz": before["P0/study/series/0.npz"],
        f"validation/{validate}_0.npz": before["P1/study/series/0.npz"],
        f"validation/{validate}_1.npz": before["P1/study/series/1.npz"],
    }
    assert held(root) == before
    one = tmp_path / "parts" / "training" / f"{train}_0.npz"
    assert one.samefile(root / "P0/study/series/0.npz") is hard_links


def test_what_a_link_leads_to_is_linked_and_not_the_link(tmp_path: Path) -> None:
    root = source(tmp_path / "npz")
    for file in root.rglob("*.npz"):
        kept = tmp_path / f"kept-{file.parent.parent.parent.name}-{file.name}"
        file.rename(kept)
        file.symlink_to(os.path.relpath(kept, file.parent))
    for kept_before in (0, 6):
        found = partition(root, tmp_path / "parts", hard_links=True)
        assert (found.kept, found.failed) == (kept_before, ())
    made = list((tmp_path / "parts").rglob("*.npz"))
    assert len(made) == 6 and not any(file.is_symlink() for file in made)


@pytest.mark.parametrize("hard_links", [False, True])
def test_goes_on_where_it_was_cut_short(tmp_path: Path, hard_links: bool) -> None:
    root = source(tmp_path / "npz")

    def cancel(stage: str, done: int, total: int) -> None:
        if done == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        partition(root, tmp_path / "parts", hard_links, cancel)
    assert len(held(tmp_path / "parts")) == 4
    found = partition(root, tmp_path / "parts")
    assert found.kept == 4
    assert len(held(tmp_path / "parts")) == 6


def test_another_slice_of_the_same_name_is_not_overwritten(tmp_path: Path) -> None:
    root = source(tmp_path / "npz")
    clash = npz(root / "copy" / "0.npz", TRAINING, 99, 0.75)
    found = partition(root, tmp_path / "parts")
    assert len(found.failed) == 1
    assert str(root / "P0") in found.failed[0] or str(clash) in found.failed[0]
    assert sum(found.slices.values()) == 6
    there = held(tmp_path / "parts")
    partition(root, tmp_path / "parts")
    assert held(tmp_path / "parts") == there


def test_slices_withdrawn_from_the_source_are_refused(tmp_path: Path) -> None:
    root = source(tmp_path / "npz")
    partition(root, tmp_path / "parts")
    (root / "P2" / "study" / "series" / "1.npz").unlink()
    there = held(tmp_path / "parts")
    name = f"{TESTING.replace('.', '_')}_1.npz"
    with pytest.raises(InputError, match=f"testing has 1 file of slices that .*, such as {name}"):
        partition(root, tmp_path / "parts")
    assert held(tmp_path / "parts") == there


def test_slices_annotated_anew_are_refused_before_any_is_added(tmp_path: Path) -> None:
    root = source(tmp_path / "npz")
    partition(root, tmp_path / "parts")
    changed = root / "P2" / "study" / "series" / "1.npz"
    changed.unlink()
    npz(changed, TESTING, 21, 0.5)
    npz(root / "P3" / "0.npz", BY_REMAINDER[1])
    there = held(tmp_path / "parts")
    words = "testing has 1 file of slices that have another location in .*, such as .*_1.npz"
    with pytest.raises(InputError, match=words):
        partition(root, tmp_path / "parts")
    assert held(tmp_path / "parts") == there


def test_broken_and_hostile_files_stop_no_other(tmp_path: Path) -> None:
    root = source(tmp_path / "npz")
    (root / "broken.npz").write_bytes(b"PK nonsense")
    np.savez(root / "other.npz", pixels=np.zeros(3))
    np.savez(root / "objects.npz", series_instance_UID=np.array([{}], object))
    np.savez(root / "half.npz", pixels=np.zeros(3))
    (root / "half.npz").write_bytes((root / "half.npz").read_bytes()[:-30])
    np.savez_compressed(root / "packed.npz", pixels=np.zeros((9000, 9000)))
    npz(root / "hostile.npz", "../../../outside")
    found = partition(root, tmp_path / "parts")
    assert sorted(Path(sentence.split(" is damaged")[0]).name for sentence in found.failed) == [
        *("broken.npz", "half.npz", "objects.npz", "other.npz", "packed.npz")
    ]
    assert sum(found.slices.values()) == 7
    assert not list(tmp_path.glob("outside*"))
    assert {path.name for path in tmp_path.iterdir()} == {"npz", "parts"}


def test_folders_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        partition(tmp_path / "missing", tmp_path / "parts")
    (tmp_path / "npz").mkdir()
    with pytest.raises(InputError, match=r"has no \.npz"):
        partition(tmp_path / "npz", tmp_path / "parts")
    source(tmp_path / "npz")
    with pytest.raises(InputError, match="choose a folder outside it"):
        partition(tmp_path / "npz", tmp_path / "npz" / "parts")


def test_links_across_disks_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_disk(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    with pytest.raises(InputError, match="try copies"):
        partition(source(tmp_path / "npz"), tmp_path / "parts", hard_links=True)


def test_a_disk_that_gets_full_ends_the_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    npz_folder = source(tmp_path / "npz")
    monkeypatch.setattr(shutil, "copy2", Mock(side_effect=[npz_folder / "no", full]))
    monkeypatch.setattr(conversion, "rename_new", Mock())
    with pytest.raises(InputError, match=r"No space left on device\): free space"):
        partition(npz_folder, tmp_path / "parts")


def test_command_says_which_part_is_empty(tmp_path: Path) -> None:
    npz(tmp_path / "npz" / "0.npz", TRAINING)
    arguments = ["partition", str(tmp_path / "npz"), "-o", str(tmp_path / "parts")]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert "validation and testing got none" in outcome.output
    outcome = CliRunner().invoke(app, [*arguments, "--progress", "jsonl"])
    result = json.loads(outcome.stdout.splitlines()[-1])["result"]
    assert (result["kept"], result["slices"]["training"]) == (1, 1)
