"""What the caller of the tests chooses by environment variables."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

#: The nginx that is started.
NGINX = os.environ.get("TEST_NGINX_BINARY", "/usr/sbin/nginx")

#: The module that it loads; "static" if it is compiled into the binary.
MODULE = os.environ.get("TEST_NGINX_MODULE",
                        str(ROOT / "build" / "ngx_http_myproxy_module.so"))

#: What is loaded into nginx before all else, as in LD_PRELOAD.
PRELOAD = os.environ.get("TEST_NGINX_PRELOAD", "")

#: The module is built with sanitizers, as by tools/sanitized.
SANITIZED = os.environ.get("TEST_SANITIZED", "") not in ("", "0")

#: Run the scenarios against nginx's own proxy module, to compare.
STOCK = os.environ.get("TEST_STOCK", "") not in ("", "0")

#: Level of the error log; "debug" tells the story of each request.
LOG_LEVEL = os.environ.get("TEST_LOG_LEVEL", "info")

#: All deadlines are multiplied by this: for sanitizers and slow machines.
SCALE = float(os.environ.get("TEST_TIMEOUT_SCALE", "1"))

#: Seconds after which something that should happen counts as not happening.
PATIENCE = 10 * SCALE
