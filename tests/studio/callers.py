"""Programs that ask a studio over plain HTTP, with and without manners."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from browser import Server


class Caller:
    """Somebody with a socket.

    Args:
        server: the studio.
    """

    def __init__(self, server: Server):
        self.place, self.asked = urlsplit(server.url).netloc, 0

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        """Status and text of an answer."""
        self.asked += 1
        line = http.client.HTTPConnection(self.place, timeout=30)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            line.putrequest(method, path, skip_host="host" in headers, skip_accept_encoding=True)
            if body is not None:
                headers = {"content-type": "application/json", "content-length": str(len(body)), **headers}
            for name, value in headers.items():
                line.putheader(name, value)
            line.endheaders(body)
            answer = line.getresponse()
            return answer.status, answer.read(5_000_000).decode("utf-8", "replace")
        finally:
            line.close()

    def call(self, name: str, values: list[Any]) -> str:
        """All that a call of an endpoint answers."""
        found, text = self.ask("POST", f"/gradio_api/call/{name}", json.dumps({"data": values}).encode())
        if found != 200:
            return text
        return text + self.ask("GET", f"/gradio_api/call/{name}/{json.loads(text)['event_id']}")[1]

    def works(self) -> bool:
        """Whether a good request is answered with a picture."""
        return '"png": "' in self.call("generate", ["first", "star", 1, 3, "ddim", "", 2, 1.0])
