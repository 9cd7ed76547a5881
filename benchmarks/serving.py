"""The service beside the bare runtime, and the service under hostile clients; both on this machine alone.

    polynet export --model imagenet --output model
    python benchmarks/serving.py model --rounds 3
    python benchmarks/serving.py model --fuzz 60

The service runs as users start it, in a process of its own. A second process asks it in a closed loop: so many clients,
each with one connection, send a photograph (scikit-learn's two, as JPEGs of several sizes), wait for the answer, and
send the next. The bare runtime is a third process, which runs the same artifact on prepared images, as many at once as
the service puts in a batch, and does nothing else. They take turns, in rounds; printed are the medians, and of each
load its requests/s over the images/s of the bare runtime in the same round. More clients than the queue takes
(`--clients 200`) show what is refused; a client that is told 503 waits for as long as it is told, at most a second.

`--fuzz` sends mutated photographs, damaged forms and malformed HTTP for so many seconds, and fails if any answer is
neither a 2xx nor a refusal with a reason, or if the service is not as healthy in the end as before.
"""

import argparse
import asyncio
import atexit
import contextlib
import importlib.metadata
import io
import json
import multiprocessing
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from datetime import date

WARM_UP = 2
SAME_BATCH = 0.05
"""Seconds between the answers of one batch, at most."""
SCRIPT = "import sys; from polynet_keras.cli.main import main; sys.exit(main())"


