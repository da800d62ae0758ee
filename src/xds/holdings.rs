//! What a stream's client has, name by name.

use convoy_client::proto::{ProxyResource, SyncState};

use super::{
    standing::{Holding, Lag, any},
    status::Stream,
};
use crate::translate::ResourceType;

impl Stream {
    /// All names that the client asked for or was sent, of the types wanted, and how each stands.
    pub fn holdings(&self, wanted: impl Fn(&Holding) -> bool) -> Vec<(Holding, SyncState)> {
        self.look(|standing| {
            let mut holdings = standing.session.holdings();
            holdings.retain(wanted);
            holdings.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
            let kinds: std::collections::BTreeSet<ResourceType> = holdings.iter().map(|holding| holding.kind).collect();
            let lagging: std::collections::BTreeMap<_, _> =
                kinds.into_iter().map(|kind| (kind, standing.lagging(kind))).collect();
            let lag = |holding: &Holding| lagging.get(&holding.kind)?.get(&holding.name).copied();
            let sync = |holding: Holding| {
                let sync = state(&holding, lag(&holding));
                (holding, sync)
            };
            holdings.into_iter().map(sync).collect()
        })
    }
}

fn state(holding: &Holding, lag: Option<Lag>) -> SyncState {
    match lag {
        // A newer content of what was refused is on its way.
        Some(Lag::Pending) => SyncState::Pending,
        Some(Lag::Rejected) => SyncState::Rejected,
        None if holding.rejected => SyncState::Rejected,
        None if holding.sent != holding.acked => SyncState::Pending,
        None if holding.sent.is_none() => SyncState::Absent,
        None => SyncState::Synced,
    }
}

/// A name as the API shows it.
pub fn describe((holding, sync): (Holding, SyncState), address: &str) -> ProxyResource {
    let version = |version: Option<super::resource::Version>| version.map(|v| v.to_string()).unwrap_or_default();
    let resource = holding.acked_resource.as_deref().map(any);
    ProxyResource {
        r#type: holding.kind.as_str().into(),
        name: holding.name.to_string(),
        sync: sync.into(),
        version_acked: version(holding.acked),
        version_sent: version(holding.sent),
        resource: resource.map(|any| prost_types::Any { type_url: any.type_url, value: any.value }),
        address: address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::resource::Version;

    #[test]
    fn a_name_stands_as_it_was_sent_and_answered() {
        let version = |number: u128| (number > 0).then_some(Version(number));
        for (sent, acked, rejected, lag, expected) in [
            (0, 0, false, None, SyncState::Absent),
            (0, 0, false, Some(Lag::Pending), SyncState::Pending),
            (1, 1, false, None, SyncState::Synced),
            (2, 1, false, None, SyncState::Pending),
            (1, 1, true, Some(Lag::Rejected), SyncState::Rejected),
            (0, 0, true, None, SyncState::Rejected),
            (2, 1, true, Some(Lag::Pending), SyncState::Pending),
        ] {
            let holding = Holding {
                kind: ResourceType::Cluster,
                name: "web".into(),
                sent: version(sent),
                acked: version(acked),
                acked_resource: None,
                rejected,
            };
            assert_eq!(state(&holding, lag), expected, "{holding:?} {lag:?}");
        }
    }
}
