//! What operators and agents do on a common day, and that `explain` tells the truth of it at each step: in one sentence,
//! axis by axis, and of what the proxy has.

use std::time::Duration;

use convoy_client::proto::{RemovalCause, Verdict};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    field::Field,
    fleet::{Orders, SERVICE, id, ids},
    proxy::NODE,
};

const TTL: Duration = Duration::from_secs(2);
const DRAIN_TIME: Duration = Duration::from_secs(3);

fn has(number: u32, health: &str) -> String {
    format!("{NODE} has default/{SERVICE}/{} in {SERVICE} as {health}, weight 100", id(number))
}

fn lacks(number: u32, why: &str) -> String {
    format!("{NODE} does not have default/{SERVICE}/{}: {why}", id(number))
}

fn gone(number: u32, how: &str) -> String {
    format!("default/{SERVICE}/{} is in nobody's endpoints: it is not registered; it was {how}", id(number))
}

#[tokio::test]
async fn each_step_of_an_instances_life_is_explained_as_it_is() {
    let settings = "brake: {longest: 60s}\n";
    let mut field = Field::start(settings, Orders { drain_time: DRAIN_TIME, ..Orders::ttl(TTL) }, 1..4).await;
    let mark = field.journal.mark();
    let web_1 = format!("{SERVICE}/{}", id(1));
    field.is_explained(1, &has(1, "HEALTHY")).await.endpoint("HEALTHY", "HEALTHY");

    // An operator's word, and the command line tells of it as the API does.
    field.command(&["health", &web_1, "unhealthy", "--reason", "ticket 81"]).await;
    let why = lacks(1, "an operator says unhealthy: ticket 81");
    let explained = field.is_explained(1, &why).await;
    explained.step("operator", "blocks", "ticket 81").step("lease", "passes", "held").endpoint("absent", "absent");
    let printed = field.command(&["explain", &web_1, "--proxy", NODE]).await;
    assert_eq!(printed.lines().next(), Some(&*why), "{printed}");
    field.command(&["health", &web_1, "degraded"]).await;
    field.is_explained(1, &has(1, "DEGRADED")).await.step("operator", "note", "degraded");
    field.command(&["health", &web_1, "clear"]).await;
    field.is_explained(1, &has(1, "HEALTHY")).await.step("verdict", "passes", "healthy");

    // Told to stop, an agent drains; then it has gone.
    field.fleet.signal(1..2, Signal::TERM);
    let explained = field.is_explained(1, &has(1, "DRAINING")).await;
    explained.step("drain", "blocks", "it was asked to drain").step("verdict", "blocks", "draining");
    field.is_explained(1, &gone(1, "drained")).await;

    // The last two die. They are suspects, whatever else is said of them, until an operator has had enough.
    field.fleet.kill(2..4);
    field.all_are(Verdict::Suspect, 2).await;
    let explained = field.is_explained(2, &has(2, "HEALTHY")).await;
    explained.step("lease", "note", "too many fell silent (service)").step("verdict", "note", "suspect");
    field.command(&["health", &format!("{SERVICE}/{}", id(2)), "unhealthy"]).await;
    let explained = field.is_explained(2, &lacks(2, "an operator says unhealthy: ")).await;
    explained.step("lease", "note", "too many fell silent (service)").step("verdict", "blocks", "unhealthy");
    let released = field.convoy.api.http.post("/v1/brakes/release", &json!({})).await.ok();
    assert_eq!(released, json!({"leases": 2}));
    field.only_are_left(&[]).await;
    for number in [2, 3] {
        field.is_explained(number, &gone(number, "expired")).await;
    }
    let left = field.journal.all_left(mark, 3).await;
    let left: Vec<_> = left.into_iter().map(|(id, cause, _)| (id, cause)).collect();
    let causes = [RemovalCause::Drained, RemovalCause::Expired, RemovalCause::Expired];
    assert_eq!(left, ids(1..4).into_iter().zip(causes).collect::<Vec<_>>());
}
