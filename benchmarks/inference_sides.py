"""The networks that `benchmarks/inference.py` times: one set of weights, each runtime, in processes of their own.

A side is a generator: it yields once its modules are imported, once its network is built, once its weights are
loaded, and then the function from prepared images to logits, and whether they are channels first. So the same code
serves the rounds and the start-up table. What the runtimes load is written before, by `prepare`, each file in a process
of its own.
"""

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from side_process import SideProcess

G5 = "polynet-g5"
CALIBRATION_CROPS = 20
PRODUCT = 3000
"""Rows and columns of the matrices whose product is the machine's rate."""
TRIAD = 32 * 2**20
"""Elements of each array of the triad: far more than caches hold."""


def restrict(threads: int) -> None:
    """Before anything is imported: of every runtime, by its own variable and by the cores that the process may use."""
    os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(threads)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def import_keras(backend: str = "tensorflow"):
    os.environ["KERAS_BACKEND"] = backend
    import keras

    if backend == "torch":
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
    return keras


def polynet(settings, weights=None):
    """Ours, to logits: of two sides' probabilities the small ones hide everything."""
    from polynet_keras import PolyNet

    size = settings.image_size
    return PolyNet(
        weights=weights, input_shape=(size, size, 3), structure=settings.structure, classifier_activation=None
    )


def plain(model):
    """The same network as a plain `keras.Model` of Keras's layers."""
    import keras

    from polynet_keras.layers import BatchNormalization

    def plain_layer(layer):
        cls = keras.layers.BatchNormalization if isinstance(layer, BatchNormalization) else type(layer)
        return cls.from_config(layer.get_config())

    return keras.models.clone_model(keras.Model(model.inputs, model.outputs), clone_function=plain_layer)


def keras_side(options, settings, files) -> Iterator:
    """Plain Keras 3."""
    keras = import_keras()
    import polynet_keras  # noqa: F401

    yield "import"
    # From its configuration, as its user's code would build it, and without the time that it takes to build ours.
    model = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(plain(polynet(settings))))
    yield "build"
    model.load_weights(files / "net.weights.h5")
    yield "load"
    yield model.predict_on_batch


def ours_side(options, settings, files) -> Iterator:
    import_keras()
    import polynet_keras  # noqa: F401

    yield "import"
    model = polynet(settings)
    yield "build"
    model.load_weights(files / "net.weights.h5")
    yield "load"
    yield model.predict_on_batch


def fused_side(options, settings, files) -> Iterator:
    """From the `.keras` file of the fused model, on any backend."""
    keras = import_keras(options.get("backend", "tensorflow"))
    import polynet_keras  # noqa: F401

    yield "import"
    yield "build"
    model = keras.saving.load_model(files / f"{options.get('file', 'fused')}.keras")
    yield "load"
    if options.get("backend") == "torch":
        import torch

        def predict(images):
            with torch.inference_mode():
                return model.predict_on_batch(images)

        yield predict
    else:
        yield model.predict_on_batch


def saved_model_side(options, settings, files) -> Iterator:
    import tensorflow as tf

    yield "import"
    yield "build"
    loaded = tf.saved_model.load(str(files / "saved_model"))
    yield "load"
    yield lambda images: loaded.serve(tf.constant(images)).numpy()


def onnx_side(options, settings, files) -> Iterator:
    import onnxruntime

    yield "import"
    yield "build"
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = settings.threads
    path = files / options.get("file", "fused.onnx")
    session = onnxruntime.InferenceSession(str(path), chosen, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    channels_first = session.get_inputs()[0].shape[1] == 3
    yield "load"
    yield lambda images: session.run(None, {name: images})[0], channels_first


def openvino_side(options, settings, files) -> Iterator:
    import openvino  # noqa: F401

    yield "import"
    yield "build"
    compiled, channels_first = compiled_openvino(options, settings, files)
    request = compiled.create_infer_request()
    yield "load"

    def predict(images):
        return request.infer({0: images}, share_inputs=True)[compiled.output(0)].copy()

    yield predict, channels_first


def compiled_openvino(options, settings, files, profiled: bool = False):
    """And whether it takes its images channels first."""
    import openvino

    core = openvino.Core()
    model = core.read_model(str(files / options.get("file", "fused.xml")))
    channels_first = model.input(0).partial_shape[1] == 3
    configuration = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": options.get("hint", "latency").upper(),
        "INFERENCE_NUM_THREADS": settings.threads,
        "PERF_COUNT": profiled,
    }
    if options.get("shape") == "static":
        size = settings.image_size
        model.reshape([int(options["batch"]), *((3, size, size) if channels_first else (size, size, 3))])
    return core.compile_model(model, "CPU", configuration), channels_first


