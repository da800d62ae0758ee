//! What goes wrong with the file, each with the error that is told of it.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    sync::{Condvar, Mutex as StdMutex},
    time::Instant,
};

use redb::{BackendError, StorageBackend, backends::FileBackend};
use tempfile::TempDir;

use super::*;
use crate::{
    model::{Limits, parse},
    registry::{Heard, Registry},
    storage::{Key, Record, conformance::instance},
    telemetry::Metrics,
};

const INSTANCES: usize = 300;

fn put(id: &str) -> Transaction {
    let (key, record) = instance("a", id, 1);
    Transaction { changes: vec![Change { key, record: Some(record) }], ..Transaction::default() }
}

/// A store that was closed in peace, with what is in it.
async fn filled() -> (TempDir, Vec<(Key, Revision, Record)>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _opened) = RedbStore::open(directory.path(), "id").expect("it opens");
    let transactions = (1..INSTANCES).map(|number| put(&number.to_string())).collect();
    assert!(store.commit(transactions).await.iter().all(Result::is_ok));
    // An older state than the last would be without it.
    assert!(store.commit(vec![put("last")]).await[0].is_ok());
    drop(store);
    let copy = tempfile::tempdir().expect("a directory");
    fs::copy(directory.path().join(FILE), copy.path().join(FILE)).expect("a copy");
    let (_, opened) = RedbStore::open(copy.path(), "other").expect("it opens");
    assert_eq!(opened.records.len(), INSTANCES);
    (directory, opened.records)
}

fn refused(directory: &Path) -> String {
    let error = RedbStore::open(directory, "other").expect_err("it must not open").to_string();
    assert!(error.contains(&directory.join(FILE).display().to_string()), "it names the file: {error}");
    error
}

fn is_told_damaged(error: &str) {
    assert!(error.contains("convoy restore --force"), "{error}");
}

/// Whatever happened to the file: it is refused, or all of it is there.
fn refused_or_whole(directory: &Path, records: &[(Key, Revision, Record)], what: &str) -> bool {
    match RedbStore::open(directory, "other") {
        Ok((_, opened)) => {
            assert_eq!(opened.records, records, "{what}");
            assert_eq!((opened.store_id.as_str(), opened.revision), ("id", Revision(INSTANCES as u64)), "{what}");
            false
        }
        Err(error) => {
            is_told_damaged(&error.to_string());
            true
        }
    }
}

#[tokio::test]
async fn a_byte_that_was_changed_is_never_served() {
    let (directory, records) = filled().await;
    let path = directory.path().join(FILE);
    let whole = fs::read(&path).expect("a file");
    // All of the header, and all over the rest.
    let places = (0..320).chain((320..whole.len()).step_by(whole.len() / 150));
    let mut found = 0;
    for place in places {
        let file = OpenOptions::new().write(true).open(&path).expect("a file");
        file.write_all_at(&whole, 0).expect("written");
        file.set_len(whole.len() as u64).expect("set");
        file.write_all_at(&[whole[place] ^ 0xff], place as u64).expect("written");
        found += usize::from(refused_or_whole(directory.path(), &records, &format!("byte {place}")));
    }
    println!("{found} changed bytes were found out; the others mean nothing");
    assert!(found > 50, "{found}");
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_never_served() {
    let (directory, records) = filled().await;
    let path = directory.path().join(FILE);
    let whole = fs::read(&path).expect("a file");
    for length in [0, 1, 64, 319, 320, 4095, 4096, 8192, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        fs::write(&path, &whole[..length]).expect("written");
        let found = refused_or_whole(directory.path(), &records, &format!("{length} bytes"));
        assert!(found || length > whole.len() / 2, "cut off after {length} bytes, and nobody says so");
    }
    fs::write(&path, "something else entirely").expect("written");
    is_told_damaged(&refused(directory.path()));
}

#[tokio::test]
async fn a_newer_file_is_refused_and_stays_as_it_is() {
    let (directory, _) = filled().await;
    let file = StoreFile::open(&directory.path().join(FILE), Look::Verify).expect("it opens");
    file.set_schema(SCHEMA + 1).expect("written");
    drop(file);
    let error = refused(directory.path());
    assert!(error.contains("schema 2") && error.contains("knows up to 1") && error.contains("newer Convoy"), "{error}");
    assert!(refused(directory.path()).contains("schema 2"), "nobody has written to it");
}

#[tokio::test]
async fn a_second_one_is_refused_and_the_first_goes_on() {
    let (directory, _) = filled().await;
    let (first, _opened) = RedbStore::open(directory.path(), "other").expect("it opens");
    let error = refused(directory.path());
    assert!(error.contains("another process has it open"), "{error}");
    first.commit(vec![put("x")]).await[0].as_ref().expect("written");
}

#[tokio::test]
async fn a_start_that_was_cut_off_leaves_nothing_in_the_way() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(file::beside(&directory.path().join(FILE), "new"), "half a store").expect("written");
    let (_store, opened) = RedbStore::open(directory.path(), "id").expect("it opens");
    assert_eq!((opened.store_id.as_str(), opened.records.len()), ("id", 0));
}

