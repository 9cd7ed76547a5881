"""The page, in a real browser: a photograph goes in, bars and votes come out; mistakes are said; keys suffice."""

import json
import shutil
import urllib.request

import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from tests.deployment.running import running

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium or Chrome with chromedriver here"),
]

ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # in containers
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1200,1400",
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("china", "flower"):
        Image.fromarray(load_sample_image(f"{name}.jpg")).save(folder / f"{name}.jpg", quality=90)
    (folder / "<b>text.jpg").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def service():
    with running() as it:
        yield it


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, service):
    browser.get(service.url)
    browser.get_log("browser")
    yield browser
    complaints = [entry for entry in browser.get_log("browser") if "status of 4" not in entry["message"]]
    assert complaints == []


def css(page, selector):
    return page.find_elements("css selector", selector)


def until(page, condition):
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(page, 30, poll_frequency=0.05).until(lambda _: condition())


def choose_file(page, path):
    css(page, "#file")[0].send_keys(str(path))
    until(page, lambda: (text := css(page, "#status")[0].text) and not text.startswith("Classifying"))


def answer_for(service, path, crops):
    request = urllib.request.Request(f"{service.url}v1/classify?crops={crops}", path.read_bytes(), method="POST")
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def percent(probability):
    return f"{100 * probability:.{2 if probability < 0.1 else 1}f} %"


def test_bars_and_votes(page, service, photographs):
    until(page, lambda: css(page, "#model")[0].text == "small · 10 classes · openvino, float32")
    assert page.title == "small: classify a photograph"
    choose_file(page, photographs / "china.jpg")
    expected = answer_for(service, photographs / "china.jpg", 10)
    first = expected["top"][0]
    assert css(page, "#status")[0].text == f"china.jpg: {first['class']}, {percent(first['probability'])}"

    bars = css(page, ".bar")
    assert [bar.find_element("css selector", ".name").text for bar in bars] == [one["class"] for one in expected["top"]]
    values = [bar.find_element("css selector", ".value").text for bar in bars]
    assert values == [percent(one["probability"]) for one in expected["top"]]
    track = bars[0].find_element("css selector", ".track")
    until(
        page,
        lambda: abs(css(page, ".fill")[0].size["width"] / track.size["width"] - first["probability"]) < 0.02,
    )

    crops = css(page, ".crop")
    assert len(crops) == 10
    for crop, vote in zip(crops, expected["crops"], strict=True):
        assert crop.find_element("css selector", ".class").text == vote["class"]
        assert crop.find_element("css selector", ".value").text == percent(vote["probability"])
        assert ("mirrored" in crop.text) == vote["mirrored"]
    boxes = page.execute_script(
        "return [...document.querySelectorAll('#boxes rect')]"
        ".map(box => ['x', 'y', 'width', 'height'].map(name => +box.getAttribute(name)))"
    )
    for (x, y, width, height), vote in zip(boxes, expected["crops"], strict=True):
        edges = {"left": x, "top": y, "right": x + width, "bottom": y + height}
        assert edges == pytest.approx(vote["box"], abs=0.01)
    assert page.execute_script("return document.getElementById('boxes').getAttribute('viewBox')") == "0 0 640 427"
    assert_box_is_drawn_on_the_photograph(page, expected["crops"][3]["box"])


def assert_box_is_drawn_on_the_photograph(page, box):
    """In pixels of the screen: the fourth box is where its corner of the photograph is shown."""
    image, drawn = page.execute_script(
        "const edges = e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };"
        "return [edges(document.getElementById('image')), edges(document.querySelectorAll('#boxes rect')[3])]"
    )
    scale = (image[2] - image[0]) / 640
    expected = [image[0] + scale * box["left"], image[1] + scale * box["top"], image[2], image[3]]
    assert drawn == pytest.approx(expected, abs=3)


