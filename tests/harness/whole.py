"""Starting nginx with whole configuration files."""

import os

from .nginx import Nginx


class WholeNginx(Nginx):
    """An nginx whose files are those of a directory, nginx.conf the main one.

    They are copied with their %{...} replaced, and not read again: what is
    at `path` when it is started, counts.
    """

    def __init__(self, exchange, names, directory):
        super().__init__(exchange, names, {})
        for path in sorted(directory.rglob("*.conf")):
            self.write(os.path.join("conf", path.relative_to(directory)),
                       self._expand(path.read_text()))
        self.path = os.path.join(self.prefix, "conf", "nginx.conf")

    def _write_config(self):
        with open(self.path, encoding="utf-8") as file:
            self.text = file.read()
        return self.path