def photographs(sizes, quality=90):
    """JPEGs of scikit-learn's two photographs, with these widths."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    encoded = []
    for width in sizes:
        for photograph in load_sample_images().images:
            image = Image.fromarray(photograph)
            file = io.BytesIO()
            image.resize((width, width * image.height // image.width)).save(file, "JPEG", quality=quality)
            encoded.append(file.getvalue())
    return encoded


class Service:
    """`polynet serve` on a free port."""

    def __init__(self, model_dir, flags):
        command = [sys.executable, "-c", SCRIPT, "serve", model_dir, "--port=0", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)
        self.errors = []
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()
        line = self.process.stdout.readline()
        if not line.startswith("ready: "):
            time.sleep(0.5)
            raise SystemExit(f"the service did not start: {''.join(self.errors[-3:])}")
        self.url = line.split()[1]
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def metrics(self):
        """Every sample by its name, without labels summed over them."""
        import httpx

        totals = {}
        for line in httpx.get(f"{self.url}metrics", timeout=30).text.splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.partition("{")[0]
                totals[name] = totals.get(name, 0.0) + float(value)
        return totals

    def resident_mib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))

    def end(self):
        self.process.terminate()
        return self.process.wait(120)


# --- The bare runtime ---


def bare(connection, model_dir, batch_size, threads):
    import numpy as np

    from polynet_keras.deployment.artifact import load_exported

    model = load_exported(model_dir, threads or None)
    size, channels = model.card.preprocessing.image_size, model.card.preprocessing.channels
    images = np.random.default_rng(0).normal(size=(batch_size, size, size, channels)).astype("float32")
    model.run(images)
    connection.send(model.card.name)
    while (seconds := connection.recv()) is not None:
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            model.run(images)
            count += batch_size
        connection.send(count / (time.perf_counter() - start))


# --- The load ---


def load(connection, port, bodies, query):
    while (order := connection.recv()) is not None:
        clients, seconds = order
        connection.send(asyncio.run(closed_loop(port, bodies, query, clients, seconds)))


async def closed_loop(port, bodies, query, clients, seconds):
    """Of the requests answered in time: the seconds of each, how many a second, and how many had each status."""
    latencies, times, statuses = [], [], {}
    start = time.perf_counter()
    begin, end = start + WARM_UP, start + WARM_UP + seconds

    async def client(number):
        requests = [request(body, query) for body in bodies]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number
        while (sent := time.perf_counter()) < end:
            writer.write(requests[turn % len(requests)])
            await writer.drain()
            status, retry_after = await read_answer(reader)
            done = time.perf_counter()
            if begin <= done <= end:
                statuses[status] = statuses.get(status, 0) + 1
                if status == 200:
                    latencies.append(done - sent)
                    times.append(done)
            turn += 1
            if status == 503:  # as it is told, but not longer than this measurement
                await asyncio.sleep(min(retry_after, 1))
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return latencies, per_second(times), statuses


def per_second(times):
    """From the end of the first batch to that of the last: a window that cut batches would count some of them half."""
    after = [time for time in times if time > times[0] + SAME_BATCH]
    return len(after) / (times[-1] - times[0]) if after else 0.0


def request(body, query=""):
    head = f"POST /v1/classify{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def read_answer(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split()[1]), float(headers.get("retry-after", 0))


def started(target, *arguments):
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    return ours


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def measure(arguments):
    bodies = photographs(arguments.sizes)
    query = f"?crops={arguments.crops}"
    flags = [f"--max_batch_size={arguments.batch_size}", f"--threads={arguments.threads}", *arguments.flags]
    service = Service(arguments.model_dir, flags)
    runtime = started(bare, arguments.model_dir, arguments.batch_size, arguments.threads)
    name = runtime.recv()
    loads = started(load, service.port, bodies, query)
    kilobytes = ", ".join(f"{len(body) / 1000:.0f}" for body in bodies)
    print(f"{name}: {platform.processor() or platform.machine()}, {os.cpu_count()} processors, {date.today()}")
    packages = ("openvino", "onnxruntime", "uvicorn", "fastapi", "pillow", "keras")
    print(", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages))
    print(f"photographs {arguments.sizes} px wide: {kilobytes} kB; {arguments.crops} crop(s); {' '.join(flags)}")

    rates, results = [], {clients: [] for clients in arguments.clients}
    for number in range(arguments.rounds):
        runtime.send(arguments.seconds)
        rates.append(runtime.recv())
        for clients in arguments.clients:
            before = service.metrics()
            loads.send((clients, arguments.seconds))
            latencies, rate, statuses = loads.recv()
            after = service.metrics()
            batches = after["polynet_batch_size_count"] - before["polynet_batch_size_count"]
            views = after["polynet_batch_size_sum"] - before["polynet_batch_size_sum"]
            results[clients].append(
                {
                    "rate": rate,
                    "ratio": rate * arguments.crops / rates[-1],
                    "p50": percentile(latencies, 0.5),
                    "p99": percentile(latencies, 0.99),
                    "refused": statuses.get(503, 0) / arguments.seconds,
                    "other": sum(count for status, count in statuses.items() if status not in (200, 503)),
                    "batch": views / batches if batches else float("nan"),
                }
            )
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    loads.send(None)
    runtime.send(None)
    spread = f"{min(rates):.2f} to {max(rates):.2f}"
    print(f"\nbare runtime, {arguments.batch_size} at once: {statistics.median(rates):.2f} images/s ({spread})\n")
    print("| clients | requests/s | of the bare runtime | p50, ms | p99, ms | 503/s | views a batch | other answers |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for clients, rounds in results.items():
        middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        print(
            f"| {clients} | {middle['rate']:.2f} | {middle['ratio']:.2f} | {1000 * middle['p50']:.0f} "
            f"| {1000 * middle['p99']:.0f} | {middle['refused']:.1f} | {middle['batch']:.1f} | {middle['other']:.0f} |"
        )
    print(f"\nmemory of the service: {service.resident_mib():.0f} MiB; exit code after SIGTERM: {service.end()}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"bare": rates, "clients": results}, file, indent=1)


# --- Hostile clients ---


def fuzz(arguments):
    generator = random.Random(arguments.seed)
    service = Service(arguments.model_dir, ["--header_timeout=2", "--body_timeout=2", *arguments.flags])
    bodies = photographs((320, 640))
    good = bodies[0]
    expected = classified(service.port, good)
    statuses, cases, failures = {}, {}, []
    memory, end = [], time.perf_counter() + arguments.fuzz
    lock = threading.Lock()

    def hammer(seed):
        own = random.Random(seed)
        while time.perf_counter() < end:
            kind, content, patient = case(own, bodies)
            try:
                status, reason = spoken(service.port, content, patient)
            except Exception as error:  # whatever went wrong is what is looked for
                status, reason = repr(error), ""
            with lock:
                cases[kind] = cases.get(kind, 0) + 1
                statuses[status] = statuses.get(status, 0) + 1
                # None: the client left first, or nothing was said that had to be answered.
                if not (status in (None, 200) or (isinstance(status, int) and acceptable(status) and reason)):
                    failures.append((kind, status, reason, content[:200]))

    threads = [threading.Thread(target=hammer, args=(generator.random(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(1)
        memory.append(service.resident_mib())
    for thread in threads:
        thread.join()
    alive = service.process.poll() is None
    same = alive and classified(service.port, good) == expected
    left = service.metrics() if alive else {}
    print(f"{sum(cases.values())} requests of {len(cases)} kinds in {arguments.fuzz} s, seed {arguments.seed}")
    print("kinds:", ", ".join(f"{kind} {count}" for kind, count in sorted(cases.items())))
    print("answers:", ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items(), key=str)))
    print(f"memory, MiB: {memory[0]:.0f} at first, at most {max(memory):.0f}, {memory[-1]:.0f} at last")
    held = left.get("polynet_queue_length"), left.get("polynet_buffered_bytes")
    print(f"alive: {alive}; answers as before: {same}; queue and buffered bytes left: {held}")
    code = service.end()
    print(f"exit code after SIGTERM: {code}; lines on stderr: {len(service.errors)}")
    for line in service.errors[-arguments.errors :] if arguments.errors else ():
        print("stderr:", line, end="")
    for failure in failures[:10]:
        print("unexpected:", failure)
    if failures or not same or held != (0, 0) or code:
        raise SystemExit(1)


def acceptable(status):
    return 400 <= status < 500 or status == 503


def classified(port, body):
    status, content = spoken(port, request(body), True, whole=True)
    if status != 200:
        return status, content
    return [(one["class"], round(one["probability"], 4)) for one in content["top"]]


def spoken(port, content, patient, whole=False):
    """The first answer to these bytes: its status, and its reason if it has one."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(content)  # or it was refused before the end: the answer may be here all the same
        if not patient:
            return None, ""
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer) < total(answer):
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                break
            answer += data
    if not answer:
        return "no answer", ""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if b"application/json" not in head.lower():
        return status, ""
    content = json.loads(body[: total(answer) - len(head) - 4] or b"{}")
    return status, content if whole else content.get("error", "")


