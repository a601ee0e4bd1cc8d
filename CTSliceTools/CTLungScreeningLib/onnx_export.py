"""Write a Keras network as an ONNX file, which runs without Keras.

The network in the file takes its images channels first, as engines for inference work fastest, and
batches and, where the Keras network does, images of any size.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from CTLungScreeningLib.engine import onnx_runtime
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.keras_loader import keras

onnxruntime = onnx_runtime()

OPSET = 17
"""Version of the operators: ONNX Runtime has read it since 1.12 (2022)."""

AGREEMENT = 1e-4
"""Outputs of the two networks may differ by so much, see `largest_differences`."""

INPUT = "images"
"""Name of the input in an ONNX file."""

ANY_SIZE = 64
"""Rows and columns of the images on which a network that takes any size is checked."""

LARGE = 256
"""Constants with as many values are stored in 16 bits."""

_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softmax": "Softmax"}


def to_onnx(model: keras.Model) -> bytes:
    """Write a Keras network as the bytes of an ONNX file, batch normalization folded away.

    Weights take 16 bits each where the results stay the same, see `AGREEMENT`; the network computes
    with 32.

    Args:
        model: of layers one after another or with branches, one input (batch, …, channels) and
            one output; it is not changed.

    Returns:
        An ONNX model whose input is (batch, channels, …), and so is its output if it is an image.

    Raises:
        InputError: if the network holds a layer that cannot be written, or what was written gives
            other results, see `AGREEMENT`.
    """
    graph = _Graph()
    output = graph.add_model(model, INPUT)
    written = _optimized(graph.to_onnx(model, output))
    optimized = _optimized(_convolved_before_doubling(written))
    whole, halved = (one.SerializeToString() for one in (optimized, _halved(optimized)))
    difference, of_halved = largest_differences(model, whole, halved)
    if not difference <= AGREEMENT:
        raise InputError(
            f"As ONNX, {model.name} gives results that differ by {difference:.2g}: the network "
            "runs with Keras only."
        )
    return halved if of_halved <= AGREEMENT else whole


def largest_differences(model: keras.Model, *written: bytes) -> list[float]:
    """Return the largest difference of each ONNX file's outputs from those of a network.

    All see the same two random images; it is relative to the largest output where that exceeds 1.
    """
    shape = [length or ANY_SIZE for length in model.input_shape[1:]]
    images = np.random.default_rng(0).uniform(-1, 1, (2, *shape)).astype(np.float32)
    with keras.device("cpu:0"):  # GPUs round to 10 bits where they may (TF32)
        outputs = keras.Model(model.inputs[0], model.outputs[0])(images, training=False)
    expected = np.moveaxis(keras.ops.convert_to_numpy(outputs).astype(np.float32), -1, 1)
    scale = max(1.0, np.abs(expected).max())
    batch = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    differences = []
    for one in written:
        session = onnxruntime.InferenceSession(one, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: batch})
        differences.append(float(np.abs(found - expected).max() / scale))
    return differences


def _optimized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute beforehand what can be, in operators that every engine knows."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of constants that are no longer used
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(file)
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        optimized = onnx.load(file)
    used = [opset for opset in optimized.opset_import if not opset.domain]
    del optimized.opset_import[:]  # it names others that it does not use
    optimized.opset_import.extend(used)
    return optimized


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store large constants in 16 bits, to be cast to 32 when the file is opened."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.initializer[:], result.graph.node[:]
    for constant in model.graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.dtype != np.float32 or values.size < LARGE:
            result.graph.initializer.append(constant)
            continue
        short = f"{constant.name}_16"
        result.graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), short))
        cast = helper.make_node("Cast", [short], [constant.name], to=onnx.TensorProto.FLOAT)
        result.graph.node.append(cast)
    result.graph.node.extend(model.graph.node)
    return result


def _convolved_before_doubling(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute convolutions of images doubled in size from the images before they are doubled.

    A convolution by 3 × 3 after a doubling to the nearest pixel is a transposed convolution by
    4 × 4 in steps of 2, which takes 4 instead of 9 multiplications for each pixel. Of images
    joined by their channels, as in a U-Net, each is convolved by itself and the results are added.
    """
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    values = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    channels = {
        one.name: one.type.tensor_type.shape.dim[1].dim_value
        for one in (*graph.input, *graph.value_info)
    }
    source = {node.output[0]: node for node in graph.node}

    def before_doubling(name: str) -> str | None:
        node = source.get(name)
        if node is None or node.op_type != "Resize" or _attributes(node)["mode"] != b"nearest":
            return None
        return node.input[0] if values[node.input[2]].tolist() == [1, 1, 2, 2] else None

    nodes: list[onnx.NodeProto] = []  # the last first, so that what nothing uses falls away
    used = {one.name for one in graph.output}
    for node in reversed(graph.node):
        if not used.intersection(node.output):
            continue
        joined = source.get(node.input[0])
        parts = node.input[:1] if joined is None or joined.op_type != "Concat" else joined.input
        if not _is_plain_3x3(node) or not any(map(before_doubling, parts)):
            nodes.append(node)
            used.update(node.input)
            continue
        (result,), (_, weights, *bias) = node.output, node.input
        ends = np.cumsum([channels[part] for part in parts])[:-1]
        kernels = np.split(values[weights], ends, axis=1)
        names = [f"{result}_{number}" for number in range(len(parts))]
        nodes.append(helper.make_node("Sum", names, [result]))
        for name, part, kernel in zip(names, parts, kernels, strict=True):
            low = before_doubling(part)
            kernel_name = f"{name}_weights"
            array = kernel.copy() if low is None else _of_doubled(kernel)
            graph.initializer.append(onnx.numpy_helper.from_array(array, kernel_name))
            nodes.append(
                helper.make_node(
                    "Conv" if low is None else "ConvTranspose",
                    [low or part, kernel_name, *bias],
                    [name],
                    strides=[1, 1] if low is None else [2, 2],
                    pads=[1, 1, 1, 1],
                )
            )
            used.add(low or part)
            bias = []  # added once
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    return model


