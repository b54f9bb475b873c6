"""What a scenario is played on: origins, names, nginx, and their end."""

import contextlib
import os
import shutil
import tempfile
import time

import pytest

from . import link, settings, tls
from .dns import NameServer
from .exchange import Exchange
from .nginx import Nginx
from .origin import Origin

LOG_LINES_SHOWN = 200


class Stage:
    """Starts the actors of one scenario and ends them afterwards.

    Each actor has a name by which nginx's configuration refers to it:
    %{origin}, %{dns}, %{authority.path} ...
    """

    def __init__(self, authority):
        self.exchange = Exchange()
        self.authority = authority
        self.names = {"authority": authority}
        self.nginxes = []
        self._origins = []
        self._servers = []
        self._links = []
        self._directory = tempfile.mkdtemp(prefix="myproxy-stage-")

    def origin(self, script=None, name="origin", *, family="ipv4", tls=None,
               listening=True, link=None):
        """A scripted origin (see Origin), %{name} in the configuration.

        `family` is ipv4, ipv6 or unix.  `tls` is a tls.Server, or a name
        for which a certificate is issued.  `link` is the link at whose far
        side it is.
        """
        origin = Origin(self.exchange, self._directory, name, script,
                        family=family, tls=self._tls(tls),
                        listening=listening, link=link)
        self._origins.append(origin)
        self.names[name] = origin
        return origin

    def _tls(self, wanted):
        if isinstance(wanted, str):
            return tls.Server(self.authority.issue(wanted))
        return wanted

    def dns(self, records, name="dns", **more):
        """A name server; `records` are name -> list of addresses."""
        server = NameServer(self.exchange, records, **more)
        self._servers.append(server)
        self.names[name] = server
        return server

    def link(self, round_trip_ms=0):
        """A link with a round trip (see Link), for origin and nginx."""
        reason = link.missing()
        if reason is not None:
            pytest.skip(reason)
        made = link.Link(round_trip_ms / 2)
        self._links.append(made)
        return made

    def nginx(self, *, files=(), link=None, **config):
        """nginx with that configuration, running.

        `http`, `server` and `location` are the text at these levels (the
        location is /), `main` and `events` likewise; `listen` are further
        parameters of the listen directive.  `files` are written to the
        prefix before: {"html/a.txt": "..."}.  With a `link` its connections
        to origins begin at the link's near side.
        """
        nginx = Nginx(self.exchange, self.names, config, link)
        self.nginxes.append(nginx)
        for name, content in dict(files).items():
            nginx.write(name, content)
        nginx.start()
        return nginx

    def config_test(self, **config):
        """(exit code, standard error) of nginx -t with a configuration."""
        nginx = Nginx(self.exchange, self.names, config)
        self.nginxes.append(nginx)
        nginx.expect_log(r"\[emerg\]")
        return nginx.test_config()

    def wait_until(self, condition, timeout=None, what=None):
        return self.exchange.wait_until(condition, timeout, what)

    def let_pass(self, seconds):
        """Let time pass that a limit or an interval of nginx counts."""
        end = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() >= end,
                        seconds + settings.PATIENCE)

    def path(self, name):
        """A path in the stage's own directory."""
        return os.path.join(self._directory, name)

    def close(self):
        """End all actors."""
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self._directory, True)
            for actor in (self._links + self._servers + self.nginxes
                          + self._origins):
                stack.callback(actor.close)
            for nginx in self.nginxes:
                for client in nginx.clients:
                    stack.callback(client.close)

    def check(self):
        """Raise what went wrong behind the test's back."""
        for nginx in self.nginxes:
            complaints = nginx.complaints()
            # what tools/scenarios looks for, as it does not go away
            assert not complaints, "in nginx's log:\n" + "\n".join(complaints)
        for origin in self._origins:
            origin.check()

    def report(self):
        """(title, text) of what shows how a scenario went."""
        yield "exchange", self.exchange.render()
        for nginx in self.nginxes:
            if nginx.text is not None:
                yield "nginx.conf", nginx.text.strip()
            lines = nginx.log.splitlines()[-LOG_LINES_SHOWN:]
            yield "nginx's log", "\n".join(lines)
