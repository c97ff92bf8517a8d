"""Making requests and taking answers apart."""

import dataclasses
import io

import grpc
import numpy as np
from contract import error_details_pb2, generation_pb2, status_pb2
from observe import PATIENCE
from PIL import Image

PAINTER = "taiyi-sd-tiny"
POET = "wenzhong-gpt2-tiny"
BRUSH = "ernie-vilg"
LANDSCAPE = "一幅水墨画，江上孤舟，远处青山两座，天上一轮红日"
POEM = "写一首关于秋山的五言绝句"

PNG = generation_pb2.PICTURE_FORMAT_PNG
JPEG = generation_pb2.PICTURE_FORMAT_JPEG
WEBP = generation_pb2.PICTURE_FORMAT_WEBP
EOS = generation_pb2.FINISH_REASON_EOS
STOP = generation_pb2.FINISH_REASON_STOP
LENGTH = generation_pb2.FINISH_REASON_LENGTH


def picture_request(prompt=LANDSCAPE, model=PAINTER, request_id="", **parameters):
    """Small and quick unless the caller asks for more."""
    parameters = {"width": 64, "height": 64, "steps": 4} | parameters
    return generation_pb2.GenerateRequest(
        model=model,
        request_id=request_id,
        prompt=prompt,
        picture=generation_pb2.PictureParameters(**parameters),
    )


def text_request(prompt=POEM + "\n", model=POET, request_id="", **parameters):
    return generation_pb2.GenerateRequest(
        model=model,
        request_id=request_id,
        prompt=prompt,
        text=generation_pb2.TextParameters(**parameters),
    )


def caption_request(file, begin="", request_id="", **parameters):
    """A text about the picture in `file`, bytes."""
    parts = [generation_pb2.Part(picture=generation_pb2.InputPicture(data=file))]
    if begin:
        parts.append(generation_pb2.Part(text=begin))
    return generation_pb2.GenerateRequest(
        model=BRUSH,
        request_id=request_id,
        parts=generation_pb2.Parts(parts=parts),
        text=generation_pb2.TextParameters(**parameters),
    )


def painting_request(prompt="一丁七", request_id="", **parameters):
    """A picture painted by tokens."""
    return generation_pb2.GenerateRequest(
        model=BRUSH,
        request_id=request_id,
        prompt=prompt,
        picture=generation_pb2.PictureParameters(**parameters),
    )


def file_of(rgb, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, kind)
    return file.getvalue()


def chat_request(*turns, model=POET, **parameters):
    """Turns are (role, content) pairs."""
    messages = [generation_pb2.ChatMessage(role=role, content=content) for role, content in turns]
    return generation_pb2.GenerateRequest(
        model=model,
        chat=generation_pb2.Chat(messages=messages),
        text=generation_pb2.TextParameters(**parameters),
    )


def with_thinking(request, thinking):
    """The conversation with the switch set; None leaves it as it is."""
    if thinking is not None:
        request.chat.thinking = thinking
    return request


def ids_request(ids, model, **parameters):
    """A text from token ids."""
    return generation_pb2.GenerateRequest(
        model=model,
        token_ids=generation_pb2.TokenIds(ids=ids),
        text=generation_pb2.TextParameters(**parameters),
    )


def generate(server, request, timeout=PATIENCE):
    return server.generation.Generate(request, timeout=timeout)


def write(server, request):
    """The one text that `request` makes."""
    (output,) = generate(server, request).outputs
    return output.text


def paint(server, request):
    """The one picture that `request` makes."""
    (output,) = generate(server, request).outputs
    return output.picture


def pixels(data):
    """An encoded picture as uint8 [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


@dataclasses.dataclass
class Streamed:
    """All events of one stream."""

    events: list
    final: generation_pb2.GenerateResponse | None = None

    def of(self, kind):
        return [getattr(event, kind) for event in self.events if event.WhichOneof("event") == kind]

    def text(self, index=0):
        return "".join(delta.text for delta in self.of("text") if delta.index == index)

    def token_ids(self, index=0):
        return [i for delta in self.of("text") if delta.index == index for i in delta.token_ids]

    def picture(self, index=0):
        return b"".join(chunk.data for chunk in self.of("picture") if chunk.index == index)


def stream(server_or_stub, request, timeout=PATIENCE):
    """The whole stream of `request`, read to its end."""
    stub = getattr(server_or_stub, "generation", server_or_stub)
    result = Streamed(list(stub.GenerateStream(request, timeout=timeout)))
    finals = result.of("final")
    assert len(finals) == 1 and result.events[-1].WhichOneof("event") == "final"
    result.final = finals[0]
    return result


def outputs(response):
    """What must not depend on company or accidents: per output the bytes and how it ended."""
    return [
        (o.picture.data, o.picture.seed)
        if o.HasField("picture")
        else (o.text.text, tuple(o.text.token_ids), o.text.finish_reason, o.text.seed)
        for o in response.outputs
    ]


# Errors.


def error_of(call, *arguments, **options):
    """The gRPC error that `call` ends with."""
    try:
        result = call(*arguments, **options)
        if hasattr(result, "__next__"):
            result = list(result)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"expected an error, got {result}")


def error_details(error):
    """The google.rpc details of an error, by type name."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    found = {}
    for any_message in status.details:
        for kind in (error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            if any_message.Is(kind.DESCRIPTOR):
                message = kind()
                any_message.Unpack(message)
                found[kind.DESCRIPTOR.name] = message
    return found


def violations(error):
    """Field -> description of a BadRequest."""
    bad = error_details(error).get("BadRequest")
    return {v.field: v.description for v in bad.field_violations} if bad else {}