def _of_doubled(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights (in, out, 4, 4) before doubling that do what (out, in, 3, 3) do after it."""
    turned = kernel[:, :, ::-1, ::-1].swapaxes(0, 1)
    wide = np.pad(turned, [(0, 0), (0, 0), (1, 1), (1, 1)])
    return np.add.reduce([wide[:, :, y : y + 4, x : x + 4] for y in (0, 1) for x in (0, 1)])


def _is_plain_3x3(node: onnx.NodeProto) -> bool:
    if node.op_type != "Conv":
        return False
    attributes = _attributes(node)
    plain = {
        "kernel_shape": [3, 3],
        "strides": [1, 1],
        "dilations": [1, 1],
        "group": 1,
        "auto_pad": b"SAME_UPPER",
    }
    return all(attributes.get(name) == value for name, value in plain.items())


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


class _Graph:
    """Nodes and constants of an ONNX graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._tensors: list[Any] = []
        self._names: dict[int, str] = {}
        self.rank = 0

    def add_model(self, model: keras.Model, name: str) -> str:
        """Add all layers of a network on top of a named tensor; returns the output's name."""
        model = keras.Model(model.inputs[0], model.outputs[0])  # one way for `Sequential` too
        start = keras.Input(batch_shape=model.inputs[0].shape)
        self._keep(start, name)
        copy = keras.models.clone_model(
            model,
            input_tensors=start,
            clone_function=lambda layer: layer,
            call_function=self._call,
        )
        return self._names[id(copy.outputs[0])]

    def to_onnx(self, model: keras.Model, output: str) -> onnx.ModelProto:
        """Finish the graph."""
        described = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, _dimensions(shape))
            for name, shape in ((INPUT, model.input_shape), (output, model.output_shape))
        ]
        graph = helper.make_graph(
            self.nodes, model.name, described[:1], described[1:], self.constants
        )
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)

    def _call(self, layer: Any, *inputs: Any, **_keywords: Any) -> Any:
        output = layer(*inputs)
        tensors = inputs[0] if isinstance(inputs[0], (list, tuple)) else [inputs[0]]
        names = [self._names[id(one)] for one in tensors]
        if isinstance(layer, keras.Model):
            return self._keep(output, self.add_model(layer, names[0]))
        kind = next((k for k in type(layer).__mro__ if k in _LAYERS), None)
        if kind is None:
            raise InputError(
                f"The layer {layer.name} ({type(layer).__name__}) cannot be written as ONNX: the "
                "network runs with Keras only."
            )
        self.rank = len(tensors[0].shape)
        return self._keep(output, _LAYERS[kind](self, layer, names))

    def _keep(self, tensor: Any, name: str) -> Any:
        self._tensors.append(tensor)  # alive, so that its id stays its own
        self._names[id(tensor)] = name
        return tensor

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node with one output, whose name is returned."""
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, values: Any, kind: Any = np.float32) -> str:
        """Add a constant; returns its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def activated(self, layer: Any, tensor: str) -> str:
        """Add the activation of a layer."""
        name = keras.activations.serialize(layer.activation)
        if name == "linear":
            return tensor
        if name not in _ACTIVATIONS:
            raise InputError(
                f"The activation {name} of the layer {layer.name} cannot be written as ONNX: the "
                "network runs with Keras only."
            )
        extra = {"axis": 1} if name == "softmax" else {}
        return self.node(_ACTIVATIONS[name], [tensor], **extra)


