"""A gate before a real service: open it passes bytes, shut it refuses, silent it takes bytes and never answers."""

import socket
import threading
from contextlib import suppress


class Gate:
    """A TCP relay on a free port of 127.0.0.1. Shutting it cuts what is connected, as a killed service would."""

    def __init__(self, host: str, port: int):
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._open, self._silent = True, False
        threading.Thread(target=self._accept, daemon=True).start()

    def open(self) -> None:
        self._open, self._silent = True, False

    def shut(self) -> None:
        self._open = False
        self._cut()

    def silence(self) -> None:
        """New connections are taken and never answered; the present ones are cut."""
        self._silent = True
        self._cut()

    def close(self) -> None:
        self.shut()
        self._listener.close()

    def _cut(self) -> None:
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._connections.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            if not self._open:
                client.close()
                continue
            with self._lock:
                self._connections.append(client)
            if not self._silent:
                try:
                    service = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._connections.append(service)
                threading.Thread(target=self._relay, args=(client, service), daemon=True).start()
                threading.Thread(target=self._relay, args=(service, client), daemon=True).start()

    @staticmethod
    def _relay(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
