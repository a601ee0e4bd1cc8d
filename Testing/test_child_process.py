"""Child processes: their progress arrives, Cancel leaves nothing behind, a crash is explained."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import CTLungScreeningLib
import CTSliceToolsLib
from CTLungScreeningLib.child_process import (
    ChildError,
    ChildProcess,
    module_command,
    module_environment,
    program_command,
    unwinding_at_signals,
)
from CTLungScreeningLib.child_process import run_command as run
from CTLungScreeningLib.errors import Cancelled, InputError
from lung_programs import install

EMIT = "import json, sys\ndef emit(**fields): print(json.dumps(fields), flush=True)\n"

FAMILY = (
    EMIT
    + """
import os, subprocess, time
# A grandchild in the tree, and one whose own parent has ended.
inner = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; " + \
    "time.sleep(600)'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); print(p.pid); "
stays = subprocess.Popen([sys.executable, "-c", inner + "sys.stdout.flush(); p.wait()"],
    stdout=subprocess.PIPE, text=True)
leaves = subprocess.run([sys.executable, "-c", inner], stdout=subprocess.PIPE, text=True)
emit(pids=[os.getpid(), stays.pid, int(stays.stdout.readline()), int(leaves.stdout)])
emit(stage="sleeping", done=0, total=1)
"""
)


def script(folder: Path, body: str) -> list[str]:
    file = folder / "child.py"
    file.write_text(EMIT + body)
    return [sys.executable, str(file)]


def wait_until_gone(pids: list[int], seconds: float = 5) -> list[int]:
    deadline = time.monotonic() + seconds
    while pids and time.monotonic() < deadline:
        pids = [pid for pid in pids if lives(pid)]
        time.sleep(0.02)
    return pids


def pids_of(child: ChildProcess) -> list[int]:
    while child.running:
        for event in child.poll(0.1):
            if "pids" in event:
                return event["pids"]
    raise AssertionError(child.log.read_text())


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_progress_arrives_in_order_and_the_result_is_returned(tmp_path: Path) -> None:
    command = script(
        tmp_path,
        """
print("not JSON: goes to the log")
for done in range(4): emit(stage="lungs", done=done, total=3, elapsed_s=0.1, remaining_s=None)
emit(message="a note")
emit(result={"output": "é"})
""",
    )
    seen: list[tuple[str, int, int]] = []
    result = run(command, progress=lambda *state: seen.append(state))
    assert result == {"output": "é"}
    lungs = [state for state in seen if state[0] == "lungs"]
    assert lungs == sorted(lungs)
    assert {done for _, done, _ in lungs} == {0, 1, 2, 3}


def test_the_environment_is_extended(tmp_path: Path) -> None:
    command = script(
        tmp_path, "import os\nemit(result=[os.environ['NODULE'], 'PATH' in os.environ])"
    )
    assert run(command, {"NODULE": "23 mm"}) == ["23 mm", True]


def in_slicer(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Set what Slicer's launcher sets, for a Python that is not the one of this test."""
    for name, value in {
        "PYTHONHOME": str(home),
        "PYTHONPATH": str(home),
        "PYTHONNOUSERSITE": "1",
        "LD_LIBRARY_PATH": str(home),
        "APPLAUNCHER_LEVEL": "1",
        "APPLAUNCHER_0_LD_LIBRARY_PATH": "/opt/own",
        "APPLAUNCHER_0_PATH": os.environ["PATH"],
    }.items():
        patch.setenv(name, value)
    patch.setenv("PATH", str(home), prepend=os.pathsep)


