"""Steady traffic through Envoy, and a record of every request: who answered, or how it failed."""

import collections
import http.client
import threading
import time

THREADS = 4
REQUESTS_PER_SECOND = 200  # by all threads together: steady enough to see each change, light enough for two cores
PROBE_EVERY = 0.004
REQUEST_TIMEOUT = 5.0      # longer than anything that may happen to a request that still succeeds

# instance: who answered, None for a failure; error: why it failed, None for an answer. Times are Unix seconds.
Request = collections.namedtuple("Request", "start end service instance error")


def ask(connection, service):
    """Makes one request."""
    start = time.time()
    instance = error = None
    try:
        connection.request("GET", "/", headers={"Host": service})
        response = connection.getresponse()
        body = response.read().decode(errors="replace").strip()
        if response.status == 200:
            instance = response.getheader("x-instance") or "nobody"
        else:
            error = f"{response.status} {body}"
    except (OSError, http.client.HTTPException) as failure:
        error = repr(failure)
        connection.close()  # the next request opens a new one
    return Request(start, time.time(), service, instance, error)


class Load:
    """Threads that each keep one connection and ask for the services in turn, as an application would ask its
    sidecar: the plain service name as host."""

    def __init__(self, port, services):
        self.port = port
        self.services = services
        self.requests = []  # in the order of their ends; appending is atomic, nothing is ever removed
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(THREADS)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            if thread.ident is not None:
                thread.join(REQUEST_TIMEOUT)

    def run(self, number):
        interval = THREADS / REQUESTS_PER_SECOND
        due = time.monotonic() + interval * number / THREADS
        connection = self.connect()
        turn = number
        while not self.stopping.wait(max(0.0, due - time.monotonic())):
            self.requests.append(ask(connection, self.services[turn % len(self.services)]))
            turn += 1
            # A busy machine makes the rate fall; it never makes a burst.
            due = max(due + interval, time.monotonic())
        connection.close()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_TIMEOUT)

    def probe(self, service, instance, limit):
        """Asks, unrecorded, until `instance` answers. When it did, or None if it did not within the limit."""
        connection, deadline = self.connect(), time.time() + limit
        while time.time() < deadline:
            request = ask(connection, service)
            if request.instance == instance:
                return request.end
            time.sleep(PROBE_EVERY)
        return None

    def between(self, since, until=None):
        """The requests that ended in this time."""
        until = time.time() if until is None else until
        return [request for request in list(self.requests) if since <= request.end < until]

    def failures(self, since, until=None):
        return [request for request in self.between(since, until) if request.error]

    def spread(self, since, until=None):
        """How many requests each instance answered."""
        return collections.Counter(request.instance for request in self.between(since, until) if request.instance)

    def first_answer(self, instance, since):
        """When `instance` answered first after this time, or None."""
        return next((request.end for request in self.between(since) if request.instance == instance), None)

    def last_answer(self, instance):
        return max((request.end for request in list(self.requests) if request.instance == instance), default=None)


class Ticker:
    """While it is open: a line every half second that says who answered how many requests in that time."""

    EVERY = 0.5

    def __init__(self, screen, load):
        self.screen = screen
        self.load = load
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.closing.set()
        self.thread.join()

    def run(self):
        since = time.time()
        while not self.closing.wait(self.EVERY):
            now = time.time()
            counts = "   ".join(f"{name} {count:3}" for name, count in sorted(self.load.spread(since, now).items()))
            self.screen.whisper(f"  {counts}   failed {len(self.load.failures(since, now))}")
            since = now