def pytorchcv_side(options, settings, files) -> Iterator:
    import torch
    from pytorchcv.models.polynet import polynet as theirs

    torch.set_num_threads(settings.threads)
    yield "import"
    net = pytorchcv_network(theirs, settings)
    yield "build"
    net.load_state_dict(torch.load(files / "net.pth", weights_only=True))
    net = net.to(memory_format=torch.channels_last).eval()
    yield "load"
    if options.get("compile"):
        import torch._inductor.config

        torch._inductor.config.freezing = True
        net = torch.compile(net, dynamic=False)

    def predict(images):
        with torch.inference_mode():
            return net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()  # channels_last as it is

    def predict_frozen(images):
        with torch.no_grad():  # freezing is for it
            return net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()

    yield predict_frozen if options.get("compile") else predict


def pytorchcv_network(theirs, settings):
    import torch

    net = theirs(dropout_rate=0.0, in_size=(settings.image_size, settings.image_size))
    net.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    return net


def tf2cv_side(options, settings, files) -> Iterator:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    from tf2cv.models.polynet import polynet as theirs

    yield "import"
    net = theirs(in_size=(settings.image_size, settings.image_size))
    size = settings.image_size
    net.build((1, size, size, 3))
    yield "build"
    with np.load(files / "tf2cv.npz") as arrays:
        for variable in net.variables:
            variable.assign(arrays[tf2cv_key(variable.name)])
    yield "load"
    function = tf.function(lambda x: net(x, training=False), autograph=False)
    yield lambda images: function(tf.constant(images)).numpy()


def tf2cv_key(name: str) -> str:
    return "|".join(name.split(":")[0].split("/"))


def machine_side(options, settings, files) -> Iterator:
    """Products of matrices in float32 and int8, and a triad: what the machine gives at the moment."""
    import torch

    torch.set_num_threads(settings.threads)
    yield "import"
    a, b = torch.randn(2, PRODUCT, PRODUCT)
    out = torch.empty_like(a)
    bytes_ = torch.randint(-100, 100, (2, PRODUCT, PRODUCT), dtype=torch.int8)
    x, y, z = torch.randn(3, TRIAD)
    pixels = torch.randn(1, 2048, 56, 56).to(memory_format=torch.channels_last)
    kernel = torch.randn(2048, 2048, 1, 1)
    yield "build"
    yield "load"

    def measured(run: Callable[[], object]) -> float:
        run()
        start = time.perf_counter()
        run()
        run()
        return (time.perf_counter() - start) / 2

    def convolve(pixels, kernel):
        with torch.inference_mode():
            return torch.nn.functional.conv2d(pixels, kernel)

    def rates(_):
        found = {
            "sgemm": 2 * PRODUCT**3 / measured(lambda: torch.mm(a, b, out=out)) / 1e9,
            "conv": 2 * 56**2 * 2048**2 / measured(lambda: convolve(pixels, kernel)) / 1e9,
            "triad": 12 * TRIAD / measured(lambda: torch.add(y, z, alpha=3.0, out=x)) / 1e9,
        }
        # Without these instructions PyTorch's product is a plain loop, which takes minutes and says nothing.
        if torch.cpu._is_vnni_supported():
            found["int8"] = 2 * PRODUCT**3 / measured(lambda: torch._int_mm(bytes_[0], bytes_[1])) / 1e9
        return found

    yield rates


SIDES: dict[str, Callable] = {
    "keras": keras_side,
    "polynet_keras": ours_side,
    "fused": fused_side,
    "saved_model": saved_model_side,
    "onnx": onnx_side,
    "openvino": openvino_side,
    "pytorchcv": pytorchcv_side,
    "tf2cv": tf2cv_side,
    "machine": machine_side,
}


# What is written before


