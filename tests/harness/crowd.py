"""Clients that ask at random, each in a thread of its own."""

import collections
import random
import signal
import threading

from . import settings


class Crowd:
    """So many threads make so many requests between them.

    What one of them does is ask(): it gets the thread's own random numbers
    and the number of the request, and returns a status; 0 is no response.
    """

    def __init__(self, nginx, requests, threads, seed):
        self.statuses = collections.Counter()
        self.left = requests
        self.nginx = nginx
        self._seed = seed
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, daemon=True,
                             args=(random.Random(seed + number),))
            for number in range(threads)]

    def start(self):
        for thread in self._threads:
            thread.start()

    @property
    def running(self):
        return any(thread.is_alive() for thread in self._threads)

    def wait_for(self, count):
        """Until so many more have been asked, or there are no more."""
        before = self.left
        self.nginx.exchange.wait_until(
            lambda: self.left <= before - count or not self.running,
            timeout=6 * settings.PATIENCE)

    def disturb(self, most, reload, kill, harm):
        """Until all have been asked: harm() after up to so many requests.

        Every so many times nginx is reloaded, or a worker killed, instead.
        """
        choice = random.Random(self._seed)
        turn = 0
        while self.running:
            turn += 1
            self.wait_for(choice.randrange(most))
            if turn % reload == 0:
                self.nginx.send_signal(signal.SIGHUP)
            elif turn % kill == 0:
                workers = self.nginx.workers()
                try:
                    self.nginx.kill_worker(choice.choice(workers))
                except (AssertionError, IndexError, OSError):
                    # it has ended by itself
                    continue
            else:
                harm(choice)

    def _run(self, choice):
        asking = self.begin(choice)
        while True:
            with self._lock:
                if self.left <= 0:
                    break
                self.left -= 1
                number = self.left
            try:
                status = asking(number)
            except (OSError, ValueError):
                # nginx's worker has gone, or there was half a response
                status = 0
            with self._lock:
                self.statuses[status] += 1

    def begin(self, choice):
        """What a thread asks with: a function of the request's number."""
        raise NotImplementedError
