"""`polynet predict`: the classes of image files."""

from absl import flags

from polynet_keras.basics.names import shown
from polynet_keras.training.runs.folder import latest_run_folder

USAGE = "[--run_dir RUN | --weights NAME_OR_FILE] IMAGE..."


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("run_dir", None, "Folder of the run to use. [the newest in runs/]", flag_values=values)
    which = "Checkpoint to use: a name of `polynet weights`, or a file of the released net."
    flags.DEFINE_string("weights", None, which, flag_values=values)
    flags.DEFINE_integer("top", 3, "How many classes to show for each image.", flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if values.run_dir is not None and values.weights is not None:
        raise ValueError("--run_dir and --weights name two models; name one")
    from polynet_keras.evaluation.predicting import predict, predict_published

    if values.weights is not None:
        model = values.weights
        predictions = predict_published(model, arguments, values.top)
    else:
        model = values.run_dir or latest_run_folder()
        predictions = predict(model, arguments, values.top)
    print(f"model: {model}")
    names = [shown(prediction.image) for prediction in predictions]
    width = max(map(len, names))
    for name, prediction in zip(names, predictions, strict=True):
        classes = "   ".join(f"{shown(label)} {probability:6.2%}" for label, probability in prediction.classes)
        print(f"{name:<{width}}   {classes}")