def photographs(settings) -> np.ndarray:
    """Crops of scikit-learn's two photographs, prepared: float32 (20, image_size, image_size, 3)."""
    from sklearn.datasets import load_sample_images

    from polynet_keras.data.crops import crop_plan, views
    from polynet_keras.data.protocol import Preprocessing

    preprocessing = Preprocessing(settings.image_size, round(settings.image_size * 378 / 331))
    crops = []
    for image in load_sample_images().images:
        plan = crop_plan(*image.shape[:2], preprocessing, 10)
        crops.append(preprocessing.normalize(views(image, preprocessing, plan)))
    return np.concatenate(crops).astype("float32")


def write_weights(settings, files: Path) -> None:
    """Random weights with normalizations that normalize and then some: their statistics are those of photographs."""
    keras = import_keras()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    images = photographs(settings)
    model = polynet(settings)
    normalizations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in normalizations:
        shape = layer.gamma.shape
        low, high = (0.02, 0.1) if shape[0] in (384, 1152, 2048) else (0.5, 1.5)
        layer.gamma.assign(rng.uniform(low, high, shape))
        layer.beta.assign(rng.normal(0, 0.2, shape))
        layer.momentum = 0.0
    model(images[::5], training=True)
    for layer in normalizations:
        deviation = np.sqrt(np.asarray(layer.moving_variance))
        layer.moving_mean.assign_add(0.1 * rng.normal(size=deviation.shape) * deviation)
        layer.moving_variance.assign(deviation**2 * rng.uniform(0.8, 1.25, deviation.shape))
    head = model.layers[-1]
    head.bias.assign_sub(np.mean(model.predict_on_batch(images), axis=0))
    np.save(files / "images.npy", images)
    np.save(files / "logits.npy", model.predict_on_batch(images[: settings.largest]))
    model.save_weights(files / "net.weights.h5")


def write_pytorchcv(settings, files: Path) -> None:
    """The same weights by the tables that the tests prove."""
    import_keras()
    import torch
    from pytorchcv.models.polynet import polynet as theirs

    from polynet_keras.pretrained.name_maps import pytorchcv

    model = polynet(settings)
    model.load_weights(files / "net.weights.h5")
    net = pytorchcv_network(theirs, settings)
    state = net.state_dict()
    for source, layer in pytorchcv().items():
        values = model.get_layer(layer).get_weights()
        names = ("weight", "bias", "running_mean", "running_var")
        for name, value in zip(names, values, strict=False):
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            state[f"{source}.{name}"].copy_(torch.from_numpy(value.copy()))
    net.load_state_dict(state)
    torch.save(net.state_dict(), files / "net.pth")
    image = torch.zeros(2, 3, settings.image_size, settings.image_size)
    batch = {0: torch.export.Dim("batch", min=1)}
    net.eval()
    torch.onnx.export(net, (image,), files / "pytorchcv.onnx", dynamo=True, dynamic_shapes=(batch,), verbose=False)


def write_pytorchcv_openvino(settings, files: Path) -> None:
    import openvino

    model = openvino.convert_model(str(files / "pytorchcv.onnx"))
    openvino.save_model(model, files / "pytorchcv.xml", compress_to_fp16=False)


def write_tf2cv(settings, files: Path) -> None:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import h5py
    from tf2cv.models.polynet import polynet as theirs

    from polynet_keras.pretrained.name_maps import tf2cv, without_repeats

    net = theirs(in_size=(settings.image_size, settings.image_size))
    net.build((1, settings.image_size, settings.image_size, 3))
    table = tf2cv()
    with np.load(files / "layers.npz") as layers:
        arrays = {}
        for variable in net.variables:
            path, kind = variable.name.split(":")[0].rsplit("/", 1)
            arrays[tf2cv_key(variable.name)] = layers[f"{table[without_repeats(path)]}|{kind}"]
    np.savez(files / "tf2cv.npz", **arrays)
    del h5py


def write_layers(settings, files: Path) -> None:
    """The weights by layer and kind, for whoever has no Keras 3."""
    import_keras()
    model = polynet(settings)
    model.load_weights(files / "net.weights.h5")
    arrays = {f"{layer.name}|{v.name}": np.asarray(v) for layer in model.layers for v in layer.variables}
    np.savez(files / "layers.npz", **arrays)


