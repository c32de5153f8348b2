"""Uses a server as OpenAI's client does, plain and streamed. Called by check_server.sh with the server's URL."""

import base64
import struct
import sys
import zlib

import openai


def size(png):
    """Width and height of a PNG file whose pixels can be read."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data = 8, b""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    width, height = struct.unpack(">II", png[16:24])
    assert len(zlib.decompress(data)) == height * (width + 1), "a grey picture"
    return width, height


def main(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["mnist"]

    extra = {"steps": 4, "seed": "18446744073709551615"}
    ask = dict(model="mnist", prompt="7", extra_body=extra)
    answer = client.images.generate(n=2, size="auto", **ask)
    first, second = (base64.b64decode(image.b64_json) for image in answer.data)
    assert size(first) == (28, 28) and size(second) == (28, 28) and first != second
    again = client.images.generate(**ask).data[0]
    assert base64.b64decode(again.b64_json) == first, "the seed gives the picture again"

    events = list(client.images.generate(stream=True, partial_images=2, **ask))
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"], kinds
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert base64.b64decode(events[-1].b64_json) == first and events[-1].usage.total_tokens == 0
    assert all(size(base64.b64decode(event.b64_json)) == (28, 28) for event in events)

    try:
        client.images.generate(model="mnist", prompt="a horse")
    except openai.UnprocessableEntityError as error:
        assert error.param == "prompt" and "a horse" in error.message, error
    else:
        raise AssertionError("a class that the model does not have")
    print("OpenAI's client: plain, streamed and refused as expected")


if __name__ == "__main__":
    main(sys.argv[1])
