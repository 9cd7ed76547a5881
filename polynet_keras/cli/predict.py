"""`polynet predict`: the classes of image files."""

from absl import flags

from polynet_keras.basics.names import shown
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.model_flags import check_model_flags, define_model_flags, run_folder_of

USAGE = "[--run_dir RUN | --weights NAME_OR_FILE] IMAGE..."


def define_flags(values: flags.FlagValues) -> None:
    define_model_flags(values, "use")
    Heading(values, "Output").integer("top", 3, "Classes to show for each image, the most probable first.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    check_model_flags(values)

    from polynet_keras.evaluation.predicting import predict, predict_published

    if values.weights is not None:
        model = values.weights
        predictions = predict_published(model, arguments, values.top)
    else:
        model = run_folder_of(values)
        predictions = predict(model, arguments, values.top)
    print(f"model: {model}")
    names = [shown(prediction.image) for prediction in predictions]
    width = max(map(len, names))
    for name, prediction in zip(names, predictions, strict=True):
        classes = "   ".join(f"{shown(label)} {probability:6.2%}" for label, probability in prediction.classes)
        print(f"{name:<{width}}   {classes}")