def test_thumbnails_show_their_crops(page, photographs):
    choose_file(page, photographs / "flower.jpg")
    left, mirrored = page.execute_script(
        "return [0, 5].map(i => [...document.querySelectorAll('.crop canvas')[i].getContext('2d')"
        ".getImageData(0, 80, 160, 1).data])"
    )
    row = [left[4 * i : 4 * i + 3] for i in range(160)]
    back = [mirrored[4 * i : 4 * i + 3] for i in range(160)][::-1]
    assert max(max(pixel) for pixel in row) > 100  # not empty
    difference = [abs(a - b) for one, two in zip(row, back, strict=True) for a, b in zip(one, two, strict=True)]
    assert sum(difference) / len(difference) < 4


def test_a_class_shows_who_voted_for_it(page, service, photographs):
    choose_file(page, photographs / "china.jpg")
    expected = answer_for(service, photographs / "china.jpg", 10)
    second = expected["top"][1]["class"]
    css(page, ".bar")[1].click()
    assert css(page, ".bar")[1].get_attribute("aria-pressed") == "true"
    values = [crop.find_element("css selector", ".value").text for crop in css(page, ".crop")]
    assert values == [percent(vote["probabilities"][1]) for vote in expected["crops"]]
    votes = [vote["class"] == second for vote in expected["crops"]]
    assert [box.get_attribute("class") == "on" for box in css(page, "#boxes rect")] == votes
    assert css(page, "#about")[0].text.startswith(f"{sum(votes)} of 10 crops vote for {second}")
    css(page, ".bar")[1].click()
    assert not css(page, "#boxes.chosen")


def test_keys_suffice(page, photographs):
    from selenium.webdriver import ActionChains, Keys

    def press(*keys):
        ActionChains(page).send_keys(*keys).perform()

    choose_file(page, photographs / "china.jpg")
    page.execute_script("document.getElementById('file').focus()")
    focused = []
    for _ in range(17):  # the file, the radio buttons, five bars, ten crops
        element = page.switch_to.active_element
        focused.append(element.get_attribute("class") or element.tag_name)
        press(Keys.TAB)
    assert focused == ["input", "input", *["bar"] * 5, *["crop"] * 10]
    page.execute_script("document.querySelectorAll('.bar')[0].focus()")
    press(Keys.ENTER)
    assert css(page, ".bar[aria-pressed=true]")
    press(*[Keys.TAB] * 5)
    assert [box.get_attribute("class") == "on" for box in css(page, "#boxes rect")] == [True] + [False] * 9


def test_one_crop_has_no_votes(page, service, photographs):
    choose_file(page, photographs / "china.jpg")
    css(page, "input[value='1']")[0].click()
    first = answer_for(service, photographs / "china.jpg", 1)["top"][0]
    until(page, lambda: css(page, "#status")[0].text.endswith(f"{first['class']}, {percent(first['probability'])}"))
    assert len(css(page, ".bar")) == 5
    assert not css(page, "#votes")[0].is_displayed()


def test_a_dropped_file_is_classified(page):
    page.execute_script(
        """
        const canvas = document.createElement('canvas'); canvas.width = canvas.height = 100;
        canvas.getContext('2d').fillRect(10, 10, 50, 50);
        canvas.toBlob(blob => {
          const data = new DataTransfer(); data.items.add(new File([blob], 'drawn.png', {type: 'image/png'}));
          document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
        });
        """
    )
    until(page, lambda: css(page, "#status")[0].text.startswith("drawn.png: class "))
    assert len(css(page, ".crop")) == 10


def test_mistakes_are_said_and_names_are_text(page, photographs):
    choose_file(page, photographs / "china.jpg")
    choose_file(page, photographs / "<b>text.jpg")
    status = css(page, "#status")[0]
    assert status.text.startswith("image: cannot be read as an image")
    assert status.get_attribute("class") == "bad"
    assert not css(page, "#result")[0].is_displayed()
    choose_file(page, photographs / "flower.jpg")
    assert status.get_attribute("class") == ""
    assert css(page, "#result")[0].is_displayed()
