"""Run the network in an ONNX file on the best device of this computer.

ONNX Runtime runs it; on a processor or an Intel GPU OpenVINO does, where it is installed as well:
it is faster there.
"""

import importlib.util
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.options import choice_of

Images = NDArray[np.float32]

_Run = Callable[[Images], Images]

GPU_PROVIDERS = {
    "CUDA": ("CUDAExecutionProvider", {"use_tf32": "0"}),
    "DirectML": ("DmlExecutionProvider", {}),
    "CoreML": ("CoreMLExecutionProvider", {}),
}
"""ONNX Runtime's ways to a GPU, the best first. TF32, as any half precision, moves the outlines of
small nodules; CoreML may take half precision, so it is used where it is asked for only."""

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "openvino")
"""Any of them may run networks; ONNX Runtime has another name for each kind of card."""

AGREEMENT = 0.01
"""A GPU whose results differ from the processor's by more is not used."""

THREADS = "OMP_NUM_THREADS"
"""Environment variable that limits the threads; the workers of a batch share the cores with it."""

LEAST_RANK = 3
"""Dimensions of the input of a network: batch, channel and one axis at least."""

_PROBE = 64
"""Rows and columns of the image that a GPU is tried on, if the network takes any size."""


def onnx_runtime() -> Any:
    """Import ONNX Runtime without its telemetry.

    Official builds otherwise send Microsoft events about the computer and the process: from 1.29 on
    those for Linux and macOS, which read the variable, and those for Windows.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # noqa: PLC0415 - keeps the command line quick

    onnxruntime.disable_telemetry_events()
    return onnxruntime


class Device(StrEnum):
    """Where networks run."""

    CPU = "cpu"
    GPU = "gpu"


class Network(Protocol):
    """A network that is ready to run: an `OnnxNetwork` or a `keras.Model`."""

    name: str
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]

    def predict_on_batch(self, x: Images) -> Images:
        """Return the outputs for a batch of inputs, both with channels last."""
        ...


def takes(input_shape: Sequence[int | None], shape: Sequence[int]) -> bool:
    """Whether a network with this input shape, None for any length, takes arrays of a shape."""
    return len(input_shape) == len(shape) and all(
        own in (None, length) for own, length in zip(input_shape, shape, strict=True)
    )


def device_of(network: Network) -> str:
    """Return the device of a network."""
    return network.device if isinstance(network, OnnxNetwork) else "Keras"


def notes_of(network: Network | None) -> list[str]:
    """Return a sentence for each GPU that was found and that a network does not use."""
    return network.notes if isinstance(network, OnnxNetwork) else []


def predict_each(network: Network, batches: Iterable[Images]) -> Iterator[Images]:
    """Return the outputs for each of many batches, in order.

    Where a network runs on the processor, each core works on a batch of its own: that takes a
    quarter less time than sharing each batch among the cores, and as many batches in memory.

    Args:
        network: opened for small batches, see `OnnxNetwork`.
        batches: the inputs, channels last; a few are taken ahead of the outputs.
    """
    if not isinstance(network, OnnxNetwork):
        yield from map(network.predict_on_batch, batches)
        return
    running: deque[Future[Images]] = deque()
    pool = ThreadPoolExecutor(_threads())
    try:
        for batch in batches:
            running.append(pool.submit(network.predict_on_batch, batch))
            while len(running) > network.at_once:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class OnnxNetwork:
    """The network in an ONNX file, which has channels first; here they are last, as in Keras.

    Attributes:
        name: of the file, without its suffix.
        input_shape, output_shape: (batch, …, channels); None stands for any length.
        device: what it runs on, such as `CUDA` or `CPU (OpenVINO)`.
        notes: a sentence for each GPU that was found and is not used.
    """

    def __init__(
        self, file: Path, device: Device | None = None, *, small_batches: bool = False
    ) -> None:
        """Load a network.

        Args:
            file: the `.onnx` file, with one input of 32-bit floats.
            device: where it runs; None for a GPU if there is one.
            small_batches: give each core batches of its own (`predict_each`), not all cores one.

        Raises:
            InputError: if the file cannot be run, or there is no such device.
        """
        device = device and choice_of(Device, device, "device")
        onnxruntime = onnx_runtime()

        try:
            threads = 1 if small_batches else _threads()
            options = _options(threads)
            session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
        except Exception as error:  # what it raises has no class in common
            raise InputError(
                f"{file} cannot be read as an ONNX model: {first_line(error)}"
            ) from error
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if [one.type for one in inputs] != ["tensor(float)"] or len(inputs[0].shape) < LEAST_RANK:
            raise InputError(
                f"{file} must have one input: export it with a single float32 input, whose "
                "dimensions are batch, channel and the axes of the image."
            )
        self.name, self.notes = file.stem, list[str]()
        self.input_shape, self.output_shape = _shape(inputs[0].shape), _shape(outputs[0].shape)
        self._processor = _with_openvino(file, "CPU") or ("CPU", _run_of(session))
        self._small_batches = small_batches and self._processor[0] == "CPU"
        self.device, self._run = self._processor
        if device is not Device.CPU:
            self._use_gpu(file, asked=device is Device.GPU)
        if device is Device.GPU and self.device == self._processor[0] and not self.notes:
            self.notes.append("No GPU was found that runs networks: the processor ran them.")

    @property
    def at_once(self) -> int:
        """How many batches run side by side."""
        return _threads() if self._small_batches and self.device == "CPU" else 1

    def predict_on_batch(self, x: Images) -> Images:
        """Return the outputs for a batch of inputs; the processor takes over if the GPU fails."""
        batch = np.ascontiguousarray(np.moveaxis(x, -1, 1), np.float32)
        try:
            found = self._run(batch)
        except Exception as error:  # what engines raise has no class in common
            if self.device == self._processor[0]:
                raise
            self.notes.append(
                f"{self.device} failed, perhaps for lack of memory, and the processor took over: "
                f"{first_line(error)}"
            )
            self.device, self._run = self._processor
            found = self._run(batch)
        return np.moveaxis(found, 1, -1) if found.ndim > 1 else found

    def _use_gpu(self, file: Path, asked: bool) -> None:
        """Run on the first GPU that gives what the processor gives, if there is one."""
        shape = [length or _PROBE for length in self.input_shape[1:]]
        values = np.random.default_rng(0).uniform(-1, 1, (1, shape[-1], *shape[:-1]))
        probe = values.astype(np.float32)
        for name, load in _gpus(file, asked):
            try:
                run = load()
                wrong = np.abs(run(probe) - self._processor[1](probe)).max()
            except Exception as error:
                self.notes.append(f"{name} cannot run {file.name}: {first_line(error)}")
                continue
            if wrong <= AGREEMENT:
                self.device, self._run = name, run
                return
            self.notes.append(
                f"{name} is not used: its results differ from the processor's by {wrong:.2g}."
            )


def _gpus(file: Path, asked: bool) -> Iterator[tuple[str, Callable[[], _Run]]]:
    """Return the GPUs that are there, by name, each with what loads a network onto it."""
    onnxruntime = onnx_runtime()

    def load(provider: tuple[str, dict[str, str]]) -> _Run:
        session = onnxruntime.InferenceSession(file, _options(_threads()), [provider])
        if provider[0] not in session.get_providers():  # what is missing is only printed
            raise RuntimeError("a library that it needs is missing.")
        return _run_of(session)

    available = onnxruntime.get_available_providers()
    for name, provider in GPU_PROVIDERS.items():
        if provider[0] in available and (asked or name != "CoreML"):
            yield name, partial(load, provider)
    if found := _with_openvino(file, "GPU"):
        name, run = found
        yield name, lambda: run


def _with_openvino(file: Path, device: str) -> tuple[str, _Run] | None:
    """Load a network with OpenVINO; None if it is not installed or does not know the device."""
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino  # noqa: PLC0415 - slow to import

    core = openvino.Core()
    if device not in {name.split(".")[0] for name in core.available_devices}:
        return None
    # By itself it would take bfloat16 or float16, which move the outlines of small nodules.
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if device == "CPU":
        settings["INFERENCE_NUM_THREADS"] = str(_threads())
    compiled = core.compile_model(file, device, settings)
    request = compiled.create_infer_request()
    return f"{device} (OpenVINO)", lambda batch: request.infer([batch])[0].copy()


def _run_of(session: Any) -> _Run:
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def _options(threads: int) -> Any:
    onnxruntime = onnx_runtime()

    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False  # DirectML needs it so
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what matters is raised
    return options


def _threads() -> int:
    with_affinity = getattr(os, "sched_getaffinity", None)  # not on Windows and Macs
    cores = len(with_affinity(0)) if with_affinity else os.cpu_count() or 1
    limit = os.environ.get(THREADS, "")
    return min(cores, int(limit)) if limit.isdecimal() and int(limit) else cores


def _shape(dimensions: list[int | str | None]) -> tuple[int | None, ...]:
    """Put channels last and None where any length may be."""
    lengths = tuple(length if isinstance(length, int) else None for length in dimensions)
    return (*lengths[:1], *lengths[2:], *lengths[1:2])


def first_line(error: Exception) -> str:
    """Return the first line of what an engine says, as a sentence."""
    text = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{text or type(error).__name__}."
