"""What is arithmetic, a table or a mistake is said at once: neither Keras nor TensorFlow is imported for it."""

import json
import subprocess
import sys

import pytest

from polynet_keras.cli.main import COMMANDS
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation.results import Result, append
from polynet_keras.pretrained.model_card import ModelCard
from polynet_keras.studies.study_folder import STUDY_FILE
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.folder import RECIPE_FILE

SUCCEED = [
    "--help",
    "train --help",
    "train --helpfull",
    "help train",
    "--version",
    "completion bash",
    "recipes",
    "recipes imagenet-g5",
    "results results.csv",
    "results results.csv --sort=top1",
    "summary",
    "summary --structure=polynet-g5",
    "weights",
    "weights fashion_mnist",
]

FAIL = {
    "doctor nope": "unexpected argument 'nope'; doctor takes none",
    "completion fish": "expected a shell, bash or zsh; got fish",
    "nope": "unknown command 'nope'",
    "train --epoch=3": "unknown flag --epoch of polynet train; did you mean --epochs?",
    "train --epochs=many": "--epochs=many must be a whole number",
    "train --epochs=-1": "--epochs=-1 must be an integer of at least 1",
    "train --width=0": "--width=0.0 must be a finite number > 0",
    "train --structure=resnet": "--structure='»resnet', column 1: unknown structure",
    "train --validation_share=1": "--validation_share=1.0 must be a finite number ≥ 0 and < 1",
    "train --patience=0": "--patience=0 must be an integer of at least 1",
    "train --patience=5": "--patience=5 needs images to choose the best epoch: use --validation_share=0.1",
    "train --patience=5 --validation_share=0": "--patience=5 needs images to choose the best epoch, but validation",
    "train --sampling=often": "--sampling='often' must be one of uniform, balanced",
    "train --class_weights=nope": "--class_weights='nope' is neither 'balanced' nor a file ending in .json or .csv",
    "train --class_weights=text.csv": "--class_weights='text.csv': its first line must be class,weight; expected JSON",
    "train --class_weights=balanced --sampling=balanced": "would make up for unequal classes twice; leave one out",
    "train --optimizer=adam": "--optimizer='adam' must be one of rmsprop, sgd, adamw, lamb",
    "train --layer_decay=0": "--layer_decay=0.0 must be a finite number > 0 and ≤ 1",
    "train --learning_rate_factors=stem": "--learning_rate_factors=stem must be PART=NUMBER, split by commas",
    "train --learning_rate_factors=stem=1,stem=2": "--learning_rate_factors=stem=1,stem=2 names stem twice",
    "train --learning_rate_factors=stag_a=0.1": "--learning_rate_factors='stag_a' must be one of stem, stage_a",
    "train --learning_rate_factors=stem=-1": "learning_rate_factors['stem']=-1.0 must be a finite number ≥ 0",
    "train --learning_rate_factors=stem=0.1 --layer_decay=0.5": "--layer_decay=0.5 gives every part its factor, and",
    "train --output=a.csv": "--output=a.csv goes with --find_learning_rate; a run is written to --run_dir",
    "train --find_learning_rate --dry_run": "--dry_run and --find_learning_rate exclude each other; leave one out",
    "train --find_learning_rate --output=a.png": "--output=a.png must end in .csv",
    "train --find_learning_rate --output=text.csv": "--output=text.csv already exists; name a new file",
    "train --find_learning_rate --output=nope/a.csv": "--output=nope/a.csv: its folder does not exist",
    "train --decay_in_ratio": "--decay_in_ratio=True is a setting of optimizer=lamb, not of",
    "train --weights=fashion_mnist --unfreezing=stem": "--unfreezing=stem must be PART:EPOCHS or PART:EPOCHS:LEARNING",
    "train --weights=fashion_mnist --unfreezing=stem:1:1:1": "--unfreezing=stem:1:1:1 must be PART:EPOCHS or",
    "train --weights=fashion_mnist --unfreezing=head:3": "unfreezing: frozen_through='head' must be one of stem",
    "train --weights=fashion_mnist --unfreezing=stem:0": "unfreezing: epochs=0 must be an integer of at least 1",
    "train --weights=fashion_mnist --unfreezing=stem:1:0": "unfreezing: learning_rate=0.0 must be a finite number > 0",
    "train --weights=fashion_mnist --unfreezing=stem:9,stage_c:9": "unfreezing goes from frozen_through='stem' to",
    "train --weights=fashion_mnist --unfreezing=stem:15": "--epochs=15 leaves none for the phase after unfreezing",
    "train --unfreezing=stem:1": "needs weights: random ones are trained",
    "train --schedule=step": "--schedule='step' needs decay_epochs",
    "train --crop=center": "--crop='center' must be one of random, random_resized",
    "train --stochastic_depth=often": "--stochastic_depth='often' must be one of off, on, adaptive",
    "train --evaluation_size=74": "--evaluation_size=74 must be an integer of at least 75",
    "train --repeats=0": "--repeats=0 must be an integer of at least 1",
    "train --magnitude=5": "--magnitude=5.0 is a setting of policy=rand_augment_increasing",
    "train --loss=hinge": "--loss='hinge' must be one of categorical, binary",
    "train --target_threshold=0.2": "--target_threshold=0.2 is for loss='binary', not 'categorical'",
    "train --residual_scale=-1": "--residual_scale=-1.0 must be a number ≥ 0",
    "train --precision=float16": "--precision='float16' must be one of float32",
    "train --remat=some": "--remat='some' must be one of none, stage_b, all",
    "train --decoding=half": "--decoding='half' must be one of exact, scaled",
    "train --crops=2": "--crops=2 must be one of 1, 10, 144",
    "train --recipe=nope": "recipe='nope' is neither a file nor one of digits",
    "train --data=nope": "--data='nope' is not there",
    "train --data=": "--data='' is not there",
    "train --run_dir=text.csv": "--run_dir='text.csv' is not a folder; name another",
    "train --weights=nope": "--weights='nope' is not a file",
    "train --teacher=nope": "teacher='nope' is not a file or folder in",
    "train --teacher=text.csv": "teacher='text.csv' is a weights file; expected a run folder, a .keras",
    "train --teacher=text.keras": "no model card can be read: ",
    "train --teacher_weight=0.5": "--teacher_weight=0.5 needs a teacher",
    "train --teacher=fashion_mnist --teacher_temperature=0": "--teacher_temperature=0.0 must be a finite number > 0",
    "train --cache_features=1": "--cache_features=1 needs frozen_through: the output of a part stays the same",
    "train --cache_features=-1": "--cache_features=-1 must be an integer of at least 0",
    "train --recipe=probe --flip": "--cache_features=1 keeps the centre crop of each image, which is not",
    "train --recipe=probe --mixup=0.2": "--cache_features=1 with mixup or cutmix: they mix images anew in each step",
    "train --recipe=probe --stochastic_depth=on": "--cache_features=1 with stochastic_depth='on', which drops paths",
    "train --recipe=probe --dry_run": "a dry run makes some steps, and with cache_features=1 the frozen part is not in",
    "train --features_dir=cache": "--features_dir='cache' is for features that are computed once: add",
    "train --recipe=probe --data=digits --features_dir=text.csv": "--features_dir='text.csv' is not a folder; name",
    "launch -- train --recipe=probe --dry_run": "a dry run makes some steps, and with cache_features=1",
    "train --strategy=all": "--strategy='all' must be one of auto, multi_worker",
    "train --communication=mpi": "--communication='mpi' must be one of auto, ring, nccl",
    "train --communication_timeout=0": "--communication_timeout=0.0 must be a finite number > 0",
    "train --gradient_dtype=int8": "--gradient_dtype='int8' must be one of float32, float16",
    "train --save_every_steps=0": "--save_every_steps=0 must be an integer of at least 1",
    "train --run_dir=run": "--run_dir='run' holds a finished run of this recipe; name a new folder",
    "train --run_dir=run --epochs=5": "--run_dir='run' holds a run of another recipe (epochs=3, here 5)",
    "train --run_dir=run --recipe=digits": "--run_dir='run' holds a run of another recipe (epochs=3, here 15)",
    "train --run_dir=moved": "moved/recipe.json has data='photographs', a path from the folder in which that run was",
    "train --data=mixed": "has folders with names of splits ('train') beside others ('cat'). If all are classes, say",
    "train --data=mixed --layout=split": "--layout='split' must be one of auto, classes, splits",
    "train --data=photos": "data='photos' holds 0 folders; expected a folder with one folder of images for each class",
    "train --data=photos --layout=splits": "data='photos' has no folder train, training, val, valid",
    "train --data=twice": "data='twice' has 'val' and 'valid', which are two names of one split",
    "train --data=text.csv": "data='text.csv' has no column path: its first line names 'a', 'b'; a table begins",
    "train --data=gone.csv": "data='gone.csv': 2 of 2 files are not there, the first in line 2: 1.jpg; paths are",
    "evaluate --model=fashion_mnist --data=few.csv --split=test": "data='few.csv' has no split test; it has all",
    "train --layout=classes": "--layout='classes' is for a folder of images, and data='digits' is not one",
    "launch -- train --run_dir=run --width=1": "--run_dir='run' holds a run of another recipe (width=0.25, here 1.0)",
    "train digits": "unexpected argument 'digits'",
    "launch -- train --epochs=-1": "--epochs=-1 must be an integer of at least 1",
    "launch -- train --data=nope": "--data='nope' is not there",
    "launch --workers=0 -- train": "--workers=0 must be at least 1",
    "launch -- nope": "'nope' is neither `train` nor a program",
    "recipes nope": "recipe='nope' is neither a file",
    "grow --output=a.keras": "--structure is missing",
    "grow --structure=nope --output=a.keras --model=fashion_mnist": "--structure='»nope', column 1: unknown structure",
    "grow --structure=ir-5-10-5 --output=a.keras --model=fashion_mnist": "find no place|fit into the target",
    "grow --structure=ir-5-10-5 --output=a.h5": "--output=a.h5 must end in .keras",
    "grow --structure=polynet-g5 --output=a.keras --model=run": "--model='run' is a folder without model.keras",
    "grow --structure=polynet-g5 --output=a.keras --model=fashion_mnist --new_paths=0": "--new_paths='0' must be",
    "grow --structure=ir-5-10-5 --output=a.keras --model=nope": "--model='nope' is not a file or folder in",
    "ablation": "--output is missing",
    "ablation --output=study --depths=1,2": "--depths=1,2 must be three numbers",
    "ablation --output=study --modules=poly-9": "poly-2",
    "ablation --output=study": "--output='study' holds a study of another recipe (epochs=3, here 15)",
    "ablation --output=run": "--output='run' is not empty: 'model.json', 'recipe.json'; name a new folder",
    "ablation --output=study --stages=a": "stages='a' must be one of A, B, C, mixed",
    "ablation --output=study --learning_rates=g5": "--learning_rates=g5 must be NET=NUMBER, split by commas",
    "ablation --output=study --learning_rates=g5=1": "learning_rates='g5' must be one of ir 1-2-1",
    "ablation --output=study --seeds=0": "--seeds=0 must be an integer of at least 1",
    "predict": "no image is named",
    "predict --top=0 a.png": "--top=0 must be an integer of at least 1",
    "predict --crops=3 a.png": "--crops=3 must be one of 1, 10, 144",
    "predict --batch_size=0 a.png": "--batch_size=0 must be an integer of at least 1",
    "predict --pooling=sum a.png": "--pooling='sum' must be one of selective, mean",
    "predict --output=a.txt a.png": "--output=a.txt must end in .csv or .jsonl or .parquet",
    "predict --output=text.csv a.png": "--output=text.csv already exists; name a new file, or remove this one",
    "predict --output=kept.csv a.png": "kept.partial.csv exists: the rows of an incomplete table",
    "predict --html=a.htm a.png": "--html=a.htm must end in .html",
    "predict photos": "photos holds no image; the names of images end in .bmp, ",
    "predict *.png": "*.png: no such file, and as a pattern it matches none",
    "predict --model=fashion_mnist a.png b.png": "none of 2 images can be read; a.png: no such file",
    "predict --model=nope a.png": "--model='nope' is not a file or folder in",
    "predict --model=fashion_mnis a.png": "did you mean fashion_mnist?",
    "predict --model=text.keras a.png": "text.keras has no card: give its class_names (--classes: a file of them",
    "predict --model=text.keras --classes=nope a.png": "nope: cannot be read: No such file",
    "predict --model=text.keras --mean=0.5 a.png": "--mean and --std go together",
    "predict --model=text.keras --mean=0.5 --std=a a.png": "--std=a must be numbers split by commas",
    "predict --model=text.keras --mean=1 --std=1 --preprocessing=unit a.png": "--preprocessing and --mean both define",
    "predict --model=text.csv --classes=classes.txt a.png": "text.csv is a weights file: give its structure (--struct",
    "predict --model=fashion_mnist --preprocessing=unit a.png": "has a card with its description; leave preproc",
    "predict --model=run a.png": "--model='run' is a folder without model.keras",
    "predict --model=fashion_mnist nope.png": "nope.png: no such file",
    "explain a.png": "--output is missing: the page to write, a file.html",
    "explain --output=a.htm a.png": "--output=a.htm must end in .html",
    "explain --output=a.html": "no image is named",
    "explain --output=a.html --method=gradcam a.png": "--method='gradcam' must be one of grad-cam, grad-cam++, occl",
    "explain --output=a.html --method= a.png": "--method is empty; name one of grad-cam, grad-cam++, occlusion, or",
    "explain --output=a.html --stage= a.png": "--stage is empty; name a stage, such as stage_c, or several",
    "explain --output=a.html --model=nope a.png": "--model='nope' is not a file or folder in",
    "explain --output=a.html --model=fashion_mnist a.png": "a.png: no such file",
    "explain --output=a.html --model=fashion_mnist --class_name=Boot text.csv": "--class_name=Boot is not one of the",
    "features a.png": "--output is missing: the file to write, a file.npz",
    "features --output=a.npy a.png": "--output=a.npy must end in .npz",
    "features --output=a.npz": "no image is named",
    "features --output=a.npz --pooling=sum a.png": "--pooling='sum' must be one of avg, max",
    "features --output=a.npz --stage= a.png": "--stage='' is empty; name a stage, such as stage_c, or leave it out",
    "features --output=a.npz --batch_size=0 a.png": "--batch_size=0 must be an integer of at least 1",
    "features --output=a.npz --on_error=pass a.png": "--on_error='pass' must be one of error, skip",
    "features --output=a.npz --model=nope a.png": "--model='nope' is not a file or folder in",
    "features --output=a.npz --model=fashion_mnist a.png text.csv": "a.png: no such file",
    "features --output=a.npz --model=fashion_mnist --on_error=skip a.png b.png": "none of 2 images can be read; a.png",
    "evaluate": "no trained model in runs/",
    "evaluate --model=fashion_mnist": "--data is missing: the images for fashion_mnist",
    "evaluate --model=fashion_mnist --data=nope": "--data='nope' is not there",
    "evaluate --model=fashion_mnist --data=digits --batch_size=0": "--batch_size=0 must be an integer of at least 1",
    "evaluate --model=fashion_mnist --data=digits --crops=3": "--crops=3 must be one of 1, 10, 144",
    "evaluate --model=fashion_mnist --data=digits --pooling=sum": "--pooling='sum' must be one of selective, mean",
    "evaluate --model=fashion_mnist --data=digits --on_error=pass": "--on_error='pass' must be one of error, skip",
    "evaluate --model=fashion_mnist --data=digits --report=a.pdf": "--report=a.pdf must end in .html",
    "evaluate --model=fashion_mnist --data=digits --scores=a.npy": "--scores=a.npy must end in .npz",
    "evaluate --model=fashion_mnist --data=digits --results=text.csv": "text.csv: not the columns of this version",
    "evaluate --model=fashion_mnist --data=pets --split=val": "data='pets' has no split val; it has all",
    "evaluate --model=done --data=pets": "--data=pets is what done was trained on; leave out --data to evaluate on",
    "evaluate --model=nope": "--model='nope' is not a file or folder in",
    "completion": "expected a shell, bash or zsh; got nothing",
    "doctor now": "doctor takes none",
    "card": "expected one MODEL, a .keras file; got 0",
    "card nope.keras": "--model='nope.keras' is not a file or folder in|model='nope.keras' is not a file or folder in",
    "card text.keras --classes=classes.txt": "give its preprocessing",
    "results nope.csv": "nope.csv: no such file",
    "results photos": "photos: cannot be read as a table of results: Is a directory",
    "results classes.txt": "lacks date, lacks model, lacks structure, lacks weights_hash, lacks dataset and 25 more",
    "results results.csv --sort=nope": "--sort=nope must be one of date",
    "ensemble a.npz": "expected two files of scores or models, or more",
    "ensemble nope.npz nope.npz": "nope.npz: no such file",
    "ensemble text.csv text.csv": "text.csv: not a file of scores",
    "ensemble a.npz fashion_mnist": "--data is missing: 'fashion_mnist' is a model, not a file of scores",
    "ensemble a.npz nope": "MEMBER='nope' is not a file or folder in",
    "ensemble a.npz b.npz --data=photos": "--data is for members that are models",
    "ensemble fashion_mnist a.npz --data=nope": "--data='nope' is not there",
    "ensemble a.npz b.npz --mixture=most": "--mixture=most must be uniform, fit",
    "export": "--output is missing",
    "export --output=new --format=caffe": "--format='caffe' must be one of saved_model, onnx",
    "export --output=new --precision=int4": "--precision='int4' must be one of float32, float16, int8",
    "export --output=new --precision=int8 --calibration=nope": "--calibration='nope' is not there",
    "export --output=new --max_drop=1": "--max_drop=1 is for precision='int8' of openvino; got 'float32' of openvino",
    "export --output=new --precision=int8 --calibration=digits --max_drop=100": "--max_drop=100.0 must be a finite",
    "export --output=new --precision=int8 --calibration=digits --comparison_images=1": "--comparison_images=1 must be",
    "export --output=new --format=savedmodel": "; did you mean saved_model?",
    "export --output=run": "--output='run' already exists; name a new folder",
    "export --output=run --overwrite": "run holds no export, and nothing else is overwritten; name a new folder",
    "export --output=new --model=nope": "--model='nope' is not a file or folder in",
    "serve": "expected one MODEL_DIR",
    "serve nope": "nope does not exist; this exports the newest run to it: polynet export --output=nope",
    "serve run": "model_dir='run' is a folder without model.keras (of a run) and card.json (of an export); its run",
    "serve photos": "model_dir='photos' is a folder without model.keras (of a run) and card.json (of an export)",
    "serve text.csv": "text.csv is a weights file, not an export; export it first: polynet export --model=text",
    "serve imagenet": "imagenet is a published checkpoint, not an export; export it first: polynet export --model=imag",
    "serve nope --port=70000": "--port=70000 must be an integer from 0 to 65535",
    "serve nope --max_crops=3": "--max_crops=3 must be one of 1, 10, 144",
    "records": "expected one FOLDER; got 0 arguments",
    "records --verify a b": "expected one RECORDS; got 2 arguments",
    "records nope --output=new": "FOLDER_OR_TABLE='nope' is not there",
    "records photos --output=new --on_error=pass": "--on_error='pass' must be one of error, skip",
    "records photos --output=new --shards=0": "--shards=0 must be an integer of at least 1",
    "records photos --output=new --max_side=0": "--max_side=0 must be an integer of at least 1",
    "records photos --output=new --max_side=9 --quality=101": "--quality=101 must be an integer from 1 to 100",
    "records photos --output=new --quality=90": "--quality is for images that are shrunk: add --max_side",
    "records --verify nope --max_side=9": "--max_side is for images that are written as records",
    "records photos --output=new": "holds 0 folders",
    "records --verify nope": "nope",
    "records --describe nope --class_names=imagenet --first_label=1": "nope: holds no records",
    "benchmark": "expected `input`",
    "benchmark input --seconds=0": "--seconds=0.0 must be a finite number > 0",
    "benchmark input --data=nope": "--data='nope' is not there",
    "crops": "expected one IMAGE",
    "crops nope.png": "nope.png: no such file",
    "crops nope.png --image_size=0": "--image_size=0 must be an integer of at least 1",
    "crops nope.png --crops=10 --resize=no": "--resize='no' must be one of",
    "crops text.csv": "text.csv: ",
    "summary --structure=nope": "--structure='»nope', column 1: unknown structure",
    "summary --width=0": "--width=0.0 must be a finite number > 0",
    "summary --classes=0": "--classes=0 must be an integer of at least 1",
    "weights nope": "no published checkpoint is called 'nope'",
    "weights --cards=nope": "--cards=nope must be a folder that exists",
    "convert nope --output=a.keras": "SOURCE 'nope' is neither a file",
    "convert text.csv --output=a.h5": "--output=a.h5 must end in .weights.h5 or .keras",
}

