"""Random views of a training batch, made to hide what must not be learned.

Equipment and view leave marks in this collection: proportions, borders, burned-in words, grey
scale. Each view therefore gets its own zoom, proportions, crop, gamma and shading, loses random
rectangles (often at the border, where the words are) and may be mirrored. Mirroring is right for
this label, which names no side; a model that reports laterality must not use it.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """How far a view may stray.

    The defaults are mild. Three to four times as much was tried first and cost about 0.08 of AUC
    within AP in cross-validation (docs/models.md): it blurs what the label hangs on.

    Attributes:
        rotation_deg: largest rotation.
        zoom: largest change of the logarithm of scale.
        proportions: largest change of the logarithm of height over width.
        shear: largest shear.
        shift: largest shift as a share of the side.
        crop: most that is cut from one edge, as a share of the side.
        gamma: standard deviation of the logarithm of gamma.
        shading: standard deviation of the logarithm of a smooth 4 x 4 brightness field.
        noise: largest standard deviation of added noise, grey scale 0..1.
        blur_chance: chance of halving the resolution.
        erase: how many rectangles may be erased, the last of them at the border.
        erase_chance: chance of each.
        erase_side: largest side of an erased rectangle, as a share of the image's.
    """

    rotation_deg: float = 3.5
    zoom: float = 0.05
    proportions: float = 0.04
    shear: float = 0.018
    shift: float = 0.024
    crop: float = 0.04
    gamma: float = 0.075
    shading: float = 0.035
    noise: float = 0.009
    blur_chance: float = 0.09
    erase: int = 3
    erase_chance: float = 0.15
    erase_side: float = 0.22

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def views(
    canvas: Tensor, extent: Tensor, size: int, strength: Strength, generator: torch.Generator
) -> Tensor:
    """Return one random view of each image, normalised as the pixel pipeline does.

    Args:
        canvas: (n, s, s) uint8, images centred on a square.
        extent: (n, 2) height and width of each image on its canvas.
        size: side of the views in pixels.
        strength: how far they stray.
        generator: every random draw comes from it.

    Returns:
        (n, 1, size, size) float32: zero mean and unit deviation inside the image, 0 outside.
    """
    grid = functional.affine_grid(
        _transforms(len(canvas), strength, generator), [len(canvas), 1, size, size], False
    )
    inside = _inside(grid, extent, canvas.shape[-1])
    image = canvas[:, None].float() / 255
    image = functional.grid_sample(image, grid, "bilinear", "border", align_corners=False)
    inside = inside & _crop(len(canvas), size, strength, generator)
    image = _grey_scale(image, strength, generator)
    for number in range(strength.erase):
        image = _erase(image, strength, generator, at_border=number == strength.erase - 1)
    return _normalise(image, inside.float())


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _transforms(n: int, strength: Strength, generator: torch.Generator) -> Tensor:
    angle = _uniform(n, -1, 1, generator) * strength.rotation_deg * math.pi / 180
    scale = torch.exp(_uniform(n, -strength.zoom, strength.zoom, generator))
    tall = torch.exp(_uniform(n, -strength.proportions, strength.proportions, generator)).sqrt()
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rotation = torch.stack([cos, -sin, sin, cos], 1).view(n, 2, 2)
    stretch = torch.zeros(n, 2, 2)
    stretch[:, 0, 0], stretch[:, 1, 1] = mirror * tall, 1 / tall
    stretch[:, 0, 1] = _uniform(n, -strength.shear, strength.shear, generator)
    shift = (torch.rand(n, 2, generator=generator) * 2 - 1) * strength.shift
    return torch.cat([rotation @ stretch * scale[:, None, None], shift[:, :, None]], 2)


def _inside(grid: Tensor, extent: Tensor, side: int) -> Tensor:
    half = (extent.float() / side)[:, None, None, :]
    return ((grid[..., 1].abs() < half[..., 0]) & (grid[..., 0].abs() < half[..., 1]))[:, None]


def _crop(n: int, size: int, strength: Strength, generator: torch.Generator) -> Tensor:
    edge = torch.rand(n, 4, generator=generator) * strength.crop
    edge = (edge * (torch.rand(n, 4, generator=generator) < 0.6))[:, :, None, None, None]
    y, x = _axes(size)
    return (y > edge[:, 0]) & (y < 1 - edge[:, 1]) & (x > edge[:, 2]) & (x < 1 - edge[:, 3])


def _axes(size: int) -> tuple[Tensor, Tensor]:
    axis = torch.arange(size) / size
    return axis[None, None, :, None], axis[None, None, None, :]


def _grey_scale(image: Tensor, strength: Strength, generator: torch.Generator) -> Tensor:
    n, size = len(image), image.shape[-1]
    gamma = torch.exp(torch.randn(n, generator=generator).clamp(-2, 2) * strength.gamma)
    image = image.clamp(1e-4, 1) ** gamma[:, None, None, None]
    coarse = torch.randn(n, 1, 4, 4, generator=generator) * strength.shading
    image = image * torch.exp(functional.interpolate(coarse, size=size, mode="bicubic"))
    blurred = torch.rand(n, generator=generator) < strength.blur_chance
    if bool(blurred.any()):
        small = functional.avg_pool2d(image[blurred], 2)
        image[blurred] = functional.interpolate(small, size=size, mode="bilinear")
    level = _uniform(n, 0, strength.noise, generator)[:, None, None, None]
    return image + torch.randn(n, 1, size, size, generator=generator) * level


def _erase(
    image: Tensor, strength: Strength, generator: torch.Generator, *, at_border: bool
) -> Tensor:
    n = len(image)
    shape = (n, 1, 1, 1)
    chosen = (torch.rand(n, generator=generator) < strength.erase_chance).view(shape)
    half_y = _uniform(n, 0.015, strength.erase_side / 2, generator).view(shape)
    half_x = _uniform(n, 0.015, strength.erase_side / 2, generator).view(shape)
    centre_y, centre_x = torch.rand(n, generator=generator), torch.rand(n, generator=generator)
    if at_border:
        vertical = torch.rand(n, generator=generator) < 0.5
        centre_y = torch.where(vertical, (centre_y < 0.5) * 0.9 + 0.05, centre_y)
        centre_x = torch.where(vertical, centre_x, (centre_x < 0.5) * 0.9 + 0.05)
    grey = torch.rand(n, generator=generator).view(shape)
    y, x = _axes(image.shape[-1])
    box = ((y - centre_y.view(shape)).abs() < half_y) & ((x - centre_x.view(shape)).abs() < half_x)
    return torch.where(box & chosen, grey, image)


def _normalise(image: Tensor, inside: Tensor) -> Tensor:
    axes = (1, 2, 3)
    count = inside.sum(axes, keepdim=True).clamp(min=1)
    mean = (image * inside).sum(axes, keepdim=True) / count
    variance = ((image - mean) ** 2 * inside).sum(axes, keepdim=True) / count
    return (image - mean) / variance.sqrt().clamp(min=1e-3) * inside
