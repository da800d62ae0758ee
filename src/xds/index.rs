//! Who is told of what. A slot of the cache leads to its subscribers; a subscriber is one stream, or a group of streams
//! that ask for the same names. So a thousand names that ten thousand proxies ask for are a thousand entries.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use super::{full::Full, name_set::NameSet, shared_view::SharedView};
use crate::model::{ResourceType, Revision};

/// What may have changed for one stream.
#[derive(Debug, Default)]
pub struct News {
    /// And since which revision.
    pub names: HashMap<(ResourceType, Arc<str>), Revision>,
    /// Which raw resources are meant for it, since a revision.
    pub selection: Option<Revision>,
    /// Something that concerns everybody: how ready Convoy is, or that it stops.
    pub wake: bool,
}

impl News {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.selection.is_none() && !self.wake
    }
}

/// Where a stream is told. State and no queue: a name is in it once, whatever the rate of changes.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// The stream's number.
    pub id: u64,
    news: Mutex<News>,
    notify: Notify,
}

impl Mailbox {
    pub fn new(id: u64) -> Self {
        Self { id, ..Self::default() }
    }

    fn tell(&self, kind: ResourceType, names: &[Arc<str>], revision: Revision) {
        {
            let mut news = lock(&self.news);
            for name in names {
                news.names.entry((kind, name.clone())).or_insert(revision);
            }
        }
        self.notify.notify_one();
    }

    pub(super) fn wake(&self) {
        lock(&self.news).wake = true;
        self.notify.notify_one();
    }

    pub(super) fn tell_selection(&self, revision: Revision) {
        lock(&self.news).selection.get_or_insert(revision);
        self.notify.notify_one();
    }

    /// Waits until there are news. For one reader, who then takes them.
    pub async fn wait(&self) {
        loop {
            let notified = self.notify.notified();
            if !lock(&self.news).is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Takes what there is now.
    pub fn take(&self) -> News {
        std::mem::take(&mut *lock(&self.news))
    }

    /// Looks at what there is, and leaves it there.
    pub fn look<T>(&self, look: impl FnOnce(&News) -> T) -> T {
        look(&lock(&self.news))
    }
}

/// Streams of one view that ask for the same names of a type, or for its wildcard.
#[derive(Debug)]
pub struct Group {
    pub(super) id: u64,
    pub(super) kind: ResourceType,
    pub(super) view: Arc<SharedView>,
    /// None for the wildcard.
    pub(super) names: Option<Arc<NameSet>>,
    members: Mutex<Members>,
    /// Moves whenever something that it asks for has changed.
    generation: AtomicU64,
    full: Mutex<Option<(u64, Arc<Full>)>>,
}

#[derive(Debug, Default)]
struct Members {
    streams: HashMap<u64, Arc<Mailbox>>,
    /// The last one has left, and the group is being taken out of the index.
    closed: bool,
}

impl Group {
    pub(super) fn new(id: u64, kind: ResourceType, view: Arc<SharedView>, names: Option<Arc<NameSet>>) -> Self {
        let (members, generation, full) = Default::default();
        Self { id, kind, view, names, members, generation, full }
    }

    /// False if the group is no more.
    pub(super) fn join(&self, stream: &Arc<Mailbox>) -> bool {
        let mut members = lock(&self.members);
        if !members.closed {
            members.streams.insert(stream.id, stream.clone());
        }
        !members.closed
    }

    /// True if that was the last one.
    pub(super) fn leave(&self, stream: &Mailbox) -> bool {
        let mut members = lock(&self.members);
        members.streams.remove(&stream.id);
        members.closed = members.streams.is_empty();
        members.closed
    }

    pub(super) fn tell(&self, names: &[Arc<str>], revision: Revision) {
        if names.is_empty() {
            return;
        }
        self.generation.fetch_add(1, Ordering::Release);
        for stream in lock(&self.members).streams.values() {
            stream.tell(self.kind, names, revision);
        }
    }

    /// All that the group asks for, as it is now; made once for all of its streams.
    pub(super) fn full(&self, make: impl FnOnce() -> Full) -> Arc<Full> {
        let mut full = lock(&self.full);
        // What changes while it is made moves the generation, and it is made again for the next one.
        let generation = self.generation.load(Ordering::Acquire);
        match &*full {
            Some((of, full)) if *of == generation => full.clone(),
            _ => {
                let made = Arc::new(make());
                *full = Some((generation, made.clone()));
                made
            }
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Subscriber {
    Stream(Arc<Mailbox>),
    Group(Arc<Group>),
}

impl Subscriber {
    /// Streams and groups are numbered from the two ends.
    pub(super) fn id(&self) -> u64 {
        match self {
            Self::Stream(stream) => stream.id,
            Self::Group(group) => !group.id,
        }
    }

    pub(super) fn tell(&self, kind: ResourceType, names: &[Arc<str>], revision: Revision) {
        match self {
            Self::Stream(stream) => stream.tell(kind, names, revision),
            Self::Group(group) => group.tell(names, revision),
        }
    }
}

/// Where a stream stands in the index for one type.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) group: Option<Arc<Group>>,
    /// Names that it follows by itself.
    pub(super) own: BTreeSet<Arc<str>>,
    pub(super) wildcard: Option<Arc<Group>>,
}

/// What is behind these locks is written whole. If a resource could not be built, that ends its stream, whose end takes the
/// same locks; a second panic there would end Convoy.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Namespace, translate::View, xds::shared_view::Views};

    #[test]
    fn a_panic_while_everything_is_laid_out_is_that_of_one_stream() {
        let view = View { namespace: Namespace::default(), outbound: None, imports: None, grpc: false };
        let group = Group::new(1, ResourceType::Cluster, Views::default().share(&view, Default::default()), None);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| group.full(|| panic!("not to be built"))));
        assert!(panic.is_err());
        assert!(group.full(|| Full::of(std::iter::empty(), |_| None)).base.is_empty());
    }
}
