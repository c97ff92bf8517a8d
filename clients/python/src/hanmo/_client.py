"""The client that blocks."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Self, Unpack

import grpc

from hanmo import _channel, _requests
from hanmo._channel import Tls
from hanmo._events import Event, PictureEvent, PictureReader, Reader, Result, TextEvent, TextReader
from hanmo._models import Model, ModelDescription, description_from_proto, models_from_proto
from hanmo._requests import CallOptions, Metadata, Part, PictureOptions, TextOptions
from hanmo._results import PictureResult, TextResult, picture_result, text_result
from hanmo._retry import DEFAULT_POLICY, Attempts, RetryPolicy
from hanmo.v1 import generation_pb2, generation_pb2_grpc, models_pb2, models_pb2_grpc


class _Stream(Generic[Event, Result]):
    """Events of a request as they come, the last of them its result.

    Leaving a `with` block, `close()`, and dropping the stream cancel the request on the server. One
    thread reads; any may close.
    """

    request_id: str
    """For `Client.cancel`, and in the server's logs."""

    def __init__(
        self,
        reader: Reader[Event, Result],
        start: Callable[[], Any],
        attempts: Attempts,
        request_id: str,
    ) -> None:
        self.request_id = request_id
        self._reader = reader
        self._start = start
        self._attempts = attempts
        self._pending: deque[Event] = deque()
        self._began = False
        self._ended = threading.Event()
        self._lock = threading.Lock()  # so that no attempt begins after close()
        self._call = start()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while True:
            if self._pending:
                return self._pending.popleft()
            message = self._receive()
            if message is None:
                self._ended.set()
                raise StopIteration
            self._pending.extend(self._reader.read(message))

    def _receive(self) -> generation_pb2.GenerateStreamResponse | None:
        while not self._ended.is_set():
            try:
                message: generation_pb2.GenerateStreamResponse = next(self._call)
                self._began = True
                return message
            except StopIteration:
                return None
            except grpc.RpcError as error:
                may_retry = not (self._began or self._ended.is_set())
                wait = self._attempts.wait_after(error, may_retry)
            self._ended.wait(wait)
            with self._lock:
                if not self._ended.is_set():
                    self._call = self._start()
        return None

    def result(self) -> Result:
        """Reads what is left and returns the result."""
        for _ in self:
            pass
        if self._reader.result is None:
            raise RuntimeError("the stream was closed before its end")
        return self._reader.result

    def close(self) -> None:
        with self._lock:
            self._ended.set()
            self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TextStream(_Stream[TextEvent, TextResult]):
    __doc__ = _Stream.__doc__


class PictureStream(_Stream[PictureEvent, PictureResult]):
    __doc__ = _Stream.__doc__


