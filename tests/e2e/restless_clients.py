"""Clients that end their calls at every moment of a request's life, and a record of what they saw."""

import contextlib
import dataclasses
import os
import random
import signal
import socket
import threading
from concurrent import futures

import grpc
from calls import JPEG, PNG, WEBP, outputs, picture_request, text_request
from contract import generation_pb2, generation_pb2_grpc
from mixed_load import PROMPTS, SAMPLERS

CONNECTIONS, CLIENTS = 6, 32
UNHURRIED = 3600  # seconds, where the deadline is no part of the test; a busy machine is slow
# What a client does not read soon waits in the server: every third connection.
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1))


def menu():
    """Requests of every kind: that share batches and pages, that are cut into slices, that take
    a while to encode."""
    requests = [
        picture_request(
            seed=i,
            steps=1 + (3 * i) % 8,
            sampler=SAMPLERS[i % 7],
            guidance=(1.0, 4.0)[i % 2],
            count=1 + (i % 4 == 0),
            preview_every_steps=(i % 3 == 0) * 2,
            format=(JPEG, WEBP, PNG)[i % 3],
        )
        for i in range(9)
    ]
    requests += [
        picture_request(seed=20, steps=6, width=128, height=128),
        picture_request(seed=21, steps=2, width=192, height=192, format=WEBP),
    ]
    verses = "，".join(PROMPTS)
    return requests + [
        text_request(
            verses[: 1 + (7 * i) % len(verses)],
            seed=i,
            n=1 + (i % 4 == 0),
            max_tokens=1 + (17 * i) % 70,
            temperature=(0.0, 0.7, 1.0)[i % 3],
            logprobs=(20, 0)[i % 2],
            ignore_eos=i % 2 == 0,
        )
        for i in range(14)
    ]


def cut_a_wire(port, draw):
    """Ends one of our TCP connections to `port` under gRPC's feet: no side is told why."""
    ours = []
    with contextlib.ExitStack() as stack:
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    continue
                one = stack.enter_context(socket.socket(fileno=os.dup(int(name))))
                if one.getpeername()[1] == port:
                    ours.append(one)
        if ours:
            with contextlib.suppress(OSError):
                draw.choice(ours).shutdown(socket.SHUT_RDWR)


class Connection:
    """One that many calls share; the next is made when it was closed."""

    def __init__(self, server, options):
        self._new = lambda: server.new_channel(*options)
        self._lock = threading.Lock()
        self._channel = self._new()

    def stub(self):
        with self._lock:
            return generation_pb2_grpc.GenerationStub(self._channel)

    def close(self):
        with self._lock:
            self._channel.close()
            self._channel = self._new()


@dataclasses.dataclass
class Seen:
    """What became of one call, as its client knows it."""

    fate: str
    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    kept: bool = True  # what came is what a lone run gives, as far as it came


def kept_promise(events, lone, whole):
    """Whether what was streamed is, as far as it came or `whole`, what a lone run gives."""
    for index, output in enumerate(lone.outputs):
        ids, data = [], b""
        for event in events:
            if event.HasField("text") and event.text.index == index:
                ids += event.text.token_ids
            elif event.HasField("picture") and event.picture.index == index:
                data += event.picture.data
        all_ids, all_data = list(output.text.token_ids), output.picture.data
        if whole and (len(ids), len(data)) != (len(all_ids), len(all_data)):
            return False
        if ids != all_ids[: len(ids)] or data != all_data[: len(data)]:
            return False
    return True


class RestlessClients:
    """`lone` are the answers to menu() on an idle server. What became of request "r7" is seen[7]."""

    def __init__(self, server, lone, seed):
        self._server, self._lone, self._seed = server, lone, seed
        self._menu = menu()
        self._port = int(server.address.rpartition(":")[2])
        self._connections = [
            Connection(server, SMALL_WINDOW if i % 3 == 0 else ()) for i in range(CONNECTIONS)
        ]
        self.seen = {}

    def play(self, count, kill_worker=False):
        """`count` more requests, to their ends; in the middle of them one worker may be killed."""
        first = len(self.seen)
        killing = first + count // 2 if kill_worker else None
        with futures.ThreadPoolExecutor(CLIENTS) as pool:
            for number, seen in pool.map(
                lambda n: (n, self._play(n, n == killing)), range(first, first + count)
            ):
                self.seen[number] = seen

    def _play(self, number, kill):
        draw = random.Random(f"{self._seed} {number}")
        if kill:
            os.kill(draw.choice(self._server.worker_pids()), signal.SIGKILL)
        choice = draw.randrange(len(self._menu))
        request = generation_pb2.GenerateRequest()
        request.CopyFrom(self._menu[choice])
        request.request_id = f"r{number}"
        connection = self._connections[number % CONNECTIONS]
        play = draw.choice((self._unary, self._stream))
        while True:
            try:
                seen = play(connection.stub(), request, self._lone[choice], draw)
            except ValueError:  # closed by another client before the call began
                continue
            break
        # What it shares with others goes with it.
        chance = draw.random()
        if chance < 0.005:
            connection.close()
        elif chance < 0.01:
            cut_a_wire(self._port, draw)
        return seen

    def _unary(self, stub, request, lone, draw):
        seen = Seen(draw.choice(("finish", "cancel", "cancel", "deadline", "deadline")))
        deadline = seen.fate == "deadline"
        call = stub.Generate.future(
            request, timeout=draw.expovariate(1 / 0.3) if deadline else UNHURRIED
        )
        # Most of them in the queue or at work, some while encoding.
        leave_after = draw.choice((0, draw.expovariate(1 / 0.2)))
        try:
            answer = call.result(timeout=leave_after if seen.fate == "cancel" else None)
            seen.kept = outputs(answer) == outputs(lone)
        except grpc.FutureTimeoutError:
            call.cancel()
            seen.code = grpc.StatusCode.CANCELLED
        except grpc.FutureCancelledError:
            seen.code = grpc.StatusCode.CANCELLED
        except grpc.RpcError as error:
            seen.code, seen.details = error.code(), error.details()
        return seen

    def _stream(self, stub, request, lone, draw):
        fates = ("finish", "cancel", "cancel at the last step", "cancel at the picture", "deadline")
        seen = Seen(draw.choice(fates))
        deadline = seen.fate == "deadline"
        leave_at = draw.choice((0, 1, 2, draw.randrange(3, 60)))
        last = request.text.max_tokens
        events, tokens = [], 0
        call = stub.GenerateStream(
            request, timeout=draw.expovariate(1 / 0.3) if deadline else UNHURRIED
        )
        try:
            for event in call:
                events.append(event)
                tokens += len(event.text.token_ids)
                at_last_step = tokens == last if last else event.step.steps == event.step.step > 0
                if (
                    (seen.fate == "cancel" and len(events) > leave_at)
                    or (seen.fate == "cancel at the last step" and at_last_step)
                    or (seen.fate == "cancel at the picture" and event.HasField("picture"))
                ):
                    call.cancel()
        except grpc.RpcError as error:
            seen.code, seen.details = error.code(), error.details()
        seen.kept = kept_promise(events, lone, whole=seen.code == grpc.StatusCode.OK)
        return seen
