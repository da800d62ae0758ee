//! The follower: it watches etcd and tells the registry, and says whether etcd can be reached.
//!
//! One member at a time is followed. Every second it is asked for something that all members have agreed on; when it
//! cannot say, the next one is followed instead, from the revision behind the last that was told. So a member that is cut
//! off from the others, or stopped, is noticed though its watch stays open. When what is to be told next is compacted,
//! everything is read, and the difference told (`told`).
//!
//! Telling is one step: a place in the channel is reserved first, then what was told is noted and sent. So wherever the
//! follower is interrupted, nothing is lost and nothing told twice.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tonic::Streaming;

use super::{
    client::{ATTEMPT, Client},
    failure::Failure,
    identity::{self, Identity},
    keys::Keys,
    read,
    rpc::{ResponseHeader, WatchCreateRequest, WatchResponse},
    told::{Told, revision},
};
use crate::{
    model::Revision,
    storage::{Commit, Health},
};

const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// An election, and one member that does not answer, pass without etcd being taken as away.
const AWAY_AFTER: Duration = Duration::from_secs(3);
/// Between two turns through members none of which can be followed.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What the follower shares with those who write.
#[derive(Debug)]
pub struct Shared {
    pub keys: Keys,
    pub told: Mutex<Told>,
    /// Up to where was told; it moves after `told` has.
    pub progress: watch::Sender<Revision>,
    pub health: watch::Sender<Health>,
}

#[derive(Debug)]
pub struct Follower {
    pub client: Arc<Client>,
    pub shared: Arc<Shared>,
    pub identity: Identity,
    pub commits: mpsc::Sender<Commit>,
}

/// Why a member is followed no longer.
#[derive(Debug)]
enum End {
    /// Another member may do.
    Lost(Failure),
    /// What was to be told next is gone.
    Compacted,
    /// Nobody listens any more.
    Unheard,
    /// What is there now is not what the registry was built from.
    AnotherStore(String),
    /// Nor is it this, which has the same id: it was restored to an older state, up to this revision.
    WentBack(Revision),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Compacted => Self::Compacted,
            failure => Self::Lost(failure),
        }
    }
}

