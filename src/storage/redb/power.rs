//! The power fails. What was synced is on the disk; of what was written since, any part may be. Whenever that happens, the
//! file opens, and everything that was acknowledged by then is in it.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use redb::StorageBackend;

use super::*;
use crate::storage::conformance::instance;

const COMMITS: usize = 40;
/// How often the power fails at each moment, each time with another part of what was not synced.
const TRIES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Length(usize),
}

fn apply(bytes: &mut Vec<u8>, change: &Step) {
    match change {
        Step::Length(length) => bytes.resize(*length, 0),
        Step::Write(at, data) => {
            bytes.resize(bytes.len().max(at + data.len()), 0);
            bytes[*at..at + data.len()].copy_from_slice(data);
        }
    }
}

#[derive(Debug)]
struct Contents {
    seen: Vec<u8>,
    synced: Vec<u8>,
    since: Vec<Step>,
    random: StdRng,
    /// What was on the disk when the power failed, and how much had been acknowledged.
    failures: Vec<(Vec<u8>, usize)>,
}

#[derive(Clone, Debug)]
struct Disk {
    contents: Arc<Mutex<Contents>>,
    acknowledged: Arc<AtomicUsize>,
}

impl Disk {
    fn with<T>(&self, look: impl FnOnce(&mut Contents) -> T) -> T {
        look(&mut self.contents.lock().expect("a disk"))
    }

    fn fail(&self) {
        let acknowledged = self.acknowledged.load(SeqCst);
        self.with(|contents| {
            for _ in 0..TRIES {
                let mut bytes = contents.synced.clone();
                for change in &contents.since {
                    if contents.random.random() {
                        apply(&mut bytes, change);
                    }
                }
                contents.failures.push((bytes, acknowledged));
            }
        });
    }

    fn change(&self, change: Step) {
        self.with(|contents| {
            apply(&mut contents.seen, &change);
            contents.since.push(change);
        });
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.with(|contents| contents.seen.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let at = usize::try_from(offset).expect("a small file");
        self.with(|contents| out.copy_from_slice(&contents.seen[at..at + out.len()]));
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), std::io::Error> {
        self.change(Step::Length(usize::try_from(length).expect("a small file")));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.fail();
        self.with(|contents| {
            contents.synced.clone_from(&contents.seen);
            contents.since.clear();
        });
        self.fail();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.change(Step::Write(usize::try_from(offset).expect("a small file"), data.to_vec()));
        Ok(())
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_whenever_the_power_fails() {
    let seed = rand::random();
    println!("seed {seed}");
    let directory = tempfile::tempdir().expect("a directory");
    drop(RedbStore::open(directory.path(), "id").expect("it opens"));
    let path = directory.path().join(FILE);
    let bytes = std::fs::read(&path).expect("a file");
    let identity = std::fs::metadata(&path).expect("a file").into();
    let contents = Contents {
        seen: bytes.clone(),
        synced: bytes,
        since: Vec::new(),
        random: StdRng::seed_from_u64(seed),
        failures: Vec::new(),
    };
    let disk = Disk { contents: Arc::new(Mutex::new(contents)), acknowledged: Arc::default() };
    let file = StoreFile::open_on(disk.clone(), identity, Look::Verify).expect("it opens");
    let (store, mut opened) = RedbStore::begin(path, file).expect("it opens");
    disk.with(|contents| contents.failures.clear());
    for number in 0..COMMITS {
        let (key, record) = instance("a", &number.to_string(), 1);
        let write = Transaction { changes: vec![Change { key, record: Some(record) }], ..Transaction::default() };
        assert_eq!(store.commit(vec![write]).await, [Ok(Revision(number as u64 + 1))]);
        opened.commits.recv().await.expect("told");
        disk.acknowledged.store(number + 1, SeqCst);
        disk.fail();
    }
    let failures = disk.with(|contents| std::mem::take(&mut contents.failures));
    println!("the power failed {} times", failures.len());
    assert!(failures.len() >= COMMITS * TRIES * 3);
    for (bytes, acknowledged) in failures {
        let after = tempfile::tempdir().expect("a directory");
        std::fs::write(after.path().join(FILE), bytes).expect("written");
        let (_, opened) = RedbStore::open(after.path(), "other").expect("it opens");
        // The one under way is there or is not.
        let there = opened.records.len();
        assert!(there == acknowledged || there == acknowledged + 1, "{there} of {acknowledged}");
        assert_eq!(opened.revision, Revision(there as u64));
    }
}
