"""Organizing DICOM files loses, overwrites and half-makes nothing."""

import errno
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from CTLungScreeningLib.errors import Cancelled, InputError
from CTSliceToolsLib.options import Transfer
from CTSliceToolsLib.organizing.organizer import organize
from dicom_heaps import hidden, images, tree, write

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
other_disk = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs /dev/shm")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    folder = Path("/dev/shm") / f"organizing-{os.getpid()}"
    folder.mkdir()
    if folder.stat().st_dev == tmp_path.stat().st_dev:
        folder.rmdir()
        pytest.skip("/dev/shm is no other file system")
    yield folder
    shutil.rmtree(folder)


# --- nothing is lost -------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", Transfer)
def test_nothing_in_the_destination_is_overwritten(
    source: Path, tmp_path: Path, transfer: Transfer
) -> None:
    target = tmp_path / "target"
    organize(source, target)
    [one] = (target / "P1").rglob("1.dcm")
    [two] = (target / "P1").rglob("2.dcm")
    [clash] = (target / "P1").rglob("1-*.dcm")
    two.unlink()
    two.mkdir()
    (two / "inside").write_text("foreign")
    one.write_bytes(b"foreign")
    clash.write_bytes(b"foreign too")
    (target / "left-out.csv").write_text("foreign")
    before = tree(target)
    contents = {c for name, c in tree(source).items() if name.startswith("cd")}
    organize(source, target, transfer)
    after = tree(target)
    assert before.items() <= after.items()
    assert contents <= set(after.values())


@posix
def test_a_broken_link_in_the_destination_is_left_alone(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    organize(source, target)
    [one] = (target / "P1").rglob("1.dcm")
    one.unlink()
    one.symlink_to(tmp_path / "elsewhere")
    organize(source, target)
    assert one.is_symlink() and not (tmp_path / "elsewhere").exists()
    assert tree(source)["cd1/IM1"] in images(target).values()


@pytest.mark.parametrize("transfer", Transfer)
def test_a_second_run_changes_nothing(source: Path, tmp_path: Path, transfer: Transfer) -> None:
    target = tmp_path / "target"
    organize(source, target)
    before = tree(target)
    summary = organize(source, target, transfer)
    assert tree(target) == before
    assert (summary.placed, summary.already_there, summary.duplicates) == (0, 5, 1)
    if transfer is Transfer.MOVE:
        assert set(tree(source)) == {"half.dcm", "notes.txt"}


def test_two_sources_meet_in_one_destination(tmp_path: Path) -> None:
    write(tmp_path / "one" / "a", 1)
    write(tmp_path / "two" / "a", 1)
    organize(tmp_path / "one", tmp_path / "target")
    organize(tmp_path / "two", tmp_path / "target")
    assert len(images(tmp_path / "target")) == 2


def test_linked_files_share_their_content(source: Path, tmp_path: Path) -> None:
    summary = organize(source, tmp_path / "target", Transfer.LINK)
    [one] = (tmp_path / "target" / "P1").rglob("1.dcm")
    assert one.samefile(source / "cd1" / "IM1")
    assert not summary.notes


@posix
def test_moving_what_was_linked_keeps_it(source: Path, tmp_path: Path) -> None:
    organize(source, tmp_path / "target", Transfer.LINK)
    before = images(tmp_path / "target")
    organize(source, tmp_path / "target", Transfer.MOVE)
    assert images(tmp_path / "target") == before
    assert set(tree(source)) == {"half.dcm", "notes.txt"}


@pytest.mark.parametrize("transfer", Transfer)
def test_a_move_says_that_annotations_stay(
    source: Path, tmp_path: Path, transfer: Transfer
) -> None:
    (source / "cd1" / "annotation.json").write_text("{}")
    notes = organize(source, tmp_path / "target", transfer).notes
    words = "1 annotation of series stayed in the source"
    assert [words in note for note in notes] == [True] * (transfer is Transfer.MOVE)
    assert (source / "cd1" / "annotation.json").exists()


@other_disk
@pytest.mark.parametrize("transfer", Transfer)
def test_two_file_systems(source: Path, other: Path, tmp_path: Path, transfer: Transfer) -> None:
    organize(source, tmp_path / "target")
    summary = organize(source, other / "target", transfer)
    assert images(other / "target") == images(tmp_path / "target")
    assert bool(summary.notes) == (transfer is Transfer.LINK)
    assert ("IM1" in str(tree(source))) == (transfer is not Transfer.MOVE)


@other_disk
def test_a_move_keeps_the_source_of_a_copy_that_differs(
    tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "source" / "a")

    def flush_and_spoil(handle: int) -> None:
        os.pwrite(handle, b"spoilt", 0)

    monkeypatch.setattr(os, "fsync", flush_and_spoil)
    with pytest.raises(InputError, match="differs"):
        organize(tmp_path / "source", other / "target", Transfer.MOVE)
    assert file.exists() and not tree(other)


@posix
@pytest.mark.parametrize("transfer", Transfer)
@pytest.mark.parametrize("moment", range(6))
def test_killed_at_any_moment_and_run_again(
    source: Path, tmp_path: Path, transfer: Transfer, moment: int
) -> None:
    organize(source, tmp_path / "once")
    target = tmp_path / "target"
    kind, after = ("before", "after")[moment % 2], moment // 2 * 2

    def killed() -> None:
        link, calls = os.link, iter(range(100))

        def link_and_die(*paths: Path) -> None:
            last = next(calls) == after
            if last and kind == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            link(*paths)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)

        os.link = link_and_die  # type: ignore[assignment]
        organize(source, target, transfer)

    child = multiprocessing.get_context("fork").Process(target=killed)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert hidden(target)
    organize(source, target, transfer)
    assert tree(target) == tree(tmp_path / "once")