class Client:
    """A connection to a server, for any number of threads.

    `target` is HOST:PORT, `unix:PATH` or another name that gRPC knows; by default HANMO_SERVER of
    the environment, else localhost:8001. `tls` is False, True (trusting the system's certificates),
    a `Tls` or gRPC's own credentials. `timeout`, in seconds, bounds each call with all its
    attempts; `metadata`, such as ("authorization", "Bearer ..."), goes with each call; `tenant` and
    `priority` hold for requests that name none.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        tls: Tls | bool | grpc.ChannelCredentials = False,
        timeout: float | None = _channel.DEFAULT_TIMEOUT,
        retry: RetryPolicy = DEFAULT_POLICY,
        metadata: Metadata = (),
        tenant: str = "",
        priority: int = 0,
        channel_options: Iterable[tuple[str, Any]] = (),
    ) -> None:
        target = target or _channel.default_target()
        options = [*_channel.channel_options(target, tls), *channel_options]
        credentials = _channel.credentials(tls)
        self._channel = (
            grpc.secure_channel(target, credentials, options)
            if credentials
            else grpc.insecure_channel(target, options)
        )
        self._generation = generation_pb2_grpc.GenerationStub(self._channel)
        self._models = models_pb2_grpc.ModelsStub(self._channel)
        self._timeout = timeout
        self._retry = retry
        self._metadata = tuple(metadata)
        self._defaults = _requests.Defaults(tenant, priority)

    def generate_text(
        self, model: str, prompt: str | None = None, **options: Unpack[TextOptions]
    ) -> TextResult:
        """Writes to the end. The input is `prompt`, `messages`, `parts` or `token_ids`."""
        request = _requests.text_request(model, prompt, options, self._defaults)
        return text_result(self._call(self._generation.Generate, request, options))

    def stream_text(
        self, model: str, prompt: str | None = None, **options: Unpack[TextOptions]
    ) -> TextStream:
        """The same as a stream of `Queued`, `TextDelta` and, at the end, `TextResult`."""
        request = _requests.text_request(model, prompt, options, self._defaults)
        return TextStream(TextReader(), *self._open(request, options))

    def caption(
        self, model: str, picture: Part, begin: str = "", **options: Unpack[TextOptions]
    ) -> TextResult:
        """Writes what a picture shows: bytes of a file, its path or a PIL image. The text goes on
        from `begin`."""
        request = _requests.caption_request(model, picture, begin, options, self._defaults)
        return text_result(self._call(self._generation.Generate, request, options))

    def generate_picture(
        self, model: str, prompt: str | None = None, **options: Unpack[PictureOptions]
    ) -> PictureResult:
        """Paints to the end."""
        request = _requests.picture_request(model, prompt, options, self._defaults)
        return picture_result(self._call(self._generation.Generate, request, options))

    def stream_picture(
        self, model: str, prompt: str | None = None, **options: Unpack[PictureOptions]
    ) -> PictureStream:
        """The same as a stream of `Queued`, `StepDone`, `Preview`, `PictureFile` and, at the end,
        `PictureResult`."""
        request = _requests.picture_request(model, prompt, options, self._defaults)
        return PictureStream(PictureReader(), *self._open(request, options))

    def tokenize(
        self,
        model: str,
        text: str,
        *,
        add_special_tokens: bool = False,
        version: str | int = "",
        **options: Unpack[CallOptions],
    ) -> list[int]:
        """Token ids of `text`."""
        _requests.check_call_options(options)
        request = _requests.tokenize_request(model, text, add_special_tokens, version)
        return list(self._call(self._generation.Tokenize, request, options).ids)

    def detokenize(
        self,
        model: str,
        ids: Iterable[int],
        *,
        skip_special_tokens: bool = False,
        version: str | int = "",
        **options: Unpack[CallOptions],
    ) -> str:
        """The text of token ids. Bytes that form no whole character become U+FFFD."""
        _requests.check_call_options(options)
        request = _requests.detokenize_request(model, ids, skip_special_tokens, version)
        return str(self._call(self._generation.Detokenize, request, options).text)

    def cancel(self, request_id: str, **options: Unpack[CallOptions]) -> int:
        """Ends the requests of this id, wherever they were made, and tells how many;
        NotFoundError when there is none."""
        _requests.check_call_options(options)
        request = generation_pb2.CancelRequest(request_id=request_id)
        return int(self._call(self._generation.Cancel, request, options).requests)

    def list_models(self, **options: Unpack[CallOptions]) -> list[Model]:
        """All of the repository, by name."""
        _requests.check_call_options(options)
        request = models_pb2.ListModelsRequest()
        return models_from_proto(self._call(self._models.ListModels, request, options))

    def describe_model(
        self, model: str, *, version: str | int = "", **options: Unpack[CallOptions]
    ) -> ModelDescription:
        """Limits, defaults and state."""
        _requests.check_call_options(options)
        request = _requests.describe_request(model, version)
        return description_from_proto(self._call(self._models.DescribeModel, request, options))

    def close(self) -> None:
        """Ends the connection and every call on it."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _attempts(self, options: CallOptions) -> tuple[Attempts, Metadata]:
        attempts = Attempts(self._retry, options.get("timeout", self._timeout))
        return attempts, (*self._metadata, *options.get("metadata", ()))

    def _call(self, method: Any, request: Any, options: CallOptions) -> Any:
        attempts, metadata = self._attempts(options)
        while True:
            try:
                return attempts.start(method, request, metadata)
            except grpc.RpcError as error:
                time.sleep(attempts.wait_after(error))

    def _open(
        self, request: generation_pb2.GenerateRequest, options: CallOptions
    ) -> tuple[Callable[[], Any], Attempts, str]:
        attempts, metadata = self._attempts(options)

        def start() -> Any:
            return attempts.start(self._generation.GenerateStream, request, metadata)

        return start, attempts, request.request_id
