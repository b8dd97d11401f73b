"""Everything that decides what `bedside-models train` makes: one value, kept in the checkpoint."""

from dataclasses import asdict, dataclass, field
from typing import Any

from bedside_core.errors import InvalidInputError
from bedside_models.augment import Strength
from bedside_models.network import Architecture

DEFAULT_ARCHITECTURE = Architecture(stem=16, stages=((32,), (64,), (128,), (192,)), input_size=320)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the reference model is trained.

    Several teachers learn from the labels; one student of the same shape then learns to agree
    with their mean on the same random views. That keeps most of an ensemble's advantage at the
    price of one network (Hinton et al. 2015, arXiv:1503.02531; Beyer et al. 2022,
    arXiv:2106.05237, "consistent" views).

    Attributes:
        architecture: shape of student and teachers.
        seed: every random draw of the run follows from it.
        teachers: how many; 0 trains one network on the labels alone.
        teacher_size: side in pixels at which teachers train and answer.
        teacher_epochs, student_epochs: passes over the training images.
        patience: the student stops after this many epochs without a better validation figure.
        batch: images per step.
        learning_rate, weight_decay: AdamW with a one-cycle schedule; no decay on norms and biases.
        ema: decay of the averaged weights per step; the averaged ones are kept.
        mixup: Beta parameter of mixup; 0 switches it off.
        smoothing: label smoothing.
        rank: weight of the pairwise term inside strata, which rewards ordering a positive above
            a negative of the same view and equipment.
        other_weight: share left to images of uncommon sizes, nearly all of them positive.
        balance: exponent on the loss weights that take stratum and repeats out of the label; 1
            balances fully, 0 leaves the images as they come. Full balance cost AUC inside the
            strata too (fewer images count), hence a little of it; see docs/models.md.
        label_share: part of the student's loss that comes from the labels.
        canvas: side of the cached images that augmentation starts from.
        strength: augmentation.
    """

    architecture: Architecture = DEFAULT_ARCHITECTURE
    seed: int = 20261124
    teachers: int = 4
    teacher_size: int = 256
    teacher_epochs: int = 24
    student_epochs: int = 30
    patience: int = 25
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    ema: float = 0.99
    mixup: float = 0.2
    smoothing: float = 0.05
    rank: float = 0.0
    other_weight: float = 0.5
    balance: float = 0.2
    label_share: float = 0.3
    canvas: int = 384
    strength: Strength = field(default_factory=Strength)

    def __post_init__(self) -> None:
        if self.teachers < 0 or min(self.teacher_epochs, self.student_epochs, self.batch) < 1:
            raise InvalidInputError("epochs and batch are at least 1, teachers at least 0")
        if not 0 <= self.label_share <= 1 or not 0 <= self.ema < 1:
            raise InvalidInputError("label share lies in 0..1, the averaging decay below 1")

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)
