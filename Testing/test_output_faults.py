"""Killed, failed, full or shared: an output has all files of a run or none."""

import errno
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.tag import Tag, tag_in_exception

from CTLungScreeningLib.errors import InputError, is_of_users, sentence_of
from CTLungScreeningLib.files import new_file, replace_text, write_array
from CTLungScreeningLib.reading.volume_files import write_image
from CTLungScreeningLib.staging import only_writer, only_writer_in, staging_folder, whole_output

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")

Hold = Callable[[Path], AbstractContextManager[object]]
FILES = {"a.txt": "a", "b.txt": "b", "deep/c.txt": "c"}


def write(output: Path) -> None:
    with whole_output(output) as folder:
        for name, text in FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)


def tree(folder: Path) -> dict[str, str]:
    return {
        str(one.relative_to(folder)): one.read_text() for one in folder.rglob("*") if one.is_file()
    }


def killed(work: Callable[[], None]) -> None:
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL


def limited(size: int, work: Callable[[], None]) -> tuple[str, str, bool] | None:
    """Do work in a child that may write no file longer than so many bytes; gives what it raised."""
    here, there = multiprocessing.get_context("fork").Pipe()

    def child() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            work()
            there.send(None)
        except BaseException as error:
            there.send((type(error).__name__, sentence_of(error), is_of_users(error)))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    found = here.recv()
    process.join(30)
    return found


