"""Two threads that look on and note what they see, with the time: what Envoy has, and what the registry tells."""

import collections
import http.client
import json
import threading
import time
import urllib.parse
import urllib.request

POLL_EVERY = 0.004       # of Envoy's admin port; how exact the times are
REQUEST_TIMEOUT = 5.0
WATCH_RETRY = 0.1        # while Convoy is away
WATCH_SILENCE = 60.0     # a watch may be silent for as long as nothing changes

EndpointSeen = collections.namedtuple("EndpointSeen", "at cluster endpoint health")  # health: None when gone
EventSeen = collections.namedtuple("EventSeen", "at kind service instance verdict cause")


def get_json(url):
    with urllib.request.urlopen(url, timeout=REQUEST_TIMEOUT) as response:
        return json.load(response)


class Observer(threading.Thread):
    """A thread with a list of what it saw, in which others wait for something."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen = []
        self.news = threading.Condition()
        self.stopping = threading.Event()

    def note(self, *things):
        with self.news:
            self.seen.extend(things)
            self.news.notify_all()

    def find(self, matches, since, limit):
        """The first thing that matches, seen at or after `since`. Waits for it up to `limit` seconds, then None."""
        deadline = time.monotonic() + limit
        with self.news:
            while True:
                found = next((thing for thing in self.seen if thing.at >= since and matches(thing)), None)
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                self.news.wait(left)

    def stop(self):
        self.stopping.set()


class EnvoyObserver(Observer):
    """Polls Envoy's admin port and notes each endpoint that comes, goes or changes its health."""

    def __init__(self, admin):
        super().__init__()
        self.admin = admin
        self.endpoints = {}  # (cluster, "address:port") -> health, as last seen

    def run(self):
        connection = http.client.HTTPConnection(self.admin, timeout=REQUEST_TIMEOUT)
        while not self.stopping.wait(POLL_EVERY):
            try:
                connection.request("GET", "/clusters?format=json")
                now = endpoints_of(json.loads(connection.getresponse().read()))
            except (OSError, http.client.HTTPException, ValueError):
                connection.close()
                continue
            at = time.time()
            before, self.endpoints = self.endpoints, now
            self.note(*(EndpointSeen(at, *key, now.get(key)) for key in {**before, **now}
                        if before.get(key) != now.get(key)))

    def find_endpoint(self, cluster, endpoint, health, since, limit):
        """When the endpoint was first seen so (`None`: gone), or None if it was not."""
        wanted = (cluster, endpoint, health)
        found = self.find(lambda seen: (seen.cluster, seen.endpoint, seen.health) == wanted, since, limit)
        return found and found.at

    def lost(self, since, until):
        """The endpoints that went, or ceased to be healthy, in this time."""
        with self.news:
            return [seen for seen in self.seen if since <= seen.at < until and seen.health != "HEALTHY"]

    def retries(self, cluster):
        """How many requests Envoy has sent again to another endpoint."""
        name = f"cluster.{cluster}.upstream_rq_retry"
        stats = get_json(f"http://{self.admin}/stats?format=json&filter=^{name}$")["stats"]
        return sum(stat["value"] for stat in stats if stat.get("name") == name)


def endpoints_of(clusters):
    """Envoy's /clusters as a dictionary."""
    found = {}
    for cluster in clusters.get("cluster_statuses", []):
        if "/" in cluster["name"]:
            continue  # Convoy's own, such as the one by which Envoy reaches it
        for host in cluster.get("host_statuses", []):
            address = host["address"].get("socket_address")
            if address:
                endpoint = f"{address['address']}:{address['port_value']}"
                found[cluster["name"], endpoint] = host["health_status"].get("eds_health_status", "UNKNOWN")
    return found


class RegistryObserver(Observer):
    """Follows the registry's watch, and takes it up again where it broke off."""

    def __init__(self, api):
        super().__init__()
        self.api = api
        self.token = ""

    def run(self):
        while not self.stopping.is_set():
            query = urllib.parse.urlencode({"resume": self.token} if self.token else {})
            try:
                with urllib.request.urlopen(f"{self.api}/v1/watch?{query}", timeout=WATCH_SILENCE) as stream:
                    for line in stream:
                        if line.startswith(b"data:"):
                            self.take(json.loads(line[len(b"data:"):]))
            except (OSError, http.client.HTTPException, ValueError):
                pass
            self.stopping.wait(WATCH_RETRY)

    def take(self, event):
        self.token = event.get("token") or self.token
        instance = event.get("instance") or {}
        self.note(EventSeen(time.time(), event.get("kind"), instance.get("service"), instance.get("id"),
                            (instance.get("health") or {}).get("verdict"), event.get("cause")))

    def find_removal(self, service, instance, since, limit):
        """The event by which the instance went, or None."""
        return self.find(lambda seen: (seen.kind, seen.service, seen.instance) == ("removed", service, instance),
                         since, limit)
