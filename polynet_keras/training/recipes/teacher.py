"""The teacher of a run, found and checked before anything is loaded."""

from collections.abc import Sequence

from polynet_keras.basics.files import file_hash
from polynet_keras.basics.names import listed, shown
from polynet_keras.pretrained.description import card_of
from polynet_keras.pretrained.model_source import Kind, ModelSource, find_model
from polynet_keras.pretrained.registry import published

TEACHERS = (Kind.RUN, Kind.MODEL, Kind.PUBLISHED)


def find_teacher(teacher: str) -> ModelSource:
    """Finds the model that `Regularization.teacher` names.

    Raises:
        ValueError: there is no such model, it does not name its classes, or it is exported.
    """
    source = find_model(teacher, "teacher")
    if source.kind not in TEACHERS:
        raise ValueError(
            f"teacher='{shown(source.name)}' is {source.kind}; expected a run folder, a .keras file with a card, or a "
            "name of `polynet weights`"
        )
    card_of(source)  # raises if it cannot be read
    return source


def teacher_hash(source: ModelSource) -> str:
    """Returns the SHA-256 of a teacher's file; for a published teacher, the one in its record."""
    return published(source.name).digest if source.kind is Kind.PUBLISHED else file_hash(source.file)


def places_of_classes(teacher: str, known: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Returns the indices of a run's classes among those of its teacher, by their names.

    Args:
        teacher: name of the teacher.
        known: classes of the teacher.
        wanted: classes of the run.

    Raises:
        ValueError: the teacher lacks one of the classes, or has it more than once.
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