def total(answer):
    head, separator, _ = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(head) + len(separator) + int(line.split(b":")[1])
    return len(head) + len(separator)


def case(generator, bodies):
    """One hostile request: its kind, its bytes, and whether to wait for an answer."""
    kinds = [mutated, truncated, noise, spliced, form, batch, wrong_head, no_http, short_body, chunked, leaving, good]
    kind = generator.choice(kinds)
    content = kind(generator, bodies)
    return kind.__name__, content, kind is not leaving


def good(generator, bodies):
    return request(generator.choice(bodies), generator.choice(("", "?crops=10", "?top=1", "?top=99&crops=1")))


def mutated(generator, bodies):
    body = bytearray(generator.choice(bodies))
    for _ in range(generator.choice((1, 3, 30, 300))):
        # The head of a file is where its sizes are.
        place = generator.randrange(min(len(body), generator.choice((700, len(body)))))
        body[place] = generator.randrange(256)
    return request(bytes(body))


def truncated(generator, bodies):
    body = generator.choice(bodies)
    return request(body[: generator.randrange(len(body))])


def noise(generator, bodies):
    signatures = (
        b"",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"II*\0",
        b"BM",
        b"%!PS",
    )
    return request(generator.choice(signatures) + generator.randbytes(generator.choice((0, 1, 30, 3000, 100_000))))


