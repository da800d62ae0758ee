//! A store made from a backup. It is another store than the one that the backup is of: it has an id of its own, so that a
//! watch that comes with an older token begins anew, and its revisions begin beyond all that may have been given away since
//! the backup, so that none that somebody remembers comes again with other contents. They begin beyond those of a store that
//! it replaces as well, which may itself have been made from that backup.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::file::{self, Beginning, FILE, Look, StoreFile, beside, explain};
use crate::{
    model::{Revision, UnixMillis},
    storage::backup::{self, Head, Unusable},
};

/// So far ahead of the backup and of the store that was there. At a hundred thousand writes a second the lost store would have needed four months.
pub const AHEAD: u64 = 1 << 40;

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(
        "there is a store in {0}: nothing was changed; with --force the backup takes its place, and it is kept beside it"
    )]
    Exists(PathBuf),
    #[error("a running Convoy has {0} open: stop it first, it would not see what is restored")]
    InUse(PathBuf),
    #[error("nothing was restored: the backup cannot be used: {0}")]
    Backup(#[from] Unusable),
    #[error("nothing was restored: {path}: {why}")]
    Store { path: PathBuf, why: String },
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    pub head: Head,
    pub records: u64,
    pub path: PathBuf,
    /// The store that was there before.
    pub replaced: Option<PathBuf>,
}

/// An error of either side.
enum Failed {
    Backup(Unusable),
    Store(redb::Error),
}

impl From<Unusable> for Failed {
    fn from(error: Unusable) -> Self {
        Self::Backup(error)
    }
}

impl From<redb::Error> for Failed {
    fn from(error: redb::Error) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Makes the store of a data directory, whole or not at all. With `force` one that is there is replaced.
pub fn restore(
    data_dir: &Path,
    new_store_id: &str,
    from: impl Fn() -> io::Result<Box<dyn Read>>,
    force: bool,
    now: UnixMillis,
) -> Result<Restored, RestoreError> {
    let path = data_dir.join(FILE);
    let failed = |failed: Failed| match failed {
        Failed::Backup(error) => RestoreError::Backup(error),
        Failed::Store(error) => RestoreError::Store { path: path.clone(), why: explain(&error) },
    };
    fs::create_dir_all(data_dir).map_err(|error| failed(error.into()))?;
    let there = path.try_exists().map_err(|error| failed(error.into()))?;
    if there && !force {
        return Err(RestoreError::Exists(path));
    }
    let open = || from().map_err(Unusable::Read);
    // It is read to its end before anything is touched. Its head says where revisions begin.
    let (head, records) = backup::read::<Unusable>(open()?, |_, _| Ok(()))?;
    // It stays open, so that nobody opens it before it is replaced. One that cannot be opened nobody uses.
    let held = there.then(|| StoreFile::open(&path, Look::Trust));
    if matches!(held, Some(Err(redb::Error::DatabaseAlreadyOpen))) {
        return Err(RestoreError::InUse(path));
    }
    let replaced = there.then(|| keep(&path, now)).transpose().map_err(|error| failed(error.into()))?;
    let revision = Revision(head.revision.max(last_of(held.as_ref())).0 + AHEAD);
    let beginning = Beginning { store_id: new_store_id, revision, restored: true };
    let fill = |insert: file::Insert<'_>| {
        let source = open().map_err(Failed::Backup)?;
        backup::read(source, |key, record| Ok(insert(key, record)?)).map(drop)
    };
    file::make(&path, &beginning, fill).map_err(failed)?;
    drop(held);
    Ok(Restored { head, records, path, replaced })
}

/// The last revision that a store may have given away; none if it cannot be read.
fn last_of(store: Option<&Result<StoreFile, redb::Error>>) -> Revision {
    let meta = store.and_then(|file| file.as_ref().ok()?.meta().ok());
    meta.map_or(Revision::default(), |meta| meta.revision.max(meta.ceiling))
}

