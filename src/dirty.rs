//! State, not queues: names that are dirty for a reader, each at most once, whatever the rate of change.

use std::{collections::BTreeSet, sync::Mutex};

use tokio::sync::Notify;

#[derive(Debug)]
pub struct DirtySet<K> {
    names: Mutex<BTreeSet<K>>,
    notify: Notify,
}

impl<K> Default for DirtySet<K> {
    fn default() -> Self {
        Self { names: Mutex::default(), notify: Notify::new() }
    }
}

impl<K: Ord> DirtySet<K> {
    pub fn mark(&self, names: impl IntoIterator<Item = K>) {
        {
            let mut dirty = self.names.lock().expect("nothing panics while it holds this lock");
            dirty.extend(names);
            if dirty.is_empty() {
                return;
            }
        }
        self.notify.notify_one();
    }

    /// Looks at what is dirty, and leaves it there.
    pub fn look<T>(&self, look: impl FnOnce(&BTreeSet<K>) -> T) -> T {
        look(&self.names.lock().expect("nothing panics while it holds this lock"))
    }

    /// Waits until something is dirty. For one reader, who then takes it.
    pub async fn wait(&self) {
        loop {
            let notified = self.notify.notified();
            if !self.look(BTreeSet::is_empty) {
                return;
            }
            notified.await;
        }
    }

    /// Takes all that is dirty now.
    pub fn take_now(&self) -> BTreeSet<K> {
        std::mem::take(&mut *self.names.lock().expect("nothing panics while it holds this lock"))
    }

    /// Waits until something is dirty, and takes all that is. Cancel-safe: nothing is taken before it is ready.
    pub async fn take(&self) -> BTreeSet<K> {
        loop {
            self.wait().await;
            let taken = self.take_now();
            if !taken.is_empty() {
                return taken;
            }
        }
    }
}
