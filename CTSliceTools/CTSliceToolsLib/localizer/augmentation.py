"""Augmentation of slice images during training, as Keras layers.

All layers take and give batches (n, rows, columns, 1) of 0…255, change each image in its own way,
and do nothing unless they are called with `training=True`.
"""

from typing import Any

import numpy as np

from CTLungScreeningLib.keras_loader import keras

ops = keras.ops


class _RandomLayer(keras.layers.Layer):
    """A layer that changes images in training only, reproducibly from its seed."""

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        """Change the images in training, else return them as they are."""
        return self.change(images) if training else images

    def change(self, images: Any) -> Any:
        """Change each image at random; implemented by each kind of change."""
        raise NotImplementedError

    def uniform(self, images: Any, low: float, high: float, rank: int = 1) -> Any:
        """One random number an image, of as many axes as `rank`."""
        shape = (ops.shape(images)[0],) + (1,) * (rank - 1)
        return keras.random.uniform(shape, low, high, seed=self.seed_generator)


class RandomAffine(_RandomLayer):
    """Rotation, shifts, shear, zoom and flip of each image, in a single interpolation.

    Args:
        rotation: largest angle in degrees.
        shift: largest shift as a fraction of the image's side.
        shear: largest shear.
        zoom: largest relative change of scale, of both axes alike and half as much of one alone.
        flip: whether half of the images are mirrored, left for right.
        seed: of the random numbers.
    """

    def __init__(
        self,
        rotation: float = 12,
        shift: float = 0.12,
        shear: float = 0.1,
        zoom: float = 0.2,
        flip: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        self.rotation, self.shift, self.shear = rotation, shift, shear
        self.zoom, self.flip = zoom, flip
        # TensorFlow's compiler XLA, which Keras uses on GPUs, cannot resample.
        self.supports_jit = keras.config.backend() != "tensorflow"

    def change(self, images: Any) -> Any:
        """Move each image by an affine map of its own about its centre."""
        angle = self.uniform(images, -1, 1) * np.deg2rad(self.rotation)
        shear = self.uniform(images, -self.shear, self.shear)
        both = self._scale(images, self.zoom)
        scale_x = both * self._scale(images, self.zoom / 2)
        if self.flip:
            scale_x = scale_x * ops.sign(self.uniform(images, -1, 1))
        cos, sin = ops.cos(angle), ops.sin(angle)
        xx, xy = scale_x * cos, both * (shear * cos - sin)
        yx, yy = scale_x * sin, both * (shear * sin + cos)
        rows, columns = images.shape[1:3]
        x, y = (columns - 1) / 2, (rows - 1) / 2
        to_x = x - xx * x - xy * y + self.uniform(images, -self.shift, self.shift) * columns
        to_y = y - yx * x - yy * y + self.uniform(images, -self.shift, self.shift) * rows
        none = ops.zeros_like(xx)
        matrix = ops.stack([xx, xy, to_x, yx, yy, to_y, none, none], axis=1)
        return ops.image.affine_transform(images, matrix, data_format="channels_last")

    def _scale(self, images: Any, change: float) -> Any:
        limit = float(np.log1p(change))
        return ops.exp(self.uniform(images, -limit, limit))


class RandomIntensity(_RandomLayer):
    """Contrast, brightness and noise of each image.

    The images of a batch share one field of noise, each with an amplitude of its own: random
    numbers for every pixel would take longer than all the rest.

    Args:
        contrast: largest relative change of contrast.
        brightness: largest change of brightness, of 255.
        noise: largest standard deviation of the noise, of 255.
        seed: of the random numbers.
    """

    def __init__(
        self,
        contrast: float = 0.2,
        brightness: float = 15,
        noise: float = 8,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        self.contrast, self.brightness, self.noise = contrast, brightness, noise

    def change(self, images: Any) -> Any:
        """Give each image a gain, an offset and noise of its own, clipped to 0…255."""
        gain = self.uniform(images, 1 - self.contrast, 1 + self.contrast, rank=4)
        offset = self.uniform(images, -self.brightness, self.brightness, rank=4)
        sd = self.uniform(images, -self.noise, self.noise, rank=4)
        noise = keras.random.normal((1, *images.shape[1:]), seed=self.seed_generator)
        return ops.clip(images * gain + (offset + sd * noise), 0, 255)


class RandomFieldOfView(_RandomLayer):
    """Black outside a circle, as reconstruction in a small field of view leaves it.

    Args:
        smallest: smallest radius as a fraction of the image's side; half of the images keep all.
        seed: of the random numbers.
    """

    def __init__(self, smallest: float = 0.35, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.smallest = smallest

    def change(self, images: Any) -> Any:
        """Blacken every second image, on average, outside a circle of its own."""
        rows, columns = images.shape[1:3]
        y, x = np.arange(rows, dtype=np.float32), np.arange(columns, dtype=np.float32)
        centre_x = columns * self.uniform(images, 0.45, 0.55, rank=4)
        centre_y = rows * self.uniform(images, 0.45, 0.55, rank=4)
        radius = columns * self.uniform(images, self.smallest, 0.7, rank=4)
        limit = ops.where(self.uniform(images, -1, 1, rank=4) < 0, rows * columns, radius) ** 2
        distance = (x[:, None] - centre_x) ** 2 + (y[:, None, None] - centre_y) ** 2
        return ops.where(distance <= limit, images, 0.0)