def write_fused(settings, files: Path) -> None:
    keras = import_keras()
    import tensorflow as tf

    from polynet_keras.deployment.fusing import fuse

    model = polynet(settings)
    model.load_weights(files / "net.weights.h5")
    fused = fuse(model)
    fused.save(files / "fused.keras")
    signature = [keras.InputSpec(dtype="float32", shape=fused.input_shape, name="image")]
    fused.export(str(files / "fused.onnx"), format="onnx", verbose=False, input_signature=signature)
    fused.export(str(files / "exported.xml"), format="openvino", verbose=False, input_signature=signature)
    fused.export(str(files / "saved_model"), format="tf_saved_model", verbose=False, input_signature=signature)
    del tf


def write_openvino(settings, files: Path) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(str(files / "exported.xml"))
    openvino.save_model(model, files / "fused.xml", compress_to_fp16=False)
    crops = [image[np.newaxis] for image in np.load(files / "images.npy")[:CALIBRATION_CROPS]]
    quantized = nncf.quantize(model, nncf.Dataset(crops), preset=nncf.QuantizationPreset.MIXED, subset_size=len(crops))
    openvino.save_model(quantized, files / "int8.xml")


WRITERS = (
    (write_weights, "net.weights.h5", False),
    (write_fused, "saved_model", False),
    (write_openvino, "int8.xml", False),
    (write_pytorchcv, "pytorchcv.onnx", True),
    (write_pytorchcv_openvino, "pytorchcv.xml", True),
    (write_layers, "layers.npz", True),
    (write_tf2cv, "tf2cv.npz", True),
)
"""What is written, the last file of each, and whether it is G5 only, as the peers are."""


def prepare(settings, files: Path) -> None:
    for writer, last, only_g5 in WRITERS:
        if (files / last).exists() or (only_g5 and settings.structure != G5):
            continue
        print(f"writing {last}", file=sys.stderr, flush=True)
        process = multiprocessing.get_context("spawn").Process(
            target=_restricted, args=(writer, settings, files), daemon=False
        )
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{writer.__name__} failed")


def _restricted(run: Callable, settings, *arguments) -> None:
    restrict(settings.threads)
    run(settings, *arguments)


# Processes


def split(text: str) -> tuple[str, dict[str, str]]:
    name, *options = text.split(",")
    if name not in SIDES:
        raise SystemExit(f"--sides: {name!r} is not one of {', '.join(SIDES)}")
    return name, dict(option.split("=") for option in options)


def enter(text: str, settings) -> tuple[str, dict[str, str]]:
    """In the process of a side, before anything is imported; returns its name and options."""
    restrict(settings.threads)
    name, options = split(text)
    os.environ |= {option: value for option, value in options.items() if option.isupper()}
    return name, options


def serve(connection, text: str, settings, files: Path) -> None:
    """A process of a side: says when it has loaded its network, then runs it whenever it is asked."""
    start = time.perf_counter()
    name, options = enter(text, settings)
    steps = SIDES[name](options, settings, files)
    phases = {}
    for phase in steps:
        if not isinstance(phase, str):
            break
        phases[phase] = time.perf_counter() - start
        start = time.perf_counter()
    connection.send(phases)
    run, channels_first = phase if isinstance(phase, tuple) else (phase, False)
    images = np.load(files / "images.npy")[: settings.largest]
    if channels_first:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    while (request := connection.recv()) != "stop":
        batch, passes = request
        batch_images = images[:batch]
        start = time.perf_counter()
        for _ in range(passes):
            output = run(batch_images)
        seconds = (time.perf_counter() - start) / passes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        connection.send({"seconds": seconds, "output": output, "peak_gib": peak})


class Side(SideProcess):
    """A process that holds one network."""

    def __init__(self, text: str, settings, files: Path):
        super().__init__(text, serve, text, settings, files)
        self.phases: dict[str, float] = {}

    def wait_until_loaded(self) -> None:
        self.phases = self.answer()

    def run(self, batch: int, passes: int = 1) -> dict:
        self.ask((batch, passes))
        return self.answer()

    def stop(self) -> None:
        self.ask("stop")
        self.process.join()

    def processor_seconds(self) -> float:
        """That it has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
