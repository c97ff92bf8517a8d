"""A TCP relay whose clients read as slowly as a bad line: one byte a second."""

import selectors
import socket
import threading
import time


class Drip:
    """Relays 127.0.0.1:`port` to `target` ("HOST:PORT"). Until slow_down() it hands on what comes; from then on
    one byte a second of each answer, however much the server would send. close() ends all connections."""

    RECEIVE_BUFFER = 4096  # bytes; what the kernel takes in addition is the server's loss

    def __init__(self, target):
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._answers = []  # (server's socket, client's socket)
        self._slow = self._closed = False
        self.dripped = 0  # bytes handed on since slow_down()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def slow_down(self):
        self._slow = True

    def close(self):
        self._closed = True
        self._thread.join()

    def _accept(self):
        client, _ = self._listener.accept()
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.RECEIVE_BUFFER)
        server.connect(self._target)
        self._selector.register(client, selectors.EVENT_READ, (server, False))
        self._selector.register(server, selectors.EVENT_READ, (client, True))
        self._answers.append((server, client))

    def _relay(self, key, most):
        sink, _ = key.data
        data = key.fileobj.recv(most)
        if data:
            sink.sendall(data)
        else:
            self._selector.unregister(key.fileobj)
        return len(data)

    def _run(self):
        next_byte = 0.0
        while not self._closed:
            if self._slow and time.monotonic() >= next_byte:
                next_byte = time.monotonic() + 1
                for server, client in self._answers:
                    try:
                        one = server.recv(1, socket.MSG_DONTWAIT)
                    except BlockingIOError:
                        continue
                    self.dripped += len(one)
                    client.sendall(one)
            for key, _ in self._selector.select(timeout=0.1):
                if key.fileobj is self._listener:
                    self._accept()
                    continue
                _, answers = key.data
                if not (self._slow and answers):
                    self._relay(key, 65536)
                else:
                    self._selector.unregister(key.fileobj)  # read above
        for pair in self._answers:
            for one in pair:
                one.close()
        self._listener.close()
