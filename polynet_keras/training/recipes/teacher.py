"""The teacher of a run, found and checked before anything is loaded."""

from collections.abc import Sequence

from polynet_keras.basics.files import file_hash
from polynet_keras.basics.names import listed, shown
from polynet_keras.pretrained.description import card_of
from polynet_keras.pretrained.model_source import Kind, ModelSource, find_model
from polynet_keras.pretrained.registry import published

TEACHERS = (Kind.RUN, Kind.MODEL, Kind.PUBLISHED)


def find_teacher(teacher: str) -> ModelSource:
    """What `Regularization.teacher` names.

    Raises:
        ValueError: there is none, or it does not say its classes, or is exported.
    """
    source = find_model(teacher, "teacher")
    if source.kind not in TEACHERS:
        raise ValueError(
            f"teacher='{shown(source.name)}' is {source.kind}; expected a run folder, a .keras file with a card, or a "
            "name of `polynet weights`"
        )
    card_of(source)  # raises where it cannot be read
    return source


def teacher_hash(source: ModelSource) -> str:
    """The SHA-256 of a teacher's file; of a published one, what its record has."""
    return published(source.name).digest if source.kind is Kind.PUBLISHED else file_hash(source.file)


def places_of_classes(teacher: str, known: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where the classes of a run are among those of its teacher, by their names.

    Args:
        teacher: its name.
        known: its classes.
        wanted: those of the run.

    Raises:
        ValueError: it does not know one of them, or knows it more than once.
    """
    if tuple(known) == tuple(wanted):
        return list(range(len(wanted)))
    wrong = [name for name in wanted if known.count(name) != 1]
    if wrong:
        raise ValueError(
            f"teacher='{shown(teacher)}' does not tell these classes of the data: {listed(wrong, 3)}; it knows "
            f"{listed(known, 3)}"
        )
    return [known.index(name) for name in wanted]
