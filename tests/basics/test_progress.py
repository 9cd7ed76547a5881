"""How far the work is."""

from polynet_keras.basics import progress


def test_without_a_terminal_there_is_a_line_a_minute(monkeypatch, caplog):
    caplog.set_level("INFO", logger="absl")
    times = iter([0.0, 30.0, 61.0, 90.0, 130.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with progress.progress(10_000) as advance:
        for _ in range(4):
            advance(1000)
    assert caplog.messages == ["2,000 of 10,000 images, 32.79 images/s", "4,000 of 10,000 images, 30.77 images/s"]


def test_the_work_is_named(monkeypatch, caplog):
    caplog.set_level("INFO", logger="absl")
    times = iter([0.0, 100.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with progress.progress(500, "compared") as advance:
        advance(100)
    assert caplog.messages == ["compared: 100 of 500 images, 1 images/s"]