RESULT = Result(
    **dict.fromkeys(
        ("date", "model", "structure", "weights_hash", "dataset", "fingerprint", "protocol", "pooling"), ""
    ),
    **dict.fromkeys(("python", "keras", "backend", "numpy", "polynet_keras", "device"), ""),
    **dict.fromkeys(("crops", "images", "top1_hits", "top5_hits", "parameters", "macs"), 1),
    **{"skipped": 0, "loss": 1.0, "ece": 0.0, "seconds": 1.0},
)

REFUSING = """
import contextlib, io, json, sys

class Refused:
    names = []

    def find_spec(self, name, path=None, target=None):
        if name in ("keras", "tensorflow"):
            self.names.append(name)
            raise ImportError(f"{name} is not to be imported")

sys.meta_path.insert(0, Refused())
"""
COMMAND_LINES = """
from polynet_keras.cli.main import main

for line in json.load(sys.stdin):
    Refused.names.clear()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(line.split())
    print(json.dumps([line, [code, out.getvalue(), err.getvalue(), Refused.names]]))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """By command line: exit code, what it wrote to stdout and stderr, and what it wanted to import."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "text.csv").write_text("a,b\n1,2\n")
    (folder / "gone.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\n")
    (folder / "few.csv").write_text("path,label\ntext.csv,a\nfew.csv,b\n")
    (folder / "study").mkdir()
    Recipe(epochs=3).save(folder / "study" / STUDY_FILE)
    (folder / "kept.partial.csv").write_text("path\n")
    (folder / "text.keras").write_text("no model")
    (folder / "classes.txt").write_text("a\nb\n")
    (folder / "photos").mkdir()
    for name in ("mixed/train", "mixed/cat", "twice/val", "twice/valid", "pets/cat", "pets/dog"):
        (folder / name).mkdir(parents=True)
    (folder / "moved").mkdir()
    Recipe("photographs").save(folder / "moved" / RECIPE_FILE)
    (folder / "run").mkdir()
    Recipe(epochs=3).save(folder / "run" / RECIPE_FILE)
    ModelCard(("a", "b"), Preprocessing(75, 86), 1, 1).save(folder / "run")
    (folder / "done").mkdir()
    (folder / "done" / "model.keras").touch()
    Recipe("pets").save(folder / "done" / RECIPE_FILE)
    ModelCard(("cat", "dog"), Preprocessing(75, 86), 1, 1).save(folder / "done")
    append(RESULT, folder / "results.csv")
    child = subprocess.run(
        [sys.executable, "-P", "-c", REFUSING + COMMAND_LINES],
        input=json.dumps([*SUCCEED, *FAIL]),
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return dict(map(json.loads, child.stdout.splitlines()))


@pytest.mark.parametrize("line", [*SUCCEED, *FAIL])
def test_it_is_said_without_keras(said, line):
    code, out, err, imported = said[line]
    assert imported == []
    if line in SUCCEED:
        assert (code, err) == (0, "")
        assert out
    else:
        assert (code, out) == (1, ""), err
        (told,) = err.splitlines()
        assert told.startswith("polynet: ")
        assert any(part in told for part in FAIL[line].split("|")), told


def test_every_command_is_tried():
    assert {line.split()[0] for line in FAIL} >= set(COMMANDS)


VALUES = """
from polynet_keras import cluster, data, deployment, evaluation, list_structures, models, pretrained, studies, training

data.Augmentation(), data.crop_plan(8, 9, data.Preprocessing(75, 86), 144)
training.Recipe(), training.Execution(), training.PRESETS["digits"].flops
training.plan_insertion("ir-5-10-5", "ir-10-20-10")
models.network_cost("polynet-g5"), list_structures()
pretrained.published("fashion_mnist"), pretrained.ModelCard, deployment.ExportCard
evaluation.Result, evaluation.Pooling(), evaluation.evaluate_ensemble
cluster.Cluster(), cluster.Communication(), studies.variants((1, 2, 1), ["poly-2"])
assert not Refused.names
"""


def test_values_in_python_need_no_keras():
    child = subprocess.run([sys.executable, "-c", REFUSING + VALUES], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (0, "")
