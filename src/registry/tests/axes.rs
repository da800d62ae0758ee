//! What others than its agent say of an instance.

use super::*;
use crate::{
    model::{BrakeScope, CheckKind, CheckState, CheckStatus, OverrideHealth, RemovalCause, Share, Turn, Verdict},
    registry::command::CheckReport,
};

fn report(name: &str, status: CheckStatus, incarnation: u64) -> Command {
    let state = CheckState {
        name: "http".into(),
        kind: CheckKind::Readiness,
        status,
        since: UnixMillis(5),
        output: "503".into(),
    };
    let incarnation = Incarnation(incarnation);
    Command::ReportChecks(vec![CheckReport { key: key(name), incarnation, state, braked: false, gone: false }])
}

fn verdict(book: &Book, name: &str) -> Verdict {
    book.get(name).expect("it is there").verdict()
}

#[test]
fn every_turn_is_noted_with_its_reason() {
    let mut book = Book::default();
    let lease = book.register_as(None, Some(1), &[("web/1", spec(1))]).expect("registered");
    assert_eq!(book.get("web/1").expect("there").history.iter().count(), 0, "nothing until something turns");
    book.run(&report("web/1", CheckStatus::Failing, 1)).expect("planned");
    assert_eq!(verdict(&book, "web/1"), Verdict::Unhealthy);
    book.run(&report("web/1", CheckStatus::Passing, 1)).expect("planned");
    let say = Some((OverrideHealth::Degraded, "a trial".into()));
    book.run(&Command::SetOverride { key: key("web/1"), say }).expect("planned");
    book.run(&Command::SetOverride { key: key("web/1"), say: None }).expect("planned");
    book.run(&Command::Lapse { lease, scope: BrakeScope::Service }).expect("planned");
    assert_eq!(verdict(&book, "web/1"), Verdict::Suspect);
    book.run(&Command::Restore(lease)).expect("planned");
    book.expire(lease);
    book.register_as(None, Some(1), &[("web/1", spec(1))]).expect("an expired one comes back");
    let history = book.get("web/1").expect("there").history.clone();
    let told: Vec<(Turn, String)> = history.iter().map(|turn| (turn.turn, turn.reason.to_string())).collect();
    let expected = [
        (Turn::To(Verdict::Unhealthy), "check http is failing: 503"),
        (Turn::To(Verdict::Healthy), "its agent says that it is ready, and its checks pass"),
        (Turn::To(Verdict::Degraded), "an operator: a trial"),
        (Turn::To(Verdict::Healthy), "its agent says that it is ready, and its checks pass"),
        (Turn::To(Verdict::Suspect), "its heartbeats have stopped; it is kept by the brake (service)"),
        (Turn::To(Verdict::Healthy), "its agent says that it is ready, and its checks pass"),
        (Turn::Removed(RemovalCause::Expired), ""),
    ];
    assert_eq!(told, expected.map(|(turn, reason)| (turn, reason.to_owned())));
}

#[test]
fn what_is_said_of_another_incarnation_changes_nothing() {
    let mut book = Book::default();
    book.register_as(None, Some(2), &[("web/1", spec(1))]).expect("registered");
    let before = book.snapshot().revision;
    book.run(&report("web/1", CheckStatus::Failing, 1)).expect("planned");
    let shares = vec![(key("web/1").id, Incarnation(1), Share::of_percent(10))];
    book.run(&Command::SetShares { service: service("web"), shares }).expect("planned");
    book.run(&Command::Evict { key: key("web/1"), incarnation: Incarnation(1) }).expect("planned");
    assert_eq!(book.snapshot().revision, before);
}

