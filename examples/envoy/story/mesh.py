"""The mesh of the demo: Convoy, one Envoy and the agents, on free ports of the loopback address."""

import http.client
import os
import subprocess
import urllib.request

from story.observers import EnvoyObserver, RegistryObserver, get_json
from story.processes import DemoError, Process, environment, free_ports, wait_until

TTL_SECONDS = 3         # short, so that nobody waits long for the killed one's lease to end
DRAIN_SECONDS = 2
READY_LIMIT = 15.0      # for Convoy, Envoy and an agent to be up; a busy machine needs a second or two
BOOTSTRAP_LIMIT = 10.0
POLL_EVERY = 0.02
NODE = "demo"


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=READY_LIMIT):
            return True
    except (OSError, http.client.HTTPException):  # nobody there yet, or an error status
        return False


class Agent(Process):
    def __init__(self, mesh, service, name):
        [port] = free_ports(1)
        self.service = service
        self.endpoint = f"127.0.0.1:{port}"
        super().__init__(name, mesh.agent_arguments(service, name, port), mesh.folder)


class Mesh:
    def __init__(self, convoy_program, agent_program, envoy_program, storage, folder):
        self.convoy_program = convoy_program
        self.agent_program = agent_program
        self.storage = storage
        self.folder = folder
        http, grpc, self.xds_port, self.outbound_port, admin = free_ports(5)
        self.api = f"http://127.0.0.1:{http}"
        self.grpc = f"http://127.0.0.1:{grpc}"
        self.admin = f"127.0.0.1:{admin}"
        self.convoy = Process("convoy", [
            convoy_program, "serve", "--storage", storage, "--data-dir", os.path.join(folder, "data"),
            "--http-address", f"127.0.0.1:{http}", "--grpc-address", f"127.0.0.1:{grpc}",
            "--xds-address", f"127.0.0.1:{self.xds_port}"], folder)
        self.bootstrap = os.path.join(folder, "envoy.yaml")
        self.envoy = Process("envoy", [
            # Two of these on one machine must not take each other for a predecessor; two workers are enough.
            envoy_program, "-c", self.bootstrap, "--disable-hot-restart", "--concurrency", "2",
            "--log-level", "warning"], folder)
        self.agents = []
        self.envoy_seen = EnvoyObserver(self.admin)
        self.registry_seen = RegistryObserver(self.api)

    def start_convoy(self):
        """Starts Convoy, for the first time or again, and waits until it says that it is ready."""
        self.convoy.start()
        wait_until("Convoy is ready", lambda: answers(f"{self.api}/readyz"), READY_LIMIT, POLL_EVERY, self.convoy)
        if not self.registry_seen.is_alive():
            self.registry_seen.start()

    def start_envoy(self):
        """Starts Envoy with the bootstrap that Convoy writes for it, and waits until it is connected to Convoy."""
        with open(self.bootstrap, "wb") as bootstrap:
            command = [self.convoy_program, "bootstrap", "--node", NODE,
                       "--xds-address", f"127.0.0.1:{self.xds_port}", "--admin-address", self.admin,
                       "--outbound-address", f"127.0.0.1:{self.outbound_port}"]
            made = subprocess.run(command, stdout=bootstrap, stderr=subprocess.PIPE, env=environment(),
                                  timeout=BOOTSTRAP_LIMIT)
        if made.returncode != 0:
            raise DemoError(f"convoy bootstrap failed: {made.stderr.decode(errors='replace')}")
        self.envoy.start()
        self.envoy_seen.start()
        # Ready means: the first configuration is there, and the listeners of it are open.
        for what, condition in [("Envoy is ready", lambda: answers(f"http://{self.admin}/ready")),
                                ("Envoy is connected to Convoy", self.is_connected)]:
            wait_until(what, condition, READY_LIMIT, POLL_EVERY, self.envoy, self.convoy)

    def start_agent(self, service, name):
        """Starts a new agent, and waits until it says that it is registered."""
        agent = Agent(self, service, name)
        self.agents.append(agent)
        return self.start_again(agent)

    def start_again(self, agent):
        agent.start()
        agent.wait_said("registered", READY_LIMIT)
        return agent

    def agent_arguments(self, service, name, port):
        return [self.agent_program, "--service", service, "--id", name, "--listen", f"127.0.0.1:{port}",
                "--convoy", self.grpc, "--ttl", f"{TTL_SECONDS}s",
                "--drain-time", f"{DRAIN_SECONDS}s"]

    def agent_command(self, service, name):
        return " ".join(map(str, self.agent_arguments(service, name, 0)))

    def is_connected(self):
        try:
            proxies = get_json(f"{self.api}/v1/proxies").get("proxies", [])
        except (OSError, ValueError, http.client.HTTPException):
            return False
        return any(proxy.get("node") == NODE for proxy in proxies)

    def instances(self):
        """The ids that the registry holds now, by its API."""
        services = get_json(f"{self.api}/v1/services").get("services", [])
        return sorted(instance["id"] for service in services for instance in get_json(
            f"{self.api}/v1/namespaces/default/services/{service['name']}/instances").get("instances", []))

    def processes(self):
        return [self.convoy, self.envoy, *self.agents]

    def stop_observers(self):
        self.envoy_seen.stop()
        self.registry_seen.stop()

    def stop(self):
        """Ends all that was started here: the agents first, at once, since nobody is left to drain them for."""
        for process in self.agents:
            process.kill()
        for process in (self.envoy, self.convoy):
            process.stop()
