"""What a round's vector looks like and what one patient can change in it: all a manifest needs."""

from dataclasses import dataclass

from bedside_core.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The arithmetic of a task, as its settings imply it.

    Attributes:
        segments: (name, words) in the order of the vector.
        scale: integer units of one.
        sensitivity2: squared L2 norm one patient can bring, exact.
        largest: most one patient brings to one word.
    """

    segments: tuple[tuple[str, int], ...]
    scale: int
    sensitivity2: int
    largest: int

    def __post_init__(self) -> None:
        if not self.segments or min(words for _, words in self.segments) < 1:
            raise InvalidInputError("a vector has segments, each of at least one word")

    @property
    def length(self) -> int:
        """Words of the vector."""
        return sum(words for _, words in self.segments)
