"""Serves a live report to the browsers of this machine, read only.

It listens on the loopback interface alone. The address has a secret part, so that other users of the machine cannot read the report. A
request must name this machine as its host: a page from elsewhere, whose own host name was made to resolve to this machine, does not.
"""

import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources

from eva_stages.core.errors import describe
from eva_stages.publishing.live_report import LiveReport

ADDRESS = "127.0.0.1"
PORT = 8770
"""The preferred port; another one where it is taken."""
HOSTS = (ADDRESS, "localhost")
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class ReportServer(ThreadingHTTPServer):
    """Call `serve_forever` to serve, `server_close` to end."""

    daemon_threads = True

    def __init__(self, live_report: LiveReport, port: int = PORT) -> None:
        self.live_report = live_report
        self.secret = secrets.token_urlsafe(12)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError:  # the port is taken
            super().__init__((ADDRESS, 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/{self.secret}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer
    server_version, sys_version = "eva", ""

    def do_GET(self) -> None:
        if self.headers.get("Host", "").partition(":")[0] not in HOSTS:  # any port: it may be forwarded
            return self._reply(HTTPStatus.FORBIDDEN, "This address is for browsers on this machine.")
        folder, slash, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(folder.encode(), self.server.secret.encode()):
            return self._reply(HTTPStatus.NOT_FOUND, "Open the address that eva report --watch printed.")
        try:
            match name:
                case "":
                    self._reply(HTTPStatus.OK, *self.server.live_report.page(), kind="text/html")
                case "report":
                    self._reply(HTTPStatus.OK, *self.server.live_report.report(), kind="text/html")
                case "status":
                    self._reply(HTTPStatus.OK, *self.server.live_report.status(), kind="text/html")
                case "live.js":
                    script = (resources.files("hub_cards") / "live.js").read_text(encoding="utf-8")
                    self._reply(HTTPStatus.OK, script, kind="text/javascript")
                case _:
                    self._reply(HTTPStatus.NOT_FOUND, "There is no such page.")
        except ConnectionError:  # the browser has closed the page
            pass
        except Exception as error:  # a file may vanish while a repair rebuilds it; the next request tries again
            self._reply(HTTPStatus.SERVICE_UNAVAILABLE, describe(error))

    def _reply(self, code: HTTPStatus, text: str, version: str = "", kind: str = "text/plain") -> None:
        content = text.encode()
        self.send_response(code)
        for name, value in {**HEADERS, "Content-Type": f"{kind}; charset=utf-8", "X-Version": version}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""