impl Follower {
    /// Ends when nobody listens, or when the store is another one: the registry has to begin anew then.
    pub async fn run(self) {
        let (mut member, mut pause, mut turns) = (self.client.preferred(), PAUSE, 0);
        let mut last_seen = Instant::now();
        loop {
            let end = self.follow(member, &mut last_seen).await;
            match end {
                End::Unheard => return,
                End::AnotherStore(why) => {
                    return tracing::error!(
                        why,
                        "this is another store than the one that was opened: start Convoy again"
                    );
                }
                End::WentBack(at) => {
                    self.rename().await;
                    let told = self.revision();
                    return tracing::error!(%at, %told, "the store was restored to an older state: start Convoy again");
                }
                End::Compacted => match self.resynchronise().await {
                    Ok(()) => continue,
                    // Whether it is another store turns out when a member is followed.
                    Err(End::Unheard) => return,
                    Err(end) => self.lost(member, &end, last_seen),
                },
                End::Lost(_) => self.lost(member, &end, last_seen),
            }
            if last_seen.elapsed() < PROBE_INTERVAL {
                (turns, pause) = (0, PAUSE);
            }
            member += 1;
            turns += 1;
            if turns % self.client.members() == 0 {
                sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    fn lost(&self, member: usize, end: &End, last_seen: Instant) {
        let reason = match end {
            End::Lost(failure) => failure.to_string(),
            other => format!("{other:?}"),
        };
        let address = self.client.address(member);
        tracing::debug!(address, reason, "a member of etcd can not be followed");
        if last_seen.elapsed() < AWAY_AFTER {
            return;
        }
        let away = Health::Away { since: last_seen, reason: reason.as_str().into() };
        let begins = self.shared.health.send_if_modified(|health| {
            let begins = *health == Health::Live;
            let changes = *health != away;
            *health = away;
            begins || changes
        });
        if begins {
            tracing::warn!(reason, "etcd is away: what is known is served on, and nothing can be written");
        }
    }

    /// Follows one member until that does not go on.
    async fn follow(&self, member: usize, last_seen: &mut Instant) -> End {
        let mut stream = match self.open(member).await {
            Ok(stream) => stream,
            Err(end) => return end,
        };
        *last_seen = Instant::now();
        self.client.prefer(member);
        let was = self.shared.health.send_replace(Health::Live);
        let address = self.client.address(member);
        match was {
            Health::Live => tracing::debug!(address, "following a member of etcd"),
            Health::Away { .. } => tracing::info!(address, "etcd is back"),
        }
        tokio::select! {
            end = self.tell(&mut stream) => end,
            end = self.keep_probing(member, last_seen) => end,
        }
    }

    async fn open(&self, member: usize) -> Result<Streaming<WatchResponse>, End> {
        self.probe(member).await?;
        let (key, range_end) = self.shared.keys.all();
        let start_revision = self.revision().0.saturating_add(1).try_into().unwrap_or(i64::MAX);
        let create = WatchCreateRequest { key, range_end, start_revision, progress_notify: true, fragment: true };
        let mut stream = self.client.watch_at(member, create).await?;
        let created = match timeout(ATTEMPT, stream.message()).await {
            Ok(Ok(Some(created))) => created,
            Ok(Ok(None)) => return Err(End::Lost(Failure::Away("the watch has ended".into()))),
            Ok(Err(status)) => return Err(Failure::from(status).into()),
            Err(_) => return Err(End::Lost(Failure::Away("the watch does not begin".into()))),
        };
        self.canceled(&created)?;
        Ok(stream)
    }

    fn canceled(&self, response: &WatchResponse) -> Result<(), End> {
        if response.compact_revision != 0 {
            return Err(End::Compacted);
        }
        if response.canceled {
            // etcd does not say whether it was for an old token.
            self.client.forget_token();
            return Err(End::Lost(Failure::Refused(response.cancel_reason.clone())));
        }
        Ok(())
    }

    async fn keep_probing(&self, member: usize, last_seen: &mut Instant) -> End {
        loop {
            sleep(PROBE_INTERVAL).await;
            match self.probe(member).await {
                Ok(()) => *last_seen = Instant::now(),
                Err(end) => return end,
            }
        }
    }

    /// Asks the member for what all have agreed on, and looks whether it is still the same store.
    async fn probe(&self, member: usize) -> Result<(), End> {
        let told = self.revision();
        let answer = self.client.range_at(member, self.shared.keys.probe()).await?;
        let ResponseHeader { cluster_id, revision: at, .. } = answer.header.unwrap_or_default();
        let store = answer.kvs.into_iter().next().map(|kv| kv.value).unwrap_or_default();
        if (Identity { cluster: cluster_id, store }) != self.identity {
            return Err(End::AnotherStore("its id has changed".into()));
        }
        if revision(at) < told {
            return Err(End::WentBack(revision(at)));
        }
        Ok(())
    }

    /// Gives the store another id, so that nobody takes its new revisions for those that were before. If it cannot be done
    /// somebody else may; whoever comes first.
    async fn rename(&self) {
        let new_store_id = uuid::Uuid::new_v4().simple().to_string();
        if let Err(error) = identity::rename(&self.client, &self.shared.keys, &self.identity, new_store_id).await {
            tracing::warn!(%error, "the restored store keeps its id: delete its key m/store_id before Convoy starts again");
        }
    }

    fn revision(&self) -> Revision {
        self.shared.told.lock().expect("nothing panics while it holds this lock").revision()
    }

    /// Tells what the watch says.
    async fn tell(&self, stream: &mut Streaming<WatchResponse>) -> End {
        let mut events = Vec::new();
        loop {
            let response = match stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return End::Lost(Failure::Away("the watch has ended".into())),
                Err(status) => return Failure::from(status).into(),
            };
            if let Err(end) = self.canceled(&response) {
                return end;
            }
            // Only what comes without events says that nothing was before it.
            let progress = (response.events.is_empty() && events.is_empty() && !response.created)
                .then(|| revision(response.header.unwrap_or_default().revision));
            events.extend(response.events);
            if response.fragment {
                continue;
            }
            let groups = self.lock().group(std::mem::take(&mut events), progress);
            for (at, events) in groups {
                if self.send(|told| told.commit(at, events)).await.is_err() {
                    return End::Unheard;
                }
            }
        }
    }

    /// Reads everything, and tells the difference.
    async fn resynchronise(&self) -> Result<(), End> {
        let started = Instant::now();
        let read = read::everything(&self.client, &self.shared.keys).await?;
        let (records, at) = (read.values.len(), read.revision);
        if at < self.revision() {
            return Err(End::WentBack(at));
        }
        let changes = self.send(|told| told.difference(read)).await?;
        let took_ms = started.elapsed().as_millis();
        tracing::info!(records, changes, revision = %at, took_ms, "what was missed is gone from etcd's history: read again");
        Ok(())
    }

    /// Tells one commit; how many changes it had.
    async fn send(&self, tell: impl FnOnce(&mut Told) -> Commit) -> Result<usize, End> {
        let place = self.commits.reserve().await.map_err(|_| End::Unheard)?;
        let (at, changes) = {
            let mut told = self.lock();
            let commit = tell(&mut told);
            let of = (commit.revision, commit.changes.len());
            // Under the lock: who sees that something was told finds it in the channel.
            place.send(commit);
            of
        };
        self.shared.progress.send_replace(at);
        Ok(changes)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.shared.told.lock().expect("nothing panics while it holds this lock")
    }
}
