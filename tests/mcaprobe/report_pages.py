"""Runs, masks, NaN maps and rows for a report, and a reader of the page that is not the one who wrote it."""

import base64
import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

import mcaprobe
from mcaprobe.__main__ import main
from mcaprobe.maps import save_volumes
from tests.mcaprobe.small_head import write_head
from tests.mcaprobe.small_models import HERE

SLICES = (7, 9, 11)
ROWS = {
    "skip.csv": "method,threshold,skipped_share,score,score_name,subject\nstock,,0,0.95,Dice,a\nstock,,0,0.93,Dice,b\n"
    "nan,1,0.25,0.94,Dice,a\nnan,1,0.35,0.92,Dice,b\nnan,0.5,0.5,0.9,Dice,a\nnan,0.5,0.5,0.7,Dice,b\n",
    "time.csv": "way,threads,seconds\nstock,1,8\nnan,1,2\nstock,2,5\nnan,2,2.5\n",
    "agree.csv": "layer,subject,dice,precision,recall,mcc,chance_dice\nunpool,a,0.5,0.6,0.7,0.4,0.1\n"
    "unpool,b,0.7,,0.9,-0.2,0.3\npool,a,,,,,\n",
    "other.csv": "name,value\nx,1\n<b>bold</b>,2\n",
}


def make_everything(folder: Path) -> dict[str, list[Path]]:
    """Make three slices of one head with masks of two of them, NaN maps of one layer, and rows; return their paths."""
    write_head(folder / "head.nii.gz")
    runs, masks = [], []
    for number in SLICES:
        run = folder / f"slice{number}"
        mcaprobe.run(f"{HERE}:build_small", folder / "head.nii.gz", out=run, samples=4, block=2, threads=1,
                     keep_moments="*", input_options={"size": (24, 24), "index": number})  # fmt: skip
        runs.append(run)
    for run in runs[:2]:
        masks.append(folder / f"masks_{run.name}")
        assert main(["mask", str(run), "--below", "20", "--out", str(masks[-1]), "--quiet"]) == 0
    nan = folder / "nan"
    nan.mkdir()
    for run, mask in zip(runs, masks, strict=False):
        result = mcaprobe.load(run)
        marked = mcaprobe.load_masks(mask, result)["unpool"].reduced("share").numpy()
        write_nan_map(nan, result, "unpool", moved(marked), run.name)
    for name, text in ROWS.items():
        (folder / name).write_text(text)
    return {"runs": runs, "masks": masks, "nan": [nan], "rows": [folder / name for name in ROWS]}


def moved(values: np.ndarray) -> np.ndarray:
    """Return an array three rows further, and nothing in its last columns: what agrees in part, and in no symmetry."""
    found = np.roll(values, 3, axis=0)
    found[:, -9:] = 0
    return found


def write_nan_map(folder: Path, result: mcaprobe.Result, layer: str, shares: np.ndarray, name: str) -> Path:
    """Write a NaN map as another package would."""
    affine, axis, space = result[layer].placed(shares.shape)
    path = folder / f"sub-head_label-{name}_desc-nan_probseg.nii.gz"
    save_volumes(path, shares[None].astype(np.float32), affine, "nan", axis=axis, space=space, top=1.0)
    about = {"Layer": layer, "Description": "NaN of a pooling, made for a test."}
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about))
    return path


@dataclass
class Page(HTMLParser):
    """Tags, texts and the data of a page."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    raw: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Page":
        page = cls()
        super(Page, page).__init__(convert_charrefs=True)
        page.feed(path.read_text(encoding="utf-8"))
        page.close()
        return page

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag in ("script", "style"):
            self.inside.append(f"{tag}:{dict(attrs).get('id', '')}")

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside.pop()

    def handle_data(self, data):
        if self.inside:
            self.raw.setdefault(self.inside[-1], []).append(data)
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self):
        return json.loads("".join(self.raw["script:data"]))


def decoded(png: str) -> np.ndarray:
    """Return the indices or grey levels of a PNG in base64."""
    return np.asarray(picture_of(png))


def picture_of(png: str) -> Image.Image:
    """Return the picture of a PNG in base64."""
    return Image.open(BytesIO(base64.b64decode(png)), formats=["PNG"])
