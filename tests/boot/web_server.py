"""A web server on the host's loopback address, for a guest to fetch from: it serves one file of random bytes."""
import hashlib
import http.server
import os
import threading


class WebServer:
    def __init__(self, size):
        content = os.urandom(size)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header('Content-Length', str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *unused):
                pass

        self.sha256 = hashlib.sha256(content).hexdigest()
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://10.0.2.2:{self.server.server_port}/file'  # as the guest sees it
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
