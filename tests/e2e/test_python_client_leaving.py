"""The Python client: whoever leaves a call, in whatever way, frees the server."""

import asyncio
import contextlib
import gc
import threading

import pytest
from calls import LANDSCAPE, PAINTER
from observe import PATIENCE, until
from python_calls import ENDLESS, begin, run

import hanmo


def cancelled(server):
    return server.metrics().sum("hanmo_cancelled_total", model=PAINTER)


def leave_block(client):
    with client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS) as stream:
        begin(stream)
    assert list(stream) == []
    with pytest.raises(RuntimeError, match="closed before its end"):
        stream.result()


def drop(client):
    begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    gc.collect()


def cancel_by_id(client):
    stream = begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    assert client.cancel(stream.request_id) == 1
    with pytest.raises(hanmo.RequestCancelledError, match="by its request id"):
        stream.result()


def close_in_another_thread(client):
    stream = begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    closer = threading.Thread(target=stream.close)
    closer.start()
    with contextlib.suppress(hanmo.RequestCancelledError):  # unless it was closed before the read
        for _ in stream:
            pass
    closer.join()


@pytest.mark.parametrize("leave", [leave_block, drop, cancel_by_id, close_in_another_thread])
def test_leaving_cancels_on_the_server(tiny_server, leave):
    before = cancelled(tiny_server)
    with hanmo.Client(tiny_server.address, timeout=PATIENCE) as client:
        leave(client)
        tiny_server.wait_idle()
        assert cancelled(tiny_server) == before + 1


async def async_leave_block(client):
    async with client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS) as stream:
        await async_begin(stream)
    assert [event async for event in stream] == []


async def async_drop(client):
    await async_begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    gc.collect()


async def async_cancel_by_id(client):
    stream = await async_begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    assert await client.cancel(stream.request_id) == 1
    with pytest.raises(hanmo.RequestCancelledError, match="by its request id"):
        await stream.result()


async def async_cancel_reader(client):
    stream = await async_begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    reader = asyncio.create_task(stream.result())
    await asyncio.sleep(0)  # it waits for the next event
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader


async def async_close_while_reading(client):
    stream = await async_begin(client.stream_picture(PAINTER, LANDSCAPE, **ENDLESS))
    reader = asyncio.create_task(stream.result())
    await asyncio.sleep(0)
    stream.close()
    with pytest.raises((hanmo.RequestCancelledError, RuntimeError)):
        await reader


async def async_begin(stream):
    async for event in stream:
        if isinstance(event, hanmo.StepDone):
            return stream
    raise AssertionError("the stream ended")


@pytest.mark.parametrize(
    "leave",
    [
        async_leave_block,
        async_drop,
        async_cancel_by_id,
        async_cancel_reader,
        async_close_while_reading,
    ],
)
def test_leaving_cancels_on_the_server_with_asyncio(tiny_server, leave):
    before = cancelled(tiny_server)

    async def main():
        async with hanmo.AsyncClient(tiny_server.address, timeout=PATIENCE) as client:
            await leave(client)
            await asyncio.to_thread(tiny_server.wait_idle)
            assert cancelled(tiny_server) == before + 1

    run(main())


def test_a_cancelled_task_cancels_its_request(tiny_server):
    before = cancelled(tiny_server)

    async def main():
        async with hanmo.AsyncClient(tiny_server.address, timeout=PATIENCE) as client:
            task = asyncio.create_task(client.generate_picture(PAINTER, LANDSCAPE, **ENDLESS))
            running = lambda: tiny_server.metrics().sum("hanmo_requests_running") == 1  # noqa: E731
            await asyncio.to_thread(until, running, "it runs")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(tiny_server.wait_idle)
            assert cancelled(tiny_server) == before + 1

    run(main())


def test_a_deadline_passes(tiny_server):
    with hanmo.Client(tiny_server.address) as client:
        with pytest.raises(hanmo.DeadlineExceededError):
            client.generate_picture(PAINTER, LANDSCAPE, timeout=0.3, **ENDLESS)
        with pytest.raises(hanmo.DeadlineExceededError):
            client.stream_picture(PAINTER, LANDSCAPE, timeout=0.3, **ENDLESS).result()
    tiny_server.wait_idle()
