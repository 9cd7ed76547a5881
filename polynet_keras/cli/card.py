"""`polynet card`: the card of a Keras model that has none."""

import os

from absl import flags

from polynet_keras.basics.names import number_of, shell_quoted, shown
from polynet_keras.cli.model_flags import define_card_flags, described

USAGE = "MODEL.keras --classes FILE --preprocessing NAME [flags]"
EXAMPLES = ("polynet card net.keras --classes names.txt --preprocessing imagenet",)


def define_flags(values: flags.FlagValues) -> None:
    define_card_flags(values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise ValueError(f"expected one MODEL, a .keras file; got {len(arguments)}")

    from polynet_keras.pretrained.model_card import ModelCard, card_file
    from polynet_keras.pretrained.model_source import Kind, find_model

    source, about = find_model(arguments[0]), described(values)
    if source.kind is not Kind.MODEL:
        raise ValueError(f"model='{shown(source.name)}' is {source.kind}; a card is written beside a .keras file")
    path = card_file(source.path)
    if path.exists():
        raise ValueError(f"{shown(path)} already exists; move it away or remove it")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{shown(path)}: its folder cannot be written to; the card has to be beside the model")
    about.check_complete(source.name)

    from polynet_keras.evaluation.loading import load_described

    model = load_described(source, about)
    ModelCard(model.class_names, model.preprocessing, 0, 0, model.structure).save(source.path)
    classes = number_of(len(model.class_names), "class", "classes")
    print(f"card:        {shown(path)}, of {classes} and {model.preprocessing.image_size} px")
    print(f"predict:     {shell_quoted(['polynet', 'predict', f'--model={source.name}'])} IMAGE")