def test_a_program_has_the_environment_from_before_slicer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.environ["PATH"]
    in_slicer(monkeypatch, tmp_path)
    names = ["PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "PATH"]
    text = f"import json, os\nprint(json.dumps({{'result': [os.environ[n] for n in {names}]}}))"
    install(tmp_path, "finder", text)
    command = program_command("finder", "chest.nii.gz")
    assert command.arguments == [str(tmp_path / "finder"), "chest.nii.gz"]
    assert run(command.arguments, command.environment) == ["", "", "", "/opt/own", before]


def test_a_program_of_slicers_python_keeps_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_slicer(monkeypatch, tmp_path)
    assert program_command(sys.executable).environment == {}
    # As the launcher writes it.
    monkeypatch.setattr(sys, "prefix", f"{tmp_path}/bin/../lib")
    (tmp_path / "bin").mkdir()
    assert program_command(str(tmp_path / "lib" / "bin" / "finder")).environment == {}
    assert program_command(str(tmp_path / "bin" / "finder")).environment["PYTHONHOME"] == ""


def test_a_program_outside_slicer_keeps_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHOME", raising=False)
    monkeypatch.setenv("PYTHONPATH", "/opt/own")
    assert program_command("/opt/own/finder").environment == {}


def test_much_output_on_both_pipes_does_not_block(tmp_path: Path) -> None:
    command = script(
        tmp_path,
        """
for i in range(20000): print("x" * 80, file=sys.stderr)
for i in range(5000): emit(stage="s", done=i, total=5000)
emit(result=1)
""",
    )
    assert run(command) == 1


def test_refused_input_keeps_its_sentence(tmp_path: Path) -> None:
    command = script(tmp_path, "emit(error='scan.nrrd shows no lung.')\nsys.exit(2)")
    with pytest.raises(InputError, match=r"^scan\.nrrd shows no lung\.$"):
        run(command)


def test_an_exception_is_one_sentence_and_the_log_is_kept(tmp_path: Path) -> None:
    command = script(tmp_path, "raise MemoryError('no room for 9 GB')")
    with pytest.raises(ChildError, match=r"ended with status 1; its log is .*\.$") as caught:
        run(command)
    assert "no room for 9 GB" in caught.value.log.read_text()
    caught.value.log.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_crash_names_its_signal_and_ends_what_it_left(tmp_path: Path) -> None:
    command = script(
        tmp_path, FAMILY.removeprefix(EMIT) + "import signal\nos.kill(os.getpid(), signal.SIGSEGV)"
    )
    with ChildProcess(command) as child:
        pids = pids_of(child)
        with pytest.raises(ChildError, match="ended with signal SIGSEGV"):
            child.result()
        child.log.unlink()
        assert wait_until_gone(pids) == []


def test_nothing_is_imported_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise RuntimeError('a file of the user')")
    (tmp_path / "dl").mkdir()  # python-gdcm asks for a module of this name
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, **module_environment(CTLungScreeningLib, CTSliceToolsLib)}
    done = subprocess.run(
        module_command("CTSliceToolsLib", "series", tmp_path),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no DICOM image among its 1 file" in done.stderr


def test_a_program_that_is_not_there_is_refused() -> None:
    words = r"no-such-python could not be started \(No such file .*: install it, or choose ano"
    with pytest.raises(InputError, match=words):
        run(["/no-such-python", "-c", ""])


def test_cancel_ends_the_whole_tree(tmp_path: Path) -> None:
    command = script(tmp_path, FAMILY.removeprefix(EMIT) + "time.sleep(600)")
    with ChildProcess(command) as child:
        pids = pids_of(child)
        assert all(lives(pid) for pid in pids)
        child.cancel()
        assert wait_until_gone(pids) == []
        assert not child.log.exists()


def test_cancelled_from_the_report_ends_a_silent_child_that_ignores_terminate(
    tmp_path: Path,
) -> None:
    file = tmp_path / "pid"
    command = script(
        tmp_path,
        f"""
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({str(file)!r}).write_text(str(os.getpid()))
emit(stage="long", done=1, total=9)
time.sleep(600)
""",
    )
    calls = 0

    def report(stage: str, done: int, total: int) -> None:
        nonlocal calls
        calls += stage == "long"
        if calls == 3:  # the line itself and two repetitions while the child is silent
            raise Cancelled

    with pytest.raises(Cancelled):
        run(command, progress=report)
    assert wait_until_gone([int(file.read_text())]) == []


def test_the_temporary_folders_of_a_cancelled_child_are_removed(tmp_path: Path) -> None:
    """Also where it is killed, as on Windows, before it can remove them."""
    body = """
import signal, time
from pathlib import Path
from CTLungScreeningLib.child_process import temporary_folder
if sys.platform != "win32": signal.signal(signal.SIGTERM, signal.SIG_IGN)
folder = temporary_folder("scan-")
Path(folder.name, "scan.nii.gz").write_bytes(b"CT")
emit(folder=folder.name)
time.sleep(600)
"""
    with ChildProcess(script(tmp_path, body)) as child:
        while not (events := child.poll(0.1)):
            assert child.running, child.log.read_text()
        folder = Path(events[0]["folder"])
        assert folder.name.startswith("scan-") and folder.is_dir()
    assert not folder.parent.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.usefixtures("heeding_hangup")
def test_a_signal_ends_the_program_that_is_waited_for(tmp_path: Path, name: str) -> None:
    waits = """
from CTLungScreeningLib.child_process import run_command, temporary_folder
with temporary_folder("scan-") as folder:
    print(folder, flush=True)
    run_command([sys.executable, "-c", "import os, sys, time;"
        "open(sys.argv[1] + '/pid', 'w').write(f'{os.getpid()}\\\\n'); time.sleep(600)", folder])
"""
    with subprocess.Popen(
        script(tmp_path, waits), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        pid = Path(process.stdout.readline().strip(), "pid")
        while not (pid.exists() and pid.read_text()):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        program = int(pid.read_text())
        for _ in range(2):  # as a shell does whose terminal is closed
            process.send_signal(getattr(signal, name))
            time.sleep(0.05)
        process.communicate()
    assert wait_until_gone([program]) == []
    assert not pid.parent.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_an_ignored_signal_stays_ignored_as_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with unwinding_at_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
