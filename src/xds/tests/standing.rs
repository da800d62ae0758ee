//! What is told of a session: what the client has, lacks and refused.

use super::{BOTH, Bench, CDS, EDS};
use crate::{
    model::Revision,
    xds::{
        protocol::Dialect,
        standing::{Holding, Lag, any},
    },
};

const NOW: Revision = Revision(u64::MAX);

fn holding(bench: &Bench, name: &str) -> Holding {
    let holdings = bench.session.holdings();
    holdings.into_iter().find(|holding| *holding.name == *name).expect("a name that is followed")
}

#[test]
fn a_name_is_pending_until_its_newest_state_is_acked() {
    for dialect in BOTH {
        let mut bench = Bench::new(dialect);
        bench.change(EDS, "web", "1");
        assert_eq!(bench.session.pending(EDS), None, "nothing is asked for");
        bench.start(EDS, &["web"]);
        assert_eq!(bench.session.lags(EDS, "web", NOW), Some(Lag::Pending), "asked");
        let first = bench.one();
        assert_eq!(bench.session.lags(EDS, "web", NOW), Some(Lag::Pending), "on its way");
        bench.change(EDS, "web", "2");
        bench.ack(&first);
        assert_eq!(bench.session.lags(EDS, "web", NOW), Some(Lag::Pending), "changed since");
        bench.take();
        assert_eq!((bench.session.lags(EDS, "web", NOW), bench.session.pending(EDS)), (None, None));
        let web = holding(&bench, "web");
        assert_eq!((web.sent, web.rejected), (web.acked, false));
        let resource = web.acked_resource.expect("its bytes");
        assert_eq!(any(&resource).value, b"web=2");
    }
}

#[test]
fn what_is_refused_is_told_until_another_content_is_accepted() {
    for dialect in BOTH {
        let mut bench = Bench::new(dialect);
        bench.change(EDS, "web", "1");
        bench.start(EDS, &["web"]);
        bench.take();
        bench.change(EDS, "web", "2");
        let second = bench.one();
        bench.nack(&second, "web: bad");
        bench.silent();
        assert_eq!(bench.session.lags(EDS, "web", NOW), Some(Lag::Rejected));
        assert!(bench.session.has_rejected(EDS));
        assert_eq!(bench.session.pending(EDS), Some(Revision(1)), "it is behind since the change");
        assert_eq!(bench.session.lagging(EDS).into_iter().collect::<Vec<_>>(), [("web".into(), Lag::Rejected)]);
        let resource = holding(&bench, "web").acked_resource.expect("what it had before");
        assert_eq!(any(&resource).value, b"web=1");
        bench.change(EDS, "web", "3");
        assert_eq!(bench.session.lags(EDS, "web", NOW), Some(Lag::Pending));
        bench.take();
        assert_eq!((bench.session.lags(EDS, "web", NOW), bench.session.has_rejected(EDS)), (None, false));
    }
}

#[test]
fn who_follows_what() {
    for dialect in BOTH {
        let mut bench = Bench::new(dialect);
        bench.start(CDS, &[]);
        bench.start(EDS, &["web"]);
        for (kind, name, expected) in
            [(CDS, "web", true), (CDS, "other", true), (EDS, "web", true), (EDS, "other", false)]
        {
            assert_eq!(bench.session.is_subscribed(kind, name), expected, "{kind:?} {name}");
        }
        assert_eq!(bench.session.lags(EDS, "other", NOW), None);
    }
}

#[test]
fn a_name_without_anything_was_sent_in_no_version() {
    let mut bench = Bench::new(Dialect::Incremental);
    bench.start(EDS, &["nothing"]);
    bench.take();
    let nothing = holding(&bench, "nothing");
    assert_eq!((nothing.sent, nothing.acked), (None, None));
    assert_eq!(bench.session.lags(EDS, "nothing", NOW), None);
}

#[test]
fn who_came_back_up_to_date_has_what_it_brought() {
    let mut bench = Bench::new(Dialect::Incremental);
    bench.change(EDS, "web", "1");
    let version = bench.shelf.version(EDS, "web");
    bench.resume(EDS, &["web"], &[("web", version)]);
    bench.silent();
    let (_, status) = bench.session.status().next().expect("endpoints");
    assert!(status.version_acked.is_some() && status.version_acked == status.version_sent);
    assert!(holding(&bench, "web").acked_resource.is_some(), "it is the present one");
}

#[test]
fn a_refusal_is_forgotten_when_what_was_refused_is_gone() {
    for dialect in BOTH {
        // Back to what the client has.
        let mut bench = Bench::new(dialect);
        bench.change(EDS, "web", "1");
        bench.start(EDS, &["web"]);
        bench.take();
        bench.change(EDS, "web", "bad");
        let bad = bench.one();
        bench.nack(&bad, "web: bad");
        bench.change(EDS, "web", "1");
        bench.silent();
        assert_eq!((bench.session.pending(EDS), holding(&bench, "web").rejected), (None, false), "{dialect:?}");
        // Deleted, and never accepted.
        let mut bench = Bench::new(dialect);
        bench.change(CDS, "web", "bad");
        bench.start(CDS, &[]);
        let bad = bench.one();
        bench.nack(&bad, "web: bad");
        assert_eq!(bench.session.lagging(CDS).into_iter().collect::<Vec<_>>(), [("web".into(), Lag::Rejected)]);
        bench.remove(CDS, "web");
        bench.silent();
        assert_eq!(bench.session.pending(CDS), None, "{dialect:?}");
    }
}

#[test]
fn what_stands_in_for_something_refused_does_not_hide_the_refusal() {
    let mut bench = Bench::new(Dialect::Incremental);
    bench.change(EDS, "web", "1");
    bench.start(EDS, &["web"]);
    bench.take();
    bench.change(EDS, "web", "bad");
    let bad = bench.one();
    bench.nack(&bad, "web: bad");
    bench.subscribe(EDS, &["web"], &[]);
    assert_eq!(bench.take().resources, super::contents(&[("web", "1")]));
    assert_eq!(bench.session.lags(EDS, "web", NOW), Some(Lag::Rejected));
    bench.change(EDS, "web", "bad");
    bench.silent();
}