def _dimensions(shape: tuple[int | None, ...]) -> list[int | str]:
    """Name the lengths that are free; channels come first."""
    batch, *lengths = (length or f"n{axis}" for axis, length in enumerate(shape))
    return ["batch", *lengths[-1:], *lengths[:-1]] if batch == "n0" else [batch, *lengths]


def _windows(layer: Any, size: Any) -> dict[str, Any]:
    pads = {"same": "SAME_UPPER", "valid": "VALID"}
    return {
        "kernel_shape": list(size),
        "strides": list(layer.strides),
        "auto_pad": pads[layer.padding],
    }


def _convolution(graph: _Graph, layer: Any, inputs: list[str]) -> str:
    kernel = np.asarray(layer.kernel)
    weights = [graph.constant(np.moveaxis(kernel, (-1, -2), (0, 1)))]
    if layer.use_bias:
        weights.append(graph.constant(layer.bias))
    found = graph.node(
        "Conv",
        [*inputs, *weights],
        **_windows(layer, layer.kernel_size),
        dilations=list(layer.dilation_rate),
        group=layer.groups,
    )
    return graph.activated(layer, found)


def _separable(graph: _Graph, layer: Any, inputs: list[str]) -> str:
    first = np.moveaxis(np.asarray(layer.depthwise_kernel), (-2, -1), (0, 1))
    first = first.reshape(-1, 1, *first.shape[2:])
    second = np.moveaxis(np.asarray(layer.pointwise_kernel), (-1, -2), (0, 1))
    window = _windows(layer, layer.kernel_size)
    groups = len(first) // layer.depth_multiplier
    x = graph.node("Conv", [*inputs, graph.constant(first)], **window, group=groups)
    bias = [graph.constant(layer.bias)] if layer.use_bias else []
    return graph.activated(layer, graph.node("Conv", [x, graph.constant(second), *bias]))


def _dense(graph: _Graph, layer: Any, inputs: list[str]) -> str:
    weights = [graph.constant(layer.kernel)]
    if layer.use_bias:
        weights.append(graph.constant(layer.bias))
    return graph.activated(layer, graph.node("Gemm", [*inputs, *weights]))


def _normalization(graph: _Graph, layer: Any, inputs: list[str]) -> str:
    mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
    scale = layer.gamma if layer.scale else np.ones_like(mean)
    shift = layer.beta if layer.center else np.zeros_like(mean)
    values = [graph.constant(one) for one in (scale, shift, mean, variance)]
    return graph.node("BatchNormalization", [*inputs, *values], epsilon=float(layer.epsilon))


def _rescaling(graph: _Graph, layer: Any, inputs: list[str]) -> str:
    ones = [1] * (graph.rank - 2)
    scale, offset = (np.reshape(one, (-1, *ones)) for one in (layer.scale, layer.offset))
    scaled = graph.node("Mul", [*inputs, graph.constant(scale)])
    return graph.node("Add", [scaled, graph.constant(offset)])