#[test]
fn who_registers_again_is_no_suspect_and_keeps_what_others_said() {
    let mut book = Book::default();
    let lease = book.register_as(None, Some(1), &[("web/1", spec(1))]).expect("registered");
    let shares = vec![(key("web/1").id, Incarnation(1), Share::of_percent(40))];
    book.run(&Command::SetShares { service: service("web"), shares }).expect("planned");
    book.run(&Command::Lapse { lease, scope: BrakeScope::Service }).expect("planned");
    book.register_as(None, Some(1), &[("web/1", spec(1))]).expect("registered");
    let instance = book.get("web/1").expect("there");
    assert_eq!((instance.verdict(), instance.weight(), instance.brake()), (Verdict::Healthy, 40, None));
    let say = Some((OverrideHealth::Unhealthy, "".into()));
    book.run(&Command::SetOverride { key: key("web/1"), say }).expect("planned");
    book.register_as(None, Some(2), &[("web/1", spec(1))]).expect("a newer incarnation");
    let instance = book.get("web/1").expect("there");
    assert_eq!(
        (instance.verdict(), instance.weight()),
        (Verdict::Unhealthy, 100),
        "the operator's word is about the place"
    );
}

#[test]
fn the_brake_of_a_lease_is_not_the_probes_to_take_back() {
    let mut book = Book::default();
    let lease = book.register_as(None, Some(1), &[("web/1", spec(1))]).expect("registered");
    book.run(&Command::Lapse { lease, scope: BrakeScope::Zone }).expect("planned");
    book.run(&report("web/1", CheckStatus::Passing, 1)).expect("planned");
    assert_eq!(book.get("web/1").expect("there").brake().map(|brake| brake.scope), Some(BrakeScope::Zone));
}

#[test]
fn the_evicted_may_return() {
    let mut book = Book::default();
    book.register_as(None, Some(1), &[("web/1", spec(1))]).expect("registered");
    let evict = Command::Evict { key: key("web/1"), incarnation: Incarnation(1) };
    for status in [CheckStatus::Passing, CheckStatus::Failing] {
        let Command::ReportChecks(mut reports) = report("web/1", status, 1) else { unreachable!() };
        reports[0].state.kind = CheckKind::Liveness;
        book.run(&Command::ReportChecks(reports)).expect("planned");
        book.events();
        book.run(&evict).expect("planned");
        assert_eq!(book.get("web/1").is_some(), status == CheckStatus::Passing, "one that has recovered stays");
    }
    assert_eq!(book.events(), [("1".to_owned(), EventKind::Removed(RemovalCause::Evicted))]);
    book.register_as(None, Some(1), &[("web/1", spec(1))]).expect("registered");
}

#[test]
fn the_brakes_of_lease_and_checks_are_apart() {
    let failing = |braked| {
        let Command::ReportChecks(mut reports) = report("web/1", CheckStatus::Failing, 1) else { unreachable!() };
        reports[0].braked = braked;
        Command::ReportChecks(reports)
    };
    for (braked, before) in [(true, Verdict::Suspect), (false, Verdict::Unhealthy)] {
        let mut book = Book::default();
        let lease = book.register_as(None, Some(1), &[("web/1", spec(1))]).expect("registered");
        book.run(&failing(braked)).expect("planned");
        assert_eq!(verdict(&book, "web/1"), before);
        // A lapse is no reason to believe a check less, and its end none to believe it more.
        book.run(&Command::Lapse { lease, scope: BrakeScope::Intake }).expect("planned");
        assert_eq!(verdict(&book, "web/1"), before);
        book.run(&Command::Restore(lease)).expect("planned");
        assert_eq!(verdict(&book, "web/1"), before);
        book.run(&Command::Lapse { lease, scope: BrakeScope::Intake }).expect("planned");
        book.register_as(None, Some(1), &[("web/1", spec(1))]).expect("registered again");
        assert_eq!(verdict(&book, "web/1"), before);
        book.run(&Command::Lapse { lease, scope: BrakeScope::Intake }).expect("planned");
        book.run(&Command::Believe(vec![(key("web/1"), Incarnation(1))])).expect("planned");
        let kept = book.get("web/1").expect("there");
        assert_eq!(
            (kept.verdict(), kept.brake().map(|brake| brake.scope)),
            (Verdict::Unhealthy, Some(BrakeScope::Intake))
        );
    }
}
