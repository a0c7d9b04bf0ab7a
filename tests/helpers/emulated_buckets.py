"""An emulator of Google Cloud Storage: python emulated_buckets.py PORT. Its bucket is called `bucket`.

gcp-storage-emulator answers one request at a time, and knows neither preconditions nor the header that tells of which
generation an answer is. These are added.
"""

import contextlib
import functools
import importlib.util
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus

import pytest


@contextlib.contextmanager
def emulated_buckets() -> Iterator[dict[str, str]]:
    """The environment in which gs:// is what an emulator of its own process holds, until the context ends."""
    for package in ("gcp_storage_emulator", "gcsfs"):  # not imported, which would read the environment
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, __file__, str(port)])
    try:
        until = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        yield {
            "STORAGE_EMULATOR_HOST": url,  # for gcsfs and google-cloud-storage
            "TENSORSTORE_GCS_HTTP_URL": url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # would ask Google what kind of bucket it is
            "NO_GCE_CHECK": "true",
        }
    finally:
        process.kill()
        process.wait()


def serve(port: int) -> None:
    from gcp_storage_emulator.handlers import objects

    writing = threading.RLock()

    def guarded(handle, name_of):
        @functools.wraps(handle)
        def wrapper(request, response, storage, *args, **kwargs):
            with writing:
                wanted = request.query.get("ifGenerationMatch")
                if wanted:
                    bucket = request.params["bucket_name"]
                    try:
                        found = storage.get_file_obj(bucket, name_of(request))["generation"]
                    except Exception:  # each kind of "not there"
                        found = "0"
                    if found != wanted[0]:
                        response.status = HTTPStatus.PRECONDITION_FAILED
                        return None
                return handle(request, response, storage, *args, **kwargs)

        return wrapper

    def with_generation(request, response, storage, *args, **kwargs):
        with contextlib.suppress(Exception):  # there is none
            found = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
            response["X-Goog-Generation"] = found["generation"]
        return download(request, response, storage, *args, **kwargs)

    download, objects.download = objects.download, with_generation
    objects.insert = guarded(objects.insert, lambda request: request.query["name"][0])
    objects.delete = guarded(objects.delete, lambda request: request.params["object_id"])

    import gcp_storage_emulator.server as emulator

    class Server(emulator.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            """A client has gone before it had its answer."""

    emulator.server.HTTPServer = Server
    logging.disable()
    emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket").run()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