def spliced(generator, bodies):
    one, two = generator.choice(bodies), generator.choice(bodies)
    return request(one[: generator.randrange(len(one))] + two[generator.randrange(len(two)) :])


def _form(generator, bodies, path):
    boundary = b"boundary"
    parts = []
    for _ in range(generator.choice((0, 1, 1, 2, 30))):
        name = generator.choice(
            (
                b'name="a"; filename="a.jpg"',
                b'name="a"',
                b'filename="b"',
                b"",
                b'name="\xff"; filename="\r"',
                b'name="a"; filename="\\ud800"',
            )
        )
        body = generator.choice((b"", b"text", generator.choice(bodies)))
        parts.append(b"--" + boundary + b"\r\nContent-Disposition: form-data; " + name + b"\r\n\r\n" + body + b"\r\n")
    content = bytearray(b"".join(parts) + b"--" + boundary + generator.choice((b"--\r\n", b"--", b"")))
    if content and generator.random() < 0.3:
        content[generator.randrange(len(content))] = generator.randrange(256)
    right = "; boundary=boundary"
    kind = generator.choice((right, "", "; boundary=", "; boundary=other", f"{right}; charset=raw_unicode_escape"))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data{kind}\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + bytes(content)


def form(generator, bodies):
    return _form(generator, bodies, "/v1/classify")


def batch(generator, bodies):
    return _form(generator, bodies, "/v1/classify/batch?crops=1")


def wrong_head(generator, bodies):
    method = generator.choice(("GET", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "POST", "FOO"))
    path = generator.choice(
        ("/v1/classify", "/v1/classify?crops=3", "/none", "/v1/classify?top=-1", "//", "*", "/%00", "/v1/%2e")
    )
    kind = generator.choice(("image/jpeg", "application/json", "text/html", "x" * 3000, "", "multipart/form-data"))
    coding = generator.choice(("", "Content-Encoding: gzip\r\n"))
    body = b"small"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{coding}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def no_http(generator, bodies):
    head = bytearray(request(b"small"))
    for _ in range(generator.choice((1, 3, 10))):
        head[generator.randrange(len(head))] = generator.randrange(256)
    return generator.choice(
        (bytes(head) + b"\r\n\r\n", generator.randbytes(generator.randrange(1, 3000)) + b"\r\n\r\n", b"A" * 100_000)
    )


def short_body(generator, bodies):
    """Less than was promised; the service has to lose its patience."""
    content = request(generator.choice(bodies))
    return content[: generator.randrange(1, len(content) - 1)]


def chunked(generator, bodies):
    body = generator.choice(bodies)
    cut = generator.randrange(1, len(body))
    size = generator.choice((f"{cut:x}", "ffffffffff", "-1", "zz", "0", f"{cut:x};ext=1"))
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + size.encode() + b"\r\n" + body[:cut] + b"\r\n0\r\n\r\n"


def leaving(generator, bodies):
    content = request(generator.choice(bodies), "?crops=10")
    return content[: generator.choice((len(content), generator.randrange(len(content))))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", help="what `polynet export` left")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0, help="of an inference, on both sides")
    parser.add_argument("--crops", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[320, 640, 1280], help="widths of the photographs, px")
    parser.add_argument("--seconds", type=float, default=10, help="of each side in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flags", nargs="*", default=[], help="more flags of `polynet serve`, each with its --")
    parser.add_argument("--fuzz", type=float, help="seconds of hostile requests, in place of the load")
    parser.add_argument("--seed", type=int, default=0, help="of the hostile requests")
    parser.add_argument("--errors", type=int, default=0, help="lines of the service's stderr to show in the end")
    parser.add_argument("--json", help="file for the numbers")
    arguments = parser.parse_args()
    if arguments.fuzz:
        fuzz(arguments)
    else:
        measure(arguments)


if __name__ == "__main__":
    main()
