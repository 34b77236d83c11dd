"""Serves the pages beside this file."""

import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

pages = partial(SimpleHTTPRequestHandler, directory=Path(__file__).parent / "public")
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), pages).serve_forever()