/// Gives what is there a second name, under which it stays.
fn keep(path: &Path, now: UnixMillis) -> io::Result<PathBuf> {
    let aside = beside(path, &format!("replaced-{}", now.0));
    fs::hard_link(path, &aside).or_else(|_| fs::copy(path, &aside).map(drop))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Change, Storage, Transaction, backup::Writer, conformance::instance, redb::RedbStore};

    fn backup() -> Vec<u8> {
        let head = Head { store_id: "old".into(), revision: Revision(7), taken_at: UnixMillis(1), version: "0".into() };
        let mut writer = Writer::new(head);
        for id in ["1", "2"] {
            let (key, record) = instance("a", id, 1);
            writer.record(&key, Revision(5), &record);
        }
        writer.end();
        writer.take()
    }

    fn restored(directory: &Path, bytes: &[u8], force: bool) -> Result<Restored, RestoreError> {
        let from = || Ok(Box::new(io::Cursor::new(bytes.to_vec())) as Box<dyn Read>);
        restore(directory, "new", from, force, UnixMillis(3))
    }

    #[tokio::test]
    async fn it_is_another_store_with_later_revisions_and_says_once_that_it_was_restored() {
        let directory = tempfile::tempdir().expect("a directory");
        let done = restored(directory.path(), &backup(), false).expect("restored");
        assert_eq!((done.records, done.replaced), (2, None));
        let (store, opened) = RedbStore::open(directory.path(), "other").expect("it opens");
        assert_eq!((opened.store_id.as_str(), opened.revision.0, opened.restored), ("new", 7 + AHEAD, true));
        let revisions: Vec<_> = opened.records.iter().map(|(_, revision, _)| revision.0).collect();
        assert_eq!(revisions, [5, 5]);
        let (key, record) = instance("a", "3", 1);
        let write = Transaction { changes: vec![Change { key, record: Some(record) }], ..Transaction::default() };
        assert_eq!(store.commit(vec![write]).await, [Ok(Revision(8 + AHEAD))]);
        drop((store, opened));
        // Killed before whoever returned was told: it is still fresh.
        let (store, opened) = RedbStore::open(directory.path(), "other").expect("it opens");
        assert!(opened.restored);
        store.settled().await;
        drop((store, opened));
        assert!(!RedbStore::open(directory.path(), "other").expect("it opens").1.restored);
    }

    #[tokio::test]
    async fn a_backup_that_is_restored_again_begins_beyond_what_came_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        for time in 1..4 {
            restored(directory.path(), &backup(), true).expect("restored");
            let (store, opened) = RedbStore::open(directory.path(), "other").expect("it opens");
            assert_eq!(opened.revision.0, 7 + time * AHEAD + (time - 1));
            let (key, record) = instance("a", "3", 1);
            let write = Transaction { changes: vec![Change { key, record: Some(record) }], ..Transaction::default() };
            assert_eq!(store.commit(vec![write]).await, [Ok(Revision(opened.revision.0 + 1))]);
        }
        // What cannot be read says nothing.
        fs::write(directory.path().join(FILE), "").expect("written");
        restored(directory.path(), &backup(), true).expect("restored");
        assert_eq!(RedbStore::open(directory.path(), "other").expect("it opens").1.revision.0, 7 + AHEAD);
    }

    #[tokio::test]
    async fn what_is_there_stays_unless_all_is_well() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, opened) = RedbStore::open(directory.path(), "id").expect("it opens");
        let path = directory.path().join(FILE);
        assert!(matches!(restored(directory.path(), &backup(), true), Err(RestoreError::InUse(_))));
        drop((store, opened));
        let before = fs::read(&path).expect("a file");
        assert!(matches!(restored(directory.path(), &backup(), false), Err(RestoreError::Exists(_))));
        let cut = &backup()[..60];
        assert!(matches!(restored(directory.path(), cut, true), Err(RestoreError::Backup(Unusable::CutOff { .. }))));
        assert!(before == fs::read(&path).expect("a file"), "nothing was changed");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
        let done = restored(directory.path(), &backup(), true).expect("restored");
        let aside = tempfile::tempdir().expect("a directory");
        fs::copy(done.replaced.expect("it was there"), aside.path().join(FILE)).expect("a copy");
        assert_eq!(RedbStore::open(aside.path(), "other").expect("it opens").1.store_id, "id");
        assert_eq!(RedbStore::open(directory.path(), "other").expect("it opens").1.store_id, "new");
        // A damaged one is replaced as well.
        fs::write(&path, "").expect("written");
        restored(directory.path(), &backup(), true).expect("restored");
        assert_eq!(RedbStore::open(directory.path(), "other").expect("it opens").1.records.len(), 2);
    }
}