/// What is written to a file that nobody will find again is not acknowledged.
#[tokio::test]
async fn a_file_that_was_taken_away_or_replaced_is_not_written_to() {
    let (directory, _) = filled().await;
    let (path, aside) = (directory.path().join(FILE), directory.path().join("aside"));
    let (store, mut opened) = RedbStore::open(directory.path(), "other").expect("it opens");
    let why = async |id: &str| match &store.commit(vec![put(id)]).await[..] {
        [Err(CommitError::Unavailable(why))] => why.clone(),
        outcomes => panic!("{outcomes:?}"),
    };
    fs::rename(&path, &aside).expect("moved");
    for id in ["x", "y"] {
        let why = why(id).await;
        assert!(why.contains(FILE) && why.contains("it is gone") && why.contains("convoy backup"), "{why}");
    }
    assert!(!path.exists(), "no empty one has been made");
    let beginning = Beginning { store_id: "another", revision: Revision(1), restored: false };
    file::make(&path, &beginning, |_| Ok::<_, redb::Error>(())).expect("made");
    let told = why("y").await;
    assert!(told.contains("another store") && told.contains("restart Convoy"), "{told}");
    // Put back, it goes on: what had been written to it before that was seen has happened, and is told.
    fs::rename(&aside, &path).expect("moved");
    let at = Revision(INSTANCES as u64);
    assert_eq!(store.commit(vec![put("z")]).await, [Ok(Revision(at.0 + 2))]);
    let told: Vec<_> = std::iter::from_fn(|| opened.commits.try_recv().ok()).map(|commit| commit.revision.0).collect();
    assert_eq!(told, [at.0 + 1, at.0 + 2]);
}

/// A disk whose syncs wait until they are let through.
#[derive(Debug)]
struct Slow {
    file: FileBackend,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    closed: StdMutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().expect("a gate") = closed;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().expect("a gate");
        drop(self.opened.wait_while(closed, |closed| *closed).expect("a gate"));
    }
}

impl StorageBackend for Slow {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.gate.pass();
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), std::io::Error> {
        self.file.close()
    }

    fn try_lock_range(&self, start: std::ops::Bound<u64>, end: std::ops::Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: std::ops::Bound<u64>, end: std::ops::Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_sync_is_slow_leases_are_renewed_and_all_is_read() {
    const SLOW: Duration = Duration::from_millis(1_200);
    let (directory, _) = filled().await;
    let (path, gate) = (directory.path().join(FILE), Arc::<Gate>::default());
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("a file");
    let identity = file.metadata().expect("a file").into();
    let slow = Slow { file: FileBackend::new(file).expect("a file"), gate: gate.clone() };
    let file = StoreFile::open_on(slow, identity, Look::Verify).expect("it opens");
    let (store, opened) = RedbStore::begin(path, file).expect("it opens");
    let metrics = Arc::new(Metrics::default());
    let (registry, _task) = Registry::start(Arc::new(store), opened, Limits::default().into(), metrics.clone());
    let register = |id: &str| {
        let (_, Record::Instance(record)) = instance("slow", id, 1) else { panic!("an instance") };
        let key = parse::instance_key("", "slow", id).expect("a key");
        let registry = registry.clone();
        tokio::spawn(async move { registry.register(None, None, None, vec![(key, record.spec.clone())]).await })
    };
    let (_, held) = register("first").await.expect("it ends").expect("registered");

    gate.set(true);
    let begun = Instant::now();
    let second = register("second");
    while begun.elapsed() < SLOW {
        assert!(matches!(registry.heartbeat(held.lease, None, None), Heard::Kept(_)));
        assert_eq!(registry.snapshot().services.values().map(|service| service.instances.len()).sum::<usize>(), 1);
        tokio::task::yield_now().await;
    }
    assert!(!second.is_finished(), "it is not durable, and nobody says that it is");
    gate.set(false);
    let (outcome, _) = second.await.expect("it ends").expect("registered");
    assert_eq!(registry.snapshot().revision, outcome.revision);
    let text = metrics.render(&registry.census());
    let sum = text.lines().find_map(|line| line.strip_prefix("convoy_store_commit_seconds_sum ")).expect("a metric");
    // A little of the time is that in which it was on its way there.
    assert!(sum.parse::<f64>().expect("a number") > SLOW.as_secs_f64() / 2.0, "{sum}");
}
