"""Convoy's main job, shown on the terminal: agents register and heartbeat, a real Envoy routes to the healthy ones.

Started by demo.sh, which builds the programs and finds Envoy. Needs nothing but Python's standard library. While
steady traffic goes through Envoy, one thing after another happens to the mesh; each step promises something, and the
summary says what was seen of it. The exit code is not 0 if a promise did not hold.
"""

import argparse
import http.client
import shutil
import signal
import sys
import tempfile

from story.load import Load
from story.mesh import Mesh
from story.processes import DemoError
from story.screen import Screen
from story.steps import Story

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main():
    options = parse_options()
    screen = Screen()
    # Whatever ends the demo, ends it through the clean-up below.
    for number in SIGNALS:
        signal.signal(number, interrupted)
    sys.setswitchinterval(0.0005)  # the clocks below are read by threads that wait for each other

    folder = tempfile.mkdtemp(prefix="convoy-demo-")
    mesh = Mesh(options.convoy, options.agent, options.envoy, options.storage, folder)
    load = Load(mesh.outbound_port, ["reviews", "ratings"])
    kept, finished = False, False
    try:
        story = Story(screen, mesh, load)
        story.tell()
        load.stop()
        kept = screen.summary()
        if not kept:
            show_logs(screen, story.concerned)
        finished = True
    except DemoError as error:
        screen.say(f"{screen.verdict(False)}: {error}")
        show_logs(screen, error.processes or mesh.processes())
    except (OSError, ValueError, http.client.HTTPException) as error:  # a question that got no answer
        screen.say(f"{screen.verdict(False)}: {type(error).__name__}: {error}")
        show_logs(screen, mesh.processes())
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # the clean-up takes seconds at most, and must be whole
        load.stop()
        mesh.stop_observers()
        if options.keep and finished:
            leave_running(screen, mesh)
        else:
            mesh.stop()
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if kept else 1


def interrupted(number, frame):
    sys.exit(f"demo: {signal.Signals(number).name}, cleaning up")


def parse_options():
    parser = argparse.ArgumentParser(prog="demo.sh", description=__doc__.split("\n\n")[0])
    parser.add_argument("--keep", action="store_true",
                        help="leave everything running at the end, and print addresses and commands to play with")
    parser.add_argument("--storage", choices=("redb", "memory"), default="redb",
                        help="what Convoy keeps the registry in; a restart with memory forgets all")
    for program in ("convoy", "agent", "envoy"):
        parser.add_argument(f"--{program}", required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def show_logs(screen, processes):
    for process in filter(lambda process: process.child, processes):
        screen.step(f"The end of the log of {process.name} ({process.state()})")
        screen.line(process.tail().rstrip())


def leave_running(screen, mesh):
    server = f"--server {mesh.grpc}"
    screen.step("Left running; try")
    for what, command in [
        ("a request through Envoy", f"curl -H 'Host: reviews' http://127.0.0.1:{mesh.outbound_port}/"),
        ("who is registered", f"{mesh.convoy_program} get instances {server}"),
        ("what Envoy has", f"{mesh.convoy_program} proxy status {server}"),
        ("changes as they happen", f"{mesh.convoy_program} watch {server}"),
        ("what Envoy says itself", f"curl http://{mesh.admin}/clusters"),
        ("one more agent", mesh.agent_command("reviews", "reviews-9")),
        ("the logs", f"tail -n 3 {mesh.folder}/*.log"),
    ]:
        screen.line(f"  {what + ':':26}{command}")
    running = " ".join(str(process.child.pid) for process in mesh.processes() if process.running())
    screen.line(f"  {'end it all:':26}kill -9 {running}; rm -r {mesh.folder}")


if __name__ == "__main__":
    sys.exit(main())
