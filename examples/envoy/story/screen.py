"""What the demo prints: one line at a time, colour only on a terminal, and the promises it kept or broke."""

import os
import sys
import threading
import time

BOLD, DIM, RED, GREEN = "1", "2", "31", "32"


class Screen:
    def __init__(self):
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.begun = time.time()
        self.lock = threading.Lock()
        self.rows = []  # (step, promised, seen, kept)

    def paint(self, text, code):
        return f"\033[{code}m{text}\033[0m" if self.colour else text

    def line(self, text=""):
        with self.lock:
            print(text, flush=True)

    def step(self, title):
        self.line()
        self.line(self.paint(title, BOLD))

    def say(self, text):
        """Something that happened, with the seconds since the demo began."""
        self.line(f"{self.clock()} {text}")

    def whisper(self, text):
        """Something that goes on."""
        self.line(self.paint(f"{self.clock()} {text}", DIM))

    def clock(self):
        return f"{time.time() - self.begun:7.2f} s "

    def promise(self, step, promised, seen, kept):
        """Notes a promise and what was seen of it. Gives `kept` back."""
        self.rows.append((step, promised, seen, kept))
        self.say(f"{self.verdict(kept)}: {promised} -- {seen}")
        return kept

    def verdict(self, kept):
        return self.paint("ok", GREEN) if kept else self.paint("FAILED", RED)

    def summary(self):
        """Prints the table of promises. True if there are any and all were kept."""
        self.step("Summary")
        head = ("step", "promised", "seen")
        widths = [max(len(row[i]) for row in [head, *self.rows]) for i in range(3)]
        self.line("  ".join(text.ljust(width) for text, width in zip(head, widths)))
        self.line("  ".join("-" * width for width in widths) + "  ------")
        for *texts, kept in self.rows:
            cells = [text.ljust(width) for text, width in zip(texts, widths)]
            self.line("  ".join([*cells, self.verdict(kept)]))
        return bool(self.rows) and all(kept for *_, kept in self.rows)
