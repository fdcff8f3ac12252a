"""An HTTPS server for the drivers that speak plain requests: FCM, Web Push, the vendors. Answers as the test tells it, remembers what it was asked."""
import http.server
import json
import queue
import ssl
import threading
import time
import urllib.parse


class Request:
    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def form(self):
        return dict(urllib.parse.parse_qsl(self.body.decode(), strict_parsing=True))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        self.server.standin.requests.put(request)
        answer = self.server.standin.answer(request)
        if answer is None:  # the connection falls
            self.close_connection = True
            self.connection.close()
            return
        status, headers, body = answer
        body = json.dumps(body).encode() if isinstance(body, (dict, list)) else body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k, v)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass  # a client that goes away is part of the tests


class Standin:
    """routes: [(beginning of the path, function(request) -> (status, headers, body) or None)], the first that fits."""

    def __init__(self, certificate):
        self.requests, self.routes = queue.Queue(), []
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.standin = self
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(certificate))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        self.url = f"https://localhost:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()

    def route(self, path, answer):
        """answer: what every request gets, or a function."""
        self.routes.insert(0, (path, answer if callable(answer) else lambda request: answer))

    def answer(self, request):
        for path, answer in self.routes:
            if request.path.startswith(path):
                return answer(request)
        return 404, {}, b""

    def next(self, path="/", timeout=10):
        end = time.monotonic() + timeout
        while True:
            request = self.requests.get(timeout=max(0.01, end - time.monotonic()))
            if request.path.startswith(path):
                return request

    def count(self, path):
        return sum(r.path.startswith(path) for r in list(self.requests.queue))
