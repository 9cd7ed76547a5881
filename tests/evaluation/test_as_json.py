"""The numbers of an evaluation in JSON, by hand; and that the page describes each field."""

import json
import re

import numpy as np

from polynet_keras.evaluation.as_json import comparison_as_json, evaluation_as_json
from polynet_keras.evaluation.comparing import Comparison
from polynet_keras.evaluation.metrics import Counts
from polynet_keras.evaluation.paired import Paired
from polynet_keras.evaluation.results import COLUMNS
from tests.documents import ROOT
from tests.evaluation.test_report import evaluation_of


def an_evaluation(**fields):
    """Of classes a, b, c and d: nobody is of c or d, and nobody was taken for d."""
    counts = Counts.of(np.eye(4)[[1, 1, 0, 2, 1]], np.array([0, 0, 0, 1, 1]))
    return evaluation_of(counts, ["a", "b", "c", "d"], protocol='{"image_size": 32}', **fields)


def test_values():
    evaluation = an_evaluation(macs=0, parameters=0, seconds=0.0)
    evaluation.skipped.update({7: "b.png: no", 3: "a.png: no"})
    document = json.loads(json.dumps(evaluation_as_json(evaluation), allow_nan=False))
    result = document["result"]
    assert list(result) == list(COLUMNS)
    assert (result["images"], result["top1_hits"], result["top1"]) == (5, 2, 40)
    assert result["protocol"] == {"image_size": 32}
    unknown = ("parameters", "macs", "seconds", "images_per_second")
    assert [result[name] for name in unknown] == [None] * 4
    assert [list(of_class.values()) for of_class in document["classes"]] == [
        ["a", 3, 1, 1, 1.0, 1 / 3, 0.5],
        ["b", 2, 3, 1, 1 / 3, 0.5, 0.4],
        ["c", 0, 1, 0, 0.0, None, 0.0],
        ["d", 0, 0, 0, None, None, None],
    ]
    assert document["means"] == {"precision": (1 + 1 / 3) / 3, "recall": (1 / 3 + 0.5) / 2, "f1": 0.9 / 3}
    assert document["confusion"] == [[1, 2, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert document["skipped"] == [{"index": 3, "reason": "a.png: no"}, {"index": 7, "reason": "b.png: no"}]
    assert evaluation_as_json(an_evaluation())["result"]["macs"] == 5678


def test_a_comparison():
    document = comparison_as_json(Comparison(an_evaluation(), an_evaluation(model="b"), Paired(80, 1, 9, 10)))
    document = json.loads(json.dumps(document, allow_nan=False))
    assert document["against"]["result"]["model"] == "b"
    found = document["comparison"]
    assert (found["images"], found["both_right"], found["both_wrong"]) == (100, 80, 10)
    assert (found["model_only"], found["against_only"], found["difference"], found["better"]) == (1, 9, -8, "against")
    assert found["difference_low"] < -8 < found["difference_high"] < 0
    assert round(found["p_value"], 4) == 0.0215


def test_the_page_describes_each_field():
    page = (ROOT / "docs" / "evaluation.md").read_text()
    described = set(re.findall(r"^\| `(\w+)", page, re.MULTILINE))
    document = comparison_as_json(Comparison(an_evaluation(), an_evaluation(), Paired(80, 1, 9, 10)))
    names = {*document, *document["classes"][0], *document["comparison"], "index", "reason"}
    assert names <= described, names - described
