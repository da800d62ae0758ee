"""The story: what happens to the mesh, step by step, what is promised of each step, and what was seen."""

import signal
import time
from contextlib import contextmanager

from story.load import Ticker
from story.mesh import DRAIN_SECONDS, READY_LIMIT, TTL_SECONDS
from story.processes import wait_until

CHANGE_LIMIT = 0.100       # from the registry to Envoy
NEW_SERVICE_LIMIT = 0.500  # until a new service answers: its routes may wait a little for those of others
SETTLE_LIMIT = 20.0        # for any change, from a Convoy that has forgotten all: it waits for those it once knew
EXPIRY_LIMIT = 0.200       # from the end of a lease to the last that is heard of it
KILL_NOTICE = 0.050        # in which Envoy may still write to a connection whose other end is dead
WAIT_LIMIT = 10.0          # for anything that has a promise: late is told as a broken promise, not as a hang
LOOK = 1.5                 # seconds of traffic to look at after a change
DOWN = 2.0                 # seconds without Convoy
FAIR = (0.35, 0.65)        # the share of each of two equal instances


class Story:
    def __init__(self, screen, mesh, load):
        self.screen = screen
        self.mesh = mesh
        self.load = load
        self.envoy = mesh.envoy_seen
        self.registry = mesh.registry_seen
        self.cut_off = 0  # requests that the killed one took with it
        self.concerned = []  # the processes of broken promises, whose logs are worth a look

    def tell(self):
        self.begin()
        self.agents_register()
        begun = time.time()
        self.load.start()
        self.traffic_is_spread()
        self.one_is_killed()
        self.it_comes_back()
        self.one_is_drained()
        self.one_joins()
        self.convoy_is_killed()
        self.changes_flow_again()
        self.sum_up(begun)

    # The steps.

    def begin(self):
        self.screen.step("Convoy, a first agent and one Envoy start")
        self.mesh.start_convoy()
        self.screen.say(f"Convoy is ready: API {self.mesh.api}, storage {self.mesh.storage}")
        # Before Envoy: a Convoy that knows nobody yet lets a new Envoy wait a little for whoever may come.
        self.reviews_1 = self.mesh.start_agent("reviews", "reviews-1")
        self.screen.say(f"reviews-1 ({self.reviews_1.endpoint}) registered")
        self.mesh.start_envoy()
        self.screen.say(f"Envoy is connected and takes requests on 127.0.0.1:{self.mesh.outbound_port}")

    def agents_register(self):
        self.screen.step("More agents register: another one of this service, and one of a new service")
        self.reviews_2 = self.mesh.start_agent("reviews", "reviews-2")
        delay = self.delay_of(self.reviews_2)
        self.promise("register", f"in Envoy within {ms(CHANGE_LIMIT)}", ms(delay), within(delay, CHANGE_LIMIT),
                     self.reviews_2)
        self.ratings_1 = self.mesh.start_agent("ratings", "ratings-1")
        self.delay_of(self.ratings_1)
        answered = self.load.probe("ratings", "ratings-1", WAIT_LIMIT)
        delay = answered and answered - self.ratings_1.said("registering")
        self.promise("register", f"a new service answers within {ms(NEW_SERVICE_LIMIT)}", ms(delay),
                     within(delay, NEW_SERVICE_LIMIT), self.ratings_1)

    def traffic_is_spread(self):
        self.screen.step("Requests through Envoy, by the plain service name, are spread over them")
        with self.no_request_fails("spread"):
            since = self.watch_traffic(2 * LOOK)
            spread = self.load.spread(since)
            ours = [spread[self.reviews_1.name], spread[self.reviews_2.name]]
            share = ours[0] / max(1, sum(ours))
            self.promise("spread", "equal shares for equal weights",
                         f"{100 * share:.0f} % and {100 - 100 * share:.0f} %",
                         FAIR[0] <= share <= FAIR[1] and set(spread) == {agent.name for agent in self.mesh.agents})

    def one_is_killed(self):
        victim = self.reviews_1
        self.screen.step(f"{victim.name} is killed (kill -9); its lease lasts {TTL_SECONDS} s")
        retries = self.envoy.retries("reviews")
        asked = time.time()
        victim.kill()
        killed = time.time()
        self.screen.say(f"{victim.name} is dead")
        with self.ticking():
            event = self.registry.find_removal("reviews", victim.name, asked, TTL_SECONDS + WAIT_LIMIT)
            gone = self.envoy.find_endpoint("reviews", victim.endpoint, None, asked, WAIT_LIMIT)
        if event:
            self.screen.say(f"the registry removed it ({event.cause}) {event.at - killed:.2f} s after the kill")
        late = gone and gone - killed
        self.promise("kill -9", f"gone from Envoy within TTL + {ms(EXPIRY_LIMIT)}", seconds(late),
                     within(late, TTL_SECONDS + EXPIRY_LIMIT), victim)
        delay = event and gone and max(0.0, gone - event.at)
        self.promise("kill -9", f"of that, registry to Envoy within {ms(CHANGE_LIMIT)}", ms(delay),
                     within(delay, CHANGE_LIMIT))
        self.nobody_notices(asked, killed, gone or time.time(), retries)

    def nobody_notices(self, asked, killed, gone, retries_before):
        """What users may see of a death: a request that the dead one was given. Envoy sends the others elsewhere."""
        settled = gone + EXPIRY_LIMIT
        time.sleep(max(0.0, settled - time.time()))
        retries = self.envoy.retries("reviews") - retries_before
        self.watch_traffic(LOOK)
        more = self.envoy.retries("reviews") - retries_before - retries
        failures = self.load.failures(asked, settled)
        begun_later = [request for request in failures if request.start > killed + KILL_NOTICE]
        self.cut_off = len(failures) - len(begun_later)
        after = self.load.failures(settled)
        self.tell_failures(begun_later + after)
        self.promise("kill -9", "until then no request begun after the kill fails",
                     f"{len(begun_later)} failed, {retries} retried unseen ({self.cut_off} cut off by the kill)",
                     not begun_later)
        self.promise("kill -9", "then nothing fails and nothing is retried",
                     f"{len(after)} failed, {more} retried", not after and more == 0)

    def it_comes_back(self):
        self.screen.step(f"{self.reviews_1.name} is started again: the same id, a new incarnation")
        with self.no_request_fails("come back"):
            self.joins_traffic("come back", lambda: self.mesh.start_again(self.reviews_1))

    def one_is_drained(self):
        leaving = self.reviews_2
        self.screen.step(f"{leaving.name} is told to stop (SIGTERM) and drains for {DRAIN_SECONDS} s")
        with self.no_request_fails("drain"):
            leaving.signal(signal.SIGTERM)
            asked = leaving.wait_said("draining", WAIT_LIMIT)
            with self.ticking():
                draining = self.envoy.find_endpoint("reviews", leaving.endpoint, "DRAINING", asked, WAIT_LIMIT)
                delay = draining and draining - asked
                self.screen.say(f"Envoy has it as draining {ms(delay)} after the call")
                code = leaving.wait_ended(DRAIN_SECONDS + WAIT_LIMIT)
                gone = self.envoy.find_endpoint("reviews", leaving.endpoint, None, asked, WAIT_LIMIT)
            self.screen.say(f"{leaving.name} is gone from Envoy and has stopped, "
                            f"{time.time() - asked:.2f} s after the call")
            self.promise("drain", f"known to Envoy within {ms(CHANGE_LIMIT)}", ms(delay),
                         within(delay, CHANGE_LIMIT), leaving)
            last = self.load.last_answer(leaving.name)
            settled = last is not None and draining is not None and last - draining <= CHANGE_LIMIT
            self.promise("drain", "no new request reaches it, and it exits cleanly",
                         f"last one {ms(last and draining and max(0.0, last - draining))} later, exit code {code}",
                         settled and code == 0 and gone is not None, leaving)
            self.watch_traffic(LOOK)

    def one_joins(self):
        self.screen.step("A new one joins: reviews-3")
        with self.no_request_fails("join"):
            self.joins_traffic("join", lambda: self.mesh.start_agent("reviews", "reviews-3"))

    def convoy_is_killed(self):
        self.screen.step(f"Convoy itself is killed (kill -9), and started again after {DOWN:g} s")
        before, endpoints = self.mesh.instances(), dict(self.envoy.endpoints)
        with self.no_request_fails("Convoy down"):
            down = time.time()
            self.mesh.convoy.kill()
            self.screen.say("Convoy is dead; Envoy goes on with what it has")
            self.watch_traffic(DOWN)
            self.mesh.start_convoy()
            up = time.time()
            self.screen.say(f"Convoy is ready again, {up - down:.2f} s after the kill")
            with self.ticking():
                wait_until("Envoy is connected again", self.mesh.is_connected, READY_LIMIT, 0.01,
                           self.mesh.envoy, self.mesh.convoy)
                self.screen.say(f"Envoy is connected again, {time.time() - up:.2f} s after that")
                # Whoever did not heartbeat again would be gone by then.
                time.sleep(max(0.0, up + TTL_SECONDS + 2 * EXPIRY_LIMIT - time.time()))
            self.screen.say(f"{TTL_SECONDS} s later a lease that nobody renewed would have ended")
            lost = self.envoy.lost(down, time.time())
            now = self.mesh.instances()
            self.promise("Convoy down", "no endpoint is lost in Envoy",
                         f"{len(lost)} lost, {len(self.envoy.endpoints)} of {len(endpoints)} there",
                         not lost and self.envoy.endpoints == endpoints)
            self.promise("Convoy down", "all agents are back, none was restarted",
                         f"{len(now)} of {len(before)} registered",
                         now == before and self.running_agents() == len(before), *self.mesh.agents)

    def changes_flow_again(self):
        self.screen.step("Changes flow again: ratings-2 joins")
        limit = CHANGE_LIMIT
        if self.mesh.storage == "memory":
            self.screen.say("(this Convoy has forgotten all, and listens for a while before it tells Envoy anything)")
            limit = SETTLE_LIMIT
        with self.no_request_fails("join again"):
            self.joins_traffic("join again", lambda: self.mesh.start_agent("ratings", "ratings-2"), limit)

    def sum_up(self, begun):
        requests = self.load.between(begun)
        failed = [request for request in requests if request.error]
        times = sorted(request.end - request.start for request in requests)
        self.screen.step("All in all")
        self.screen.say(f"{len(requests)} requests in {time.time() - begun:.0f} s; "
                        f"median {ms(times[len(times) // 2])}, 99th percentile {ms(times[len(times) * 99 // 100])}")
        self.promise("all in all", "no request fails but those the kill cut off",
                     f"{len(failed)} of {len(requests)} failed, {self.cut_off} by the kill",
                     len(failed) == self.cut_off)

    # What the steps have in common.

    def delay_of(self, agent, limit=CHANGE_LIMIT):
        """Seconds from the agent's call to register until Envoy says that it has the endpoint. None: it never did."""
        asked = agent.said("registering")
        there = self.envoy.find_endpoint(agent.service, agent.endpoint, "HEALTHY", asked, max(WAIT_LIMIT, limit))
        delay = there and there - asked
        self.screen.say(f"{agent.name} ({agent.endpoint}) registered in {ms(agent.said('registered') - asked)}, "
                        f"in Envoy {ms(delay)} after it asked")
        return delay

    def joins_traffic(self, step, start, limit=CHANGE_LIMIT):
        since = time.time()
        agent = start()
        delay = self.delay_of(agent, limit)
        self.watch_traffic(LOOK)
        first = self.load.first_answer(agent.name, since)
        self.promise(step, f"in Envoy within {ms(limit)}, and traffic arrives",
                     f"{ms(delay)}, first answer after {ms(first and first - agent.said('registering'))}",
                     within(delay, limit) and first is not None, agent)

    @contextmanager
    def no_request_fails(self, step):
        since = time.time()
        yield
        failures, total = self.load.failures(since), len(self.load.between(since))
        self.tell_failures(failures)
        self.promise(step, "no request fails", f"{len(failures)} of {total} failed", not failures and total > 0)

    def watch_traffic(self, duration):
        """Shows the traffic for a while. Gives the time at which it began to look."""
        since = time.time()
        with self.ticking():
            time.sleep(duration)
        return since

    def ticking(self):
        return Ticker(self.screen, self.load)

    def promise(self, step, promised, seen, kept, *processes):
        if not self.screen.promise(step, promised, seen, kept):
            self.concerned += [process for process in (self.mesh.convoy, self.mesh.envoy, *processes)
                               if process not in self.concerned]

    def tell_failures(self, failures):
        for request in failures[:5]:
            self.screen.say(f"failed: {request.service}: {request.error} after {ms(request.end - request.start)}")

    def running_agents(self):
        return sum(agent.running() for agent in self.mesh.agents)


def within(delay, limit):
    return delay is not None and delay <= limit


def ms(delay):
    return "never" if delay is None else f"{delay * 1000:.0f} ms"


def seconds(delay):
    return "never" if delay is None else f"{delay:.2f} s"