def _pooling(operator: str) -> "_Write":
    return lambda graph, layer, inputs: graph.node(
        operator, inputs, **_windows(layer, layer.pool_size)
    )


def _global_pooling(operator: str) -> "_Write":
    def write(graph: _Graph, layer: Any, inputs: list[str]) -> str:
        pooled = graph.node(operator, inputs)
        return pooled if layer.keepdims else graph.node("Flatten", [pooled])

    return write


def _upsampling(graph: _Graph, layer: Any, inputs: list[str]) -> str:
    scales = graph.constant([1, 1, *np.broadcast_to(layer.size, graph.rank - 2)])
    modes = {"nearest": ("nearest", "asymmetric"), "bilinear": ("linear", "half_pixel")}
    mode, places = modes[getattr(layer, "interpolation", "nearest")]
    return graph.node(
        "Resize",
        [*inputs, "", scales],
        mode=mode,
        coordinate_transformation_mode=places,
        nearest_mode="floor",
    )


def _cropping(graph: _Graph, layer: Any, inputs: list[str]) -> str:
    first, last = np.transpose(layer.cropping)
    stop = [-int(n) if n else np.iinfo(np.int64).max for n in last]
    axes = np.arange(2, 2 + len(first))
    places = [graph.constant(one, np.int64) for one in (first, stop, axes)]
    return graph.node("Slice", [*inputs, *places])


def _zero_padding(graph: _Graph, layer: Any, inputs: list[str]) -> str:
    first, last = np.transpose(layer.padding)
    return graph.node("Pad", [*inputs, graph.constant([0, 0, *first, 0, 0, *last], np.int64)])


def _flatten(graph: _Graph, layer: Any, inputs: list[str]) -> str:
    last = graph.rank - 1
    if last > 1:  # the weights that follow expect channels last
        inputs = [graph.node("Transpose", inputs, perm=[0, *range(2, last + 1), 1])]
    return graph.node("Flatten", inputs)


def _activation(graph: _Graph, layer: Any, inputs: list[str]) -> str:
    return graph.activated(layer, inputs[0])


def _relu(graph: _Graph, layer: Any, inputs: list[str]) -> str:
    if layer.negative_slope or layer.threshold or layer.max_value is not None:
        raise InputError(
            f"The layer {layer.name} is not a plain ReLU: the network runs with Keras only."
        )
    return graph.node("Relu", inputs)


def _same(_graph: _Graph, _layer: Any, inputs: list[str]) -> str:
    return inputs[0]


_Write = Callable[[_Graph, Any, list[str]], str]

_L = keras.layers

_LAYERS: dict[type, _Write] = {
    _L.Conv2D: _convolution,
    _L.Conv3D: _convolution,
    _L.SeparableConv2D: _separable,
    _L.Dense: _dense,
    _L.BatchNormalization: _normalization,
    _L.Rescaling: _rescaling,
    _L.MaxPooling2D: _pooling("MaxPool"),
    _L.MaxPooling3D: _pooling("MaxPool"),
    _L.AveragePooling2D: _pooling("AveragePool"),
    _L.AveragePooling3D: _pooling("AveragePool"),
    _L.GlobalAveragePooling2D: _global_pooling("GlobalAveragePool"),
    _L.GlobalAveragePooling3D: _global_pooling("GlobalAveragePool"),
    _L.GlobalMaxPooling2D: _global_pooling("GlobalMaxPool"),
    _L.GlobalMaxPooling3D: _global_pooling("GlobalMaxPool"),
    _L.UpSampling2D: _upsampling,
    _L.UpSampling3D: _upsampling,
    _L.Cropping2D: _cropping,
    _L.Cropping3D: _cropping,
    _L.ZeroPadding2D: _zero_padding,
    _L.ZeroPadding3D: _zero_padding,
    _L.Concatenate: lambda graph, _layer, inputs: graph.node("Concat", inputs, axis=1),
    _L.Add: lambda graph, _layer, inputs: graph.node("Sum", inputs),
    _L.Flatten: _flatten,
    _L.Activation: _activation,
    _L.ReLU: _relu,
    _L.Dropout: _same,
}
