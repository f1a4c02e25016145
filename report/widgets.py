"""Widgets of executed notebooks, laid out for a site: what they hold becomes files that a page fetches on demand.

In a notebook a widget is one piece of HTML with its data, style and scripts. Here the data, and each large part of
them, become files beside the notebook's pictures; published weights are copied, in 8 bits where half precision is too
large; style and scripts are those that ``report/extract.py`` lays beside. Needs Python's standard library alone.
"""

from __future__ import annotations

import array
import base64
import gzip
import hashlib
import json
import math
import re
import struct
import zipfile
from pathlib import Path

WIDGET = re.compile(
    r'(<div class="widget" data-widget="\w+")>(.*?)<script type="application/json">(.*?)</script></div>\n'
    r'<style>.*?</style>\n<script type="module">.*?</script>', re.DOTALL)
PICTURE = re.compile(r'src="data:image/png;base64,([^"]+)"')
FOLDER = "report/executed/widgets/"
"""Of the style and the scripts; addresses of data are seen from here."""
LARGEST = 2_000_000
"""Bytes of a model's weights, as they are sent."""
NEEDS_SERVER = ('<script>if (location.protocol === "file:") document.currentScript.previousElementSibling'
                '.querySelector("p").textContent = "A browser runs this on a page from a server only: make preview";'
                '</script>')
FLOATS = {"F16": ("e", 2), "F32": ("f", 4)}


def lay_out(html: str, root: Path, suite: str, label: str) -> tuple[str, dict[str, bytes]]:
    """HTML of a widget as a page shows it, with addresses from the root of the site, and the files that it needs.

    Args:
        html: an output of a notebook; anything else than a widget stays as it is.
        suite: of the notebook.
        label: of its cell, which names the widget in addresses.

    Raises:
        OSError: an archive of published weights that is not there.
        ValueError: weights that are not in it, or damaged.
    """
    files: dict[str, bytes] = {}

    def keep(content: bytes, suffix: str) -> str:
        name = f"{suite}/{label}-{hashlib.sha256(content).hexdigest()[:12]}{suffix}"
        files[f"report/executed/{name}"] = content
        return f"../{name}"

    def without_blobs(value: object) -> object:
        if isinstance(value, list):
            return [without_blobs(part) for part in value]
        if not isinstance(value, dict):
            return value
        if "gzip" in value:
            rest = {key: part for key, part in value.items() if key != "gzip"}
            return {**rest, "src": keep(gzip.decompress(base64.b64decode(value["gzip"])), ".bin")}
        if "file" in value:
            archive, _, member = value["file"].partition(".zip/")
            try:
                with zipfile.ZipFile(root / f"{archive}.zip") as weights:
                    content = weights.read(member)
            except (KeyError, zipfile.BadZipFile) as error:
                raise ValueError(f"{value['file']} cannot be read: {error}") from error
            name = f"report/executed/weights/{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
            files[name] = (root / name).read_bytes() if (root / name).exists() else smaller(content)
            return {"src": name.replace("report/executed", "..")}
        return {key: without_blobs(part) for key, part in value.items()}

    def replacement(match: re.Match) -> str:
        content = without_blobs(json.loads(match[3]))
        source = keep(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), ".json")
        inside = PICTURE.sub(lambda picture: 'src="/report/executed/'
                             f'{keep(base64.b64decode(picture[1]), ".png").removeprefix("../")}"', match[2])
        return (f'{match[1]} data-name="{label}" data-src="{source}">{inside}</div>\n{NEEDS_SERVER}\n'
                f'<link rel="stylesheet" href="/{FOLDER}widgets.css">\n'
                f'<script type="module" src="/{FOLDER}widgets.js"></script>')

    return WIDGET.sub(replacement, html), files


def smaller(weights: bytes) -> bytes:
    """A safetensors file, its matrices in 8 bits with a scale for each row where it would be larger than ``LARGEST``.

    What a model has beside its networks and its prior is small, and stays as it is.
    """
    if len(weights) <= LARGEST:
        return weights
    start = 8 + struct.unpack("<Q", weights[:8])[0]
    header, parts, made = json.loads(weights[8:start]), [], {}

    def add(name: str, dtype: str, shape: list[int], content: bytes) -> None:
        at = sum(map(len, parts))
        made[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(content)]}
        parts.append(content)

    header.pop("__metadata__", None)
    for name, tensor in sorted(header.items(), key=lambda item: len(item[1]["shape"]) > 1):
        first, last = tensor["data_offsets"]
        content = weights[start + first:start + last]
        if len(tensor["shape"]) < 2 or tensor["dtype"] not in FLOATS:
            add(name, tensor["dtype"], tensor["shape"], content)
            continue
        kind, size = FLOATS[tensor["dtype"]]
        values = struct.unpack(f"<{len(content) // size}{kind}", content)
        columns = math.prod(tensor["shape"][1:])
        scales, numbers = array.array("f"), array.array("b")
        for row in range(0, len(values), columns):
            scale = max(map(abs, values[row:row + columns])) / 127 or 1.0
            scales.append(scale)
            numbers.extend([round(value / scale) for value in values[row:row + columns]])
        add(f"{name}.scale", "F32", [len(scales)], struct.pack(f"<{len(scales)}f", *scales))
        add(name, "I8", tensor["shape"], numbers.tobytes())
    text = json.dumps(made, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(parts)
