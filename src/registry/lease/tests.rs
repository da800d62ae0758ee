//! Leases: what an agent, its timer and the registry's task make of one.

use super::*;

const TTL: Duration = Duration::from_secs(30);
const KEPT: Renewal = Renewal::Kept { ttl: TTL, spread: false };
const ID: LeaseId = LeaseId(7);

fn one() -> (LeaseTable, Arc<Entry>) {
    let table = LeaseTable::default();
    table.set(ID, TTL, ours(0));
    let entry = timer(&table);
    (table, entry)
}

fn ours(from_ms: u64) -> Whose {
    Whose::Ours { from_ms, spread: false }
}

/// The one lease that needs a timer.
fn timer(table: &LeaseTable) -> Arc<Entry> {
    let mut untimed = table.take_untimed();
    assert_eq!(untimed.len(), 1);
    untimed.remove(0)
}

fn renew(table: &LeaseTable, now_ms: u64) -> Renewal {
    table.renew(ID, now_ms, None, None)
}

#[test]
fn another_replicas_lease_is_noted_when_it_is_heard_and_has_no_timer() {
    let (table, owner) = (LeaseTable::default(), ReplicaId(2));
    table.set(ID, TTL, Whose::Theirs(owner));
    assert_eq!((table.take_untimed().len(), table.take_heard().len()), (0, 0));
    assert_eq!((renew(&table, 10), renew(&table, 20)), (KEPT, KEPT));
    let heard: Vec<_> = table.take_heard().into_iter().map(|heard| (heard.lease, heard.owner)).collect();
    assert_eq!(heard, [(ID, owner)], "once, until it is told");
    assert_eq!((1..4).map(|_| table.count_hearing(ID, true)).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((table.count_hearing(ID, false), table.count_hearing(ID, true)), (0, 1), "in a row");
    table.revive(ID, 30);
    assert_eq!(table.take_untimed().len(), 0);
    // It becomes this one's.
    assert_eq!(renew(&table, 40), KEPT);
    table.set(ID, TTL, ours(50));
    assert_eq!(table.take_heard().len(), 0, "who owns it need not be told");
    assert_eq!(timer(&table).look(50), Look::At(20_050));
}

#[test]
fn an_own_lease_is_renewed_for_who_heard_it_elsewhere() {
    let (table, entry) = one();
    assert!(!table.renew_for(ID, 5_000, None), "it may have been heard here before");
    assert!(table.renew_for(ID, 10_000, None), "only there");
    assert_eq!(entry.look(20_000), Look::At(30_000));
    assert_eq!(renew(&table, 11_000), KEPT);
    assert!(!table.renew_for(ID, 12_000, None), "here as well");
    assert!(!table.renew_for(LeaseId(9), 12_000, None), "nobody knows it");
    table.set(ID, TTL, Whose::Theirs(ReplicaId(2)));
    assert!(!table.renew_for(ID, 12_000, None), "it is another one's by now");
}

#[test]
fn an_adopted_lease_has_longer_once() {
    let table = LeaseTable::default();
    table.set(ID, TTL, ours(10_000));
    let entry = timer(&table);
    assert_eq!(entry.look(0), Look::At(30_000));
    assert_eq!(entry.look(39_000), Look::Overdue(40_000));
    assert_eq!(renew(&table, 39_500), KEPT);
    assert_eq!(entry.look(40_000), Look::At(59_500));
}

#[test]
fn a_silent_lease_is_overdue_after_two_intervals_and_lapses_at_its_deadline() {
    let (table, entry) = one();
    assert_eq!(entry.look(0), Look::At(20_000));
    assert_eq!(renew(&table, 10_000), KEPT);
    assert_eq!(entry.look(20_000), Look::At(30_000));
    assert_eq!(entry.look(30_000), Look::Overdue(40_000));
    assert_eq!(entry.look(31_000), Look::At(40_000), "it is told once");
    assert_eq!(entry.look(40_000), Look::Lapsed);
    assert_eq!(entry.look(40_001), Look::Stale);
    assert!(table.is_lapsed(ID));
    assert_eq!(table.take_returned(), []);
}

/// Else the brake would let the first of many go, since the others might be well.
#[test]
fn whoever_fell_silent_at_the_same_time_is_overdue_when_the_first_lapses() {
    for ttl in [1, 2, 3, 10, 27, 29, 30, 60, 86_400].map(Duration::from_secs) {
        let (first, last) = (LeaseTable::default(), LeaseTable::default());
        first.set(ID, ttl, ours(0));
        // It was heard last as late as the first can be waited for.
        let interval = millis(pace::longest_interval(ttl));
        last.set(ID, ttl, ours(interval));
        let (first, last) = (timer(&first), timer(&last));
        let Look::At(overdue) = last.look(interval) else { panic!("it has just been heard") };
        assert!(overdue <= millis(ttl), "{ttl:?}: overdue only at {overdue} ms");
        assert_eq!(first.look(millis(ttl)), Look::Lapsed);
        assert!(matches!(last.look(millis(ttl)), Look::Overdue(_)), "{ttl:?}");
    }
}

#[test]
fn an_overdue_lease_that_is_heard_is_told_once() {
    let (table, entry) = one();
    assert_eq!(entry.look(20_000), Look::Overdue(30_000));
    assert_eq!((renew(&table, 25_000), renew(&table, 25_001)), (KEPT, KEPT));
    assert_eq!(table.take_returned(), [ID]);
    assert_eq!(entry.look(30_000), Look::At(45_001));
    assert_eq!(entry.look(45_001), Look::Overdue(55_001), "and again, when it falls silent again");
    assert!(table.take_untimed().is_empty());
}

#[test]
fn a_heartbeat_after_the_end_is_told_so_and_a_registration_revives() {
    let (table, entry) = one();
    assert_eq!(entry.look(30_000), Look::Lapsed);
    assert_eq!(renew(&table, 30_001), Renewal::Unknown);
    table.revive(ID, 30_002);
    assert!(!table.is_lapsed(ID));
    assert_eq!(table.take_returned(), [ID]);
    assert!(Arc::ptr_eq(&timer(&table), &entry));
    assert_eq!(renew(&table, 30_003), KEPT);
    assert_eq!(entry.look(60_003), Look::Lapsed);
}

#[test]
fn a_lapsed_lease_that_is_kept_can_be_renewed_and_is_told() {
    let (table, entry) = one();
    table.keep_lapsed(ID);
    assert_eq!(renew(&table, 0), KEPT, "one that did not lapse stays as it is");
    assert_eq!(entry.look(30_000), Look::Lapsed);
    table.keep_lapsed(ID);
    assert!(!table.is_lapsed(ID) && table.take_untimed().is_empty());
    assert_eq!(entry.look(90_000), Look::Stale);
    assert_eq!(renew(&table, 90_000), KEPT);
    assert_eq!(table.take_returned(), [ID]);
    assert!(Arc::ptr_eq(&timer(&table), &entry), "from now on it has a deadline again");
    assert_eq!(entry.look(110_000), Look::Overdue(120_000));
    assert!(!table.expire_kept(ID), "it is not kept any more");
}

#[test]
fn the_keeping_of_a_lapsed_lease_ends_once() {
    let (table, entry) = one();
    assert_eq!(entry.look(30_000), Look::Lapsed);
    table.keep_lapsed(ID);
    assert!(table.expire_kept(ID) && !table.expire_kept(ID));
    assert_eq!(renew(&table, 90_000), Renewal::Unknown);
    assert!(table.is_lapsed(ID) && table.take_returned().is_empty());
}

#[test]
fn what_could_not_be_written_is_looked_at_again() {
    let (table, entry) = one();
    assert_eq!(entry.look(30_000), Look::Lapsed);
    table.postpone(ID, 31_000);
    assert!(Arc::ptr_eq(&timer(&table), &entry));
    assert_eq!(entry.look(30_500), Look::At(31_000));
    assert_eq!(entry.look(31_000), Look::Lapsed);
    table.postpone(ID, 32_000);
    assert_eq!((renew(&table, 31_500), table.take_returned()), (KEPT, vec![ID]));
}

#[test]
fn the_timer_of_an_earlier_setting_is_stale() {
    let (table, entry) = one();
    table.set(ID, Duration::from_secs(1), ours(5_000));
    assert_eq!(entry.look(60_000), Look::Stale);
    assert_eq!(timer(&table).look(5_900), Look::Overdue(6_000));
    table.set(ID, TTL, ours(6_000));
    assert_eq!(table.take_returned(), [ID], "who registers is heard");
    table.remove(ID);
    assert_eq!(renew(&table, 0), Renewal::Unknown);
    assert_eq!(timer(&table).look(60_000), Look::Stale);
}

#[test]
fn a_deadline_is_never_further_away_than_a_ttl() {
    let (table, entry) = one();
    // As after a pause of a minute that the clock has then taken out.
    renew(&table, 60_000);
    assert_eq!(entry.look(5_000), Look::At(25_000));
    assert_eq!(entry.look(35_000), Look::Lapsed);
}

#[test]
fn a_load_report_is_the_last_one() {
    let (table, _) = one();
    table.renew(ID, 1, None, Some(Load { cpu: Some(0.5), ..Load::default() }));
    renew(&table, 2);
    assert_eq!(table.load(ID).and_then(|load| load.cpu), Some(0.5));
}

#[test]
fn a_digest_is_compared_by_who_is_as_new() {
    let (table, _) = one();
    table.set_digest(ID, Digest(5));
    table.set_applied(Revision(3));
    let renew = |digest, revision| {
        table.renew(ID, 1, Some(Known { digest: Digest(digest), revision: Revision(revision) }), None)
    };
    for (digest, revision, answer) in [
        (5, 1, KEPT),
        (5, 3, KEPT),
        (6, 3, Renewal::Differs),
        (6, 1, Renewal::Differs),
        // We are behind, and cannot tell.
        (6, 4, KEPT),
    ] {
        assert_eq!(renew(digest, revision), answer, "{digest} at {revision}");
    }
}

#[test]
fn the_first_heartbeat_of_those_that_came_together_is_spread() {
    let table = LeaseTable::default();
    table.set(ID, TTL, Whose::Ours { from_ms: 0, spread: true });
    assert_eq!(renew(&table, 1), Renewal::Kept { ttl: TTL, spread: true });
    assert_eq!(renew(&table, 2), KEPT);
    assert!(table.take_returned().is_empty());
}