@pytest.mark.parametrize("transfer", Transfer)
def test_cancel_leaves_whole_files_only(source: Path, tmp_path: Path, transfer: Transfer) -> None:
    before, target = tree(source), tmp_path / "target"

    def report(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("Organizing", 4):
            raise Cancelled

    with pytest.raises(Cancelled):
        organize(source, target, transfer, progress=report)
    assert len(tree(target)) == 2
    assert set(tree(target).values()) | set(tree(source).values()) == set(before.values())
    assert not hidden(target)
    organize(source, target, transfer)
    organize(heap_again(source, before), tmp_path / "once")
    assert images(target) == images(tmp_path / "once")


def heap_again(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


def test_progress_reaches_its_end(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    organize(source, tmp_path / "target", progress=lambda *step: seen.append(step))
    assert seen[-1] == ("Organizing", 8, 8)
    assert all(done <= total for _, done, total in seen)


# --- folders ---------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", Transfer)
def test_a_destination_inside_the_source_is_not_taken_in(source: Path, transfer: Transfer) -> None:
    target = source / "target"
    organize(source, target, transfer)
    before = tree(target)
    organize(source, target, transfer)
    assert tree(target) == before and len(images(target)) == 5


@posix
def test_a_destination_behind_a_link_is_known_again(source: Path, tmp_path: Path) -> None:
    (source / "target").mkdir()
    (tmp_path / "alias").symlink_to(source / "target")
    for _ in range(2):
        assert organize(source, tmp_path / "alias", Transfer.MOVE).duplicates in (0, 1)
    assert len(images(source / "target")) == 5


def test_folders_that_make_no_sense_are_refused(source: Path, tmp_path: Path) -> None:
    before = tree(source)
    for folder, target in ((source, source), (source / "cd1", source)):
        with pytest.raises(InputError, match="is inside"):
            organize(folder, target, Transfer.MOVE)
    with pytest.raises(InputError, match="is not a folder"):
        organize(tmp_path / "missing", tmp_path / "target")
    with pytest.raises(InputError, match="is a file"):
        organize(source, source / "notes.txt")
    assert tree(source) == before


def test_a_file_in_the_way_of_a_folder_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "P1").write_text("foreign")
    with pytest.raises(InputError, match="P1"):
        organize(source, tmp_path / "target")
    assert tree(tmp_path / "target") == {"P1": b"foreign"}


@posix
def test_one_run_at_a_time(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"

    def report(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("Organizing", 2):
            with pytest.raises(InputError, match="Another run"):
                organize(source, target)

    summary = organize(source, target, progress=report)
    assert summary.placed == 5
    assert not hidden(target)


def test_a_full_disk_is_a_sentence_and_no_loss(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(source)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "target")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        patched.setattr(os, "copy_file_range", full, raising=False)
        with pytest.raises(InputError, match=r"No space left .* run the command again"):
            organize(source, tmp_path / "target")
    assert tree(source) == before and not images(tmp_path / "target")
    assert organize(source, tmp_path / "target").placed == 5


def test_copying_without_the_kernels_help(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    organize(source, tmp_path / "one")
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    organize(source, tmp_path / "two")
    assert images(tmp_path / "one") == images(tmp_path / "two")


def test_a_file_system_without_hard_links(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    organize(source, tmp_path / "one")

    def unsupported(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", unsupported)
    summary = organize(source, tmp_path / "two", Transfer.LINK)
    assert "hard links need" in summary.notes[0]
    organize(source, tmp_path / "three", Transfer.MOVE)
    assert images(tmp_path / "one") == images(tmp_path / "two") == images(tmp_path / "three")
    assert set(tree(source)) == {"half.dcm", "notes.txt"}