@pytest.fixture(params=["missing", "empty", "with other files", "of a group"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "place" / "out [1]*"
    if request.param != "missing":
        folder.mkdir(parents=True)
    if request.param == "with other files":
        (folder / "mine.txt").write_text("mine")
        (folder / "deep").mkdir()
    if request.param == "of a group":
        folder.chmod(0o2770)  # folders made in it have the setgid bit, too
    return folder


def others(output: Path) -> dict[str, str]:
    return {"mine.txt": "mine"} if (output / "mine.txt").exists() else {}


def test_all_files_appear_and_nothing_else(output: Path) -> None:
    mine = others(output)
    write(output)
    assert tree(output) == FILES | mine
    assert [one.name for one in output.parent.iterdir()] == [output.name]


def test_a_failure_leaves_nothing(output: Path) -> None:
    mine, before = others(output), output.exists()
    with pytest.raises(RuntimeError), whole_output(output) as folder:
        (folder / "a.txt").write_text("half")
        raise RuntimeError
    assert output.exists() == output.parent.exists() == before
    assert not before or tree(output) == mine
    assert not before or [one.name for one in output.parent.iterdir()] == [output.name]


@pytest.mark.parametrize("moment", range(5))
def test_a_killed_run_is_taken_up(output: Path, moment: int) -> None:
    """Killed before all is written, or after so many files have got their places."""
    mine = others(output)

    def work() -> None:
        calls = iter(range(100))

        def die(link: Callable[..., None]) -> Callable[..., None]:
            def wrapped(*paths: object) -> None:
                if next(calls) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                link(*paths)

            return wrapped

        os.link = die(os.link)
        os.rename = die(os.rename)
        with whole_output(output) as folder:
            for name, text in FILES.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(text)
            if moment > 2 or not output.exists():
                os.kill(os.getpid(), signal.SIGKILL)

    killed(work)
    write(output)
    assert tree(output) == FILES | mine
    assert [one.name for one in output.parent.iterdir()] == [output.name]


def test_what_came_up_meanwhile_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with pytest.raises(InputError, match=r"b\.txt"), whole_output(output) as folder:
        for name in ("a.txt", "b.txt"):
            (folder / name).write_text("ours")
        (output / "b.txt").write_text("theirs")
    assert tree(output) == {"b.txt": "theirs"}


def test_a_link_in_the_output_is_not_written_through(tmp_path: Path) -> None:
    output, theirs = tmp_path / "out", tmp_path / "theirs"
    output.mkdir()
    theirs.mkdir()
    (output / "deep").symlink_to(theirs)
    with pytest.raises(InputError, match="is a link"):
        write(output)
    assert not list(theirs.iterdir()) and tree(output) == {}


@pytest.mark.parametrize(
    "hold",
    [
        whole_output,
        lambda path: only_writer(path, "training"),
        lambda path: only_writer_in(path, "converting"),
        lambda path: staging_folder(path, "organizing"),
    ],
)
def test_a_second_writer_gets_one_sentence(
    tmp_path: Path, hold: Callable[[Path], AbstractContextManager[object]]
) -> None:
    output = tmp_path / "out"
    with hold(output):
        sentences = []

        def second() -> None:
            with pytest.raises(InputError, match="Another run is"), hold(output):
                pass
            sentences.append(1)
            os._exit(3)

        process = multiprocessing.get_context("fork").Process(target=second)
        process.start()
        process.join(30)
        assert process.exitcode == 3
    with hold(output):
        pass
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("hold", [whole_output, lambda path: only_writer(path, "training")])
def test_outputs_whose_long_names_begin_alike_do_not_wait_for_each_other(
    tmp_path: Path, hold: Callable[[Path], AbstractContextManager[object]]
) -> None:
    name = "x" * 200
    with (
        hold(tmp_path / f"{name}1"),
        hold(tmp_path / f"{name}2"),
        pytest.raises(InputError, match="Another run is"),
        hold(tmp_path / f"{name}1"),
    ):
        pass


def test_a_killed_writer_of_a_long_name_is_taken_up_by_that_name_alone(tmp_path: Path) -> None:
    one, other = (tmp_path / f"{'x' * 200}{n}" for n in (1, 2))

    def work() -> None:
        with new_file(one):
            os.kill(os.getpid(), signal.SIGKILL)

    killed(work)
    left = list(tmp_path.iterdir())
    replace_text(other, "other")
    assert {*left, other} == {*tmp_path.iterdir()} and len(left) == 1
    replace_text(one, "one")
    assert {one, other} == {*tmp_path.iterdir()}


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, (40, 64, 64)).astype(np.int16)
    image = sitk.GetImageFromArray(noise)

    def text() -> None:
        with new_file(tmp_path / "text") as temporary:
            temporary.write_text("x" * 100_000)

    def picture(name: str) -> Callable[[], None]:
        def work() -> None:
            with new_file(tmp_path / name) as temporary:
                write_image(image, temporary)

        return work

    works = [text, picture("a.nii.gz"), picture("b.nrrd")]
    works.append(lambda: replace_text(tmp_path / "c", "x" * 100_000))

    def array() -> None:
        with new_file(tmp_path / "d.npy") as temporary:
            write_array(temporary, np.zeros(50_000, np.uint8))  # only its last bytes do not fit

    works.append(array)
    for work in works:
        found = limited(50_000, work)
        assert found is not None
        name, sentence, users = found
        assert users and sentence.endswith("."), (name, sentence)
        assert work is not text or f"{tmp_path / 'text'} cannot be" in sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_sentence(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    for work in (lambda: write(closed), lambda: write(closed / "out")):
        with pytest.raises(InputError, match="Permission denied"):
            work()


def raised(work: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as error:
        work()
    return error.value


def write_to_full_disk() -> None:
    """Fail as pydicom does in the midst of an element."""
    with tag_in_exception(Tag("PixelData")):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "/out/x"), "/out/x cannot be read or written"),
        (OSError(36, "File name too long", "x" * 300), "use a shorter name"),
        (PermissionError(13, "Permission denied", "/out"), "choose another place"),
        (MemoryError(), "not enough memory"),
        (raised(lambda: np.empty(1 << 59, np.uint8)), "not enough memory"),
        (type("ResourceExhaustedError", (Exception,), {})("OOM"), "not enough memory"),
        (RuntimeError("ITK ERROR: Failed to allocate memory for image."), "not enough memory"),
        (raised(write_to_full_disk), "A file cannot be read or written (No space left on device)"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (OverflowError("Python int too large to convert to C long"), "too large"),
        (RuntimeError("sitk::ERROR: x\x1b[31m\nITK ERROR: cannot write"), "cannot write"),
        (InputError("A\x1b[31m\nsentence."), "A [31m sentence."),
    ],
)
def test_errors_of_users_become_one_sentence(error: Exception, words: str) -> None:
    sentence = sentence_of(error)
    assert is_of_users(error) and words in sentence
    assert sentence.isprintable() and sentence.endswith(".")
