"""The processes of the demo: each in a process group of its own, with its output in a file, all ended together."""

import datetime
import os
import random
import re
import signal
import socket
import subprocess
import time

STOP_LIMIT = 5.0      # for a process that was asked to end, before it is killed
LINE_POLL = 0.01      # how often a log is looked at for a line
TAIL_LINES = 25
# Below what systems give to outgoing connections. A listener that comes back on its port must not find it taken by
# one, and somebody who retries a port where nobody listens must not be given that same port, and meet himself.
PORTS = range(20000, 32000)
PORT_TRIES = 200


class DemoError(Exception):
    """Something without which the story cannot go on. `processes`: whose logs tell more."""

    def __init__(self, message, *processes):
        super().__init__(message)
        self.processes = processes


def free_ports(count):
    """Ports of the loopback address on which nobody listens now."""
    found = []
    for port in random.sample(PORTS, PORT_TRIES):
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise DemoError(f"fewer than {count} free ports among {PORT_TRIES} tried")


def wait_until(what, condition, limit, every, *processes):
    """Waits until `condition()` is true, and gives what it gave. Says what did not come in time otherwise."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        for process in processes:
            if process.ended() is not None:
                raise DemoError(f"{process.name} ended with code {process.ended()} before {what}", process)
        if time.monotonic() > deadline:
            raise DemoError(f"{what}: not within {limit:g} s", *processes)
        time.sleep(every)


def environment():
    """Ours, without what would configure the programs beside the demo's own arguments."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CONVOY_", "AGENT_"))}


class Process:
    """A program with its log. It may be started again; the log goes on."""

    def __init__(self, name, arguments, folder):
        self.name = name
        self.arguments = [str(argument) for argument in arguments]
        self.log = os.path.join(folder, f"{name}.log")
        self.child = None
        self.begins = 0  # where in the log this start's lines begin

    def start(self):
        with open(self.log, "ab") as log:
            self.begins = log.seek(0, os.SEEK_END)
            # A session of its own: Ctrl-C on the terminal reaches the story alone, which ends the others in order.
            self.child = subprocess.Popen(self.arguments, env=environment(), stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=log, start_new_session=True)
        return self

    def ended(self):
        """The exit code (negative: the signal that ended it), None while it runs."""
        return self.child.poll() if self.child else None

    def running(self):
        return self.child is not None and self.child.poll() is None

    def signal(self, number):
        if self.running():
            try:
                os.killpg(self.child.pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        """`kill -9`, and waits until it is gone."""
        self.signal(signal.SIGKILL)
        if self.child:
            self.child.wait(STOP_LIMIT)

    def stop(self):
        """Asks it to end, and kills it if it does not."""
        self.signal(signal.SIGTERM)
        try:
            if self.child:
                self.child.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()

    def said(self, word):
        """When the process, since its last start, first said `word`: `TIME NAME: WORD ...` in its log. Unix seconds,
        or None."""
        pattern = re.compile(r"(\S+)Z \S+: " + re.escape(word) + r"\b")
        with open(self.log, "rb") as log:
            log.seek(self.begins)
            lines = log.read().decode(errors="replace").splitlines()
        found = next(filter(None, map(pattern.match, lines)), None)
        return datetime.datetime.fromisoformat(found.group(1) + "+00:00").timestamp() if found else None

    def wait_said(self, word, limit):
        return wait_until(f"{self.name} says '{word}'", lambda: self.said(word), limit, LINE_POLL, self)

    def wait_ended(self, limit):
        """Waits until it has ended by itself, and gives its exit code."""
        wait_until(f"{self.name} stops", lambda: not self.running(), limit, LINE_POLL)
        return self.ended()

    def state(self):
        code = self.ended()
        return "not started" if not self.child else "running" if code is None else f"ended with code {code}"

    def tail(self):
        """The end of its log."""
        try:
            with open(self.log, errors="replace") as log:
                return "".join(log.readlines()[-TAIL_LINES:])
        except OSError as error:
            return f"(no log: {error})\n"
