"""Writes the files that fuzzing starts from, beside itself.

    python make.py

Needs pillow and pyarrow.
"""

import gzip
import io
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = Path(__file__).parent


def picture(form, **options):
    image = Image.new("RGB", (6, 4))
    image.putdata([(40 * x, 60 * y, 128) for y in range(4) for x in range(6)])
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def parquet(**options):
    image = pa.array([{"bytes": picture("PNG"), "path": None}, None])
    table = pa.table({"image": image, "label": pa.array([1, 0])})
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def main():
    rotated = Image.Exif()
    rotated[0x0112] = 6
    idx = struct.pack(">IIII", 0x803, 2, 2, 3) + bytes(range(0, 240, 20))
    files = {
        "idx/images": idx,
        "idx/images.gz": gzip.compress(idx, mtime=0),
        "idx/labels": struct.pack(">II", 0x801, 3) + bytes([2, 0, 1]),
        "image/plain.jpg": picture("JPEG"),
        "image/rotated.jpg": picture("JPEG", exif=rotated.tobytes()),
        "image/progressive.jpg": picture("JPEG", progressive=True),
        "image/plain.png": picture("PNG"),
        "image/plain.webp": picture("WEBP"),
        "parquet/plain": parquet(compression="none"),
        "parquet/snappy": parquet(compression="snappy", use_dictionary=False),
        "parquet/zstd": parquet(compression="zstd", data_page_version="2.0"),
    }
    for name, data in files.items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_bytes(data)
        print(name, len(data))


main()
