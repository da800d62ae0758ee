//! The store's file: made, opened and read, with what can be wrong with it in words that name the way out.
//!
//! A new file is made under another name and gets its own when it is whole, so that what has the name is always a store:
//! one that is empty or cut off is damaged, and never taken for a new one. At the start all of it is verified by redb's
//! checksums before anything is read. The file says by which schema its records are to be read; an older Convoy does not
//! guess at a newer one.

use std::{
    any::Any,
    ffi::OsString,
    fs::{File, Metadata, OpenOptions},
    io::{self, ErrorKind},
    num::NonZero,
    os::unix::fs::MetadataExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, available_parallelism},
};

use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction,
    backends::FileBackend,
};

use crate::{
    model::Revision,
    storage::{Key, OpenError, Record, SCHEMA, record},
};

pub(super) const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const STORE_ID: &str = "store_id";
/// By which rules the records are written; see `SCHEMA`. None is the first one.
const SCHEMA_KEY: &str = "schema";
pub(super) const REVISION: &str = "revision";
/// No revision over this one has been given away: where revisions go on after a crash, see `Inner::ceiling`.
pub(super) const CEILING: &str = "ceiling";
/// It was made from a backup, and nobody has begun with it yet; see `Opened::is_fresh`.
const RESTORED: &str = "restored";
pub(crate) const FILE: &str = "convoy.redb";
/// redb's default is 1 GiB; all reads are the ones at start.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

pub(super) const REPLACED: &str = "another store has been put in its place: restart Convoy to serve that one";

/// Which file it is, whatever its name is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl From<Metadata> for Identity {
    fn from(of: Metadata) -> Self {
        Self { device: of.dev(), inode: of.ino() }
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct StoreFile {
    pub(super) database: Database,
    identity: Identity,
}

/// What stands beside the records.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) store_id: String,
    pub(super) revision: Revision,
    pub(super) ceiling: Revision,
    pub(super) restored: bool,
}

/// How thoroughly a file is looked at before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All of it is read and verified.
    Verify,
    /// It was verified before, by this process.
    Trust,
}

impl StoreFile {
    /// Opens what there is; it makes nothing.
    pub(super) fn open(path: &Path, look: Look) -> Result<Self, redb::Error> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let metadata = file.metadata()?;
        if metadata.len() == 0 {
            // redb would make a new store of it.
            return Err(io::Error::new(ErrorKind::InvalidData, "it is empty").into());
        }
        Self::open_on(FileBackend::new(file)?, metadata.into(), look)
    }

    pub(super) fn open_on(backend: impl StorageBackend, identity: Identity, look: Look) -> Result<Self, redb::Error> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(look == Look::Verify);
        Ok(Self { database: unpanicked(|| Ok(builder.create_with_backend(backend)?))?, identity })
    }

    /// Whether what has the name is still this file.
    pub(super) fn is_at(&self, path: &Path) -> Result<(), String> {
        let found = std::fs::metadata(path).map(Identity::from);
        match found {
            Ok(found) if found == self.identity => Ok(()),
            Ok(_) => Err(REPLACED.into()),
            Err(error) => Err(explain(&error.into())),
        }
    }

    pub(super) fn meta(&self) -> Result<Meta, redb::Error> {
        unpanicked(|| {
            let transaction = self.database.begin_read()?;
            let meta = transaction.open_table(META)?;
            let get = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|value| value.value().to_vec()));
            let revision = |value: Option<Vec<u8>>| value.as_deref().map(read_revision).unwrap_or_default();
            let schema = get(SCHEMA_KEY)?.map_or(SCHEMA, |value| read_schema(&value));
            if schema > SCHEMA {
                return Err(redb::Error::Backend(Newer(schema).into()));
            }
            let Some(store_id) = get(STORE_ID)? else {
                return Err(redb::Error::Corrupted("it has no id".into()));
            };
            Ok(Meta {
                store_id: String::from_utf8_lossy(&store_id).into_owned(),
                revision: revision(get(REVISION)?),
                ceiling: revision(get(CEILING)?),
                restored: get(RESTORED)?.is_some(),
            })
        })
    }

    /// A file's first schema is not said in it.
    pub(super) fn set_schema(&self, schema: u32) -> Result<(), redb::Error> {
        let transaction = write(&self.database)?;
        transaction.open_table(META)?.insert(SCHEMA_KEY, &schema.to_be_bytes()[..])?;
        Ok(transaction.commit()?)
    }

    /// Whoever begins with a restored store has begun.
    pub(super) fn set_begun(&self) -> Result<(), redb::Error> {
        let transaction = write(&self.database)?;
        transaction.open_table(META)?.remove(RESTORED)?;
        Ok(transaction.commit()?)
    }
}

/// Of a newer version.
#[derive(Debug, thiserror::Error)]
#[error("its records are of schema {0}, and this Convoy knows up to {SCHEMA}")]
struct Newer(u32);

fn read_schema(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(u32::MAX, u32::from_be_bytes)
}

fn read_revision(bytes: &[u8]) -> Revision {
    Revision(bytes.try_into().map(u64::from_be_bytes).unwrap_or_default())
}

pub(super) fn write(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// What a new file begins with.
pub(super) struct Beginning<'a> {
    pub(super) store_id: &'a str,
    pub(super) revision: Revision,
    pub(super) restored: bool,
}

/// Puts a record into a new file.
pub(super) type Insert<'a> = &'a mut dyn FnMut(&str, &[u8]) -> Result<(), redb::Error>;

/// Makes a file with these records, whole or not at all, in place of one that has the name.
pub(super) fn make<E: From<redb::Error>>(
    path: &Path,
    beginning: &Beginning<'_>,
    fill: impl FnOnce(Insert<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let io = |error: io::Error| E::from(error.into());
    let unnamed = beside(path, "new");
    match std::fs::remove_file(&unnamed) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let made = fill_new(&unnamed, beginning, fill).and_then(|()| {
        let synced = File::open(&unnamed).and_then(|file| file.sync_all());
        synced.and_then(|()| std::fs::rename(&unnamed, path)).map_err(io)
    });
    if made.is_err() {
        // It says nothing to anybody, and the next one that is made takes its place.
        let _ = std::fs::remove_file(&unnamed);
    }
    made?;
    sync_directory(path).map_err(io)
}

fn fill_new<E: From<redb::Error>>(
    path: &Path,
    beginning: &Beginning<'_>,
    fill: impl FnOnce(Insert<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let begin = || {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create(path)?;
        let transaction = write(&database)?;
        Ok::<_, redb::Error>((database, transaction))
    };
    let (database, transaction) = begin()?;
    {
        let mut records = transaction.open_table(RECORDS).map_err(redb::Error::from)?;
        fill(&mut |key, record| Ok(records.insert(key, record).map(drop)?))?;
    }
    let end = || {
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(STORE_ID, beginning.store_id.as_bytes())?;
            meta.insert(SCHEMA_KEY, &SCHEMA.to_be_bytes()[..])?;
            meta.insert(REVISION, &beginning.revision.0.to_be_bytes()[..])?;
            if beginning.restored {
                meta.insert(RESTORED, &[][..])?;
            }
        }
        transaction.commit()?;
        Ok::<_, redb::Error>(database.close()?)
    };
    Ok(end()?)
}

/// The file's name with more behind it.
pub(super) fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(what);
    name.into()
}

/// A new name is to survive a power loss as well.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

pub(super) type Records = Vec<(Key, Revision, Record)>;
/// Records as they stand in the file.
type Raw = Vec<(String, Vec<u8>)>;
/// So many go from the thread that reads to one that decodes, and so often before it waits.
const CHUNK: usize = 512;
const CHUNKS_WAITING: usize = 8;
/// To decode takes longer than to read; more than these would wait for what is read.
const DECODERS: usize = 4;

/// All records, in no order: several threads decode them.
pub(super) fn read_records(file: &StoreFile, path: &Path) -> Result<Records, OpenError> {
    let threads = available_parallelism().map_or(1, NonZero::get).min(DECODERS);
    thread::scope(|scope| {
        let decoder = |_| {
            let (chunks, receiver) = sync_channel::<Raw>(CHUNKS_WAITING);
            (chunks, scope.spawn(move || decode(path, &receiver)))
        };
        let (chunks, decoders): (Vec<_>, Vec<_>) = (0..threads).map(decoder).unzip();
        let read = unpanicked(|| read_chunks(&file.database, &chunks));
        drop(chunks);
        let mut records = Records::new();
        for decoder in decoders {
            let decoded = decoder.join().map_err(|panic| open_error(path, &of_panic(&*panic)))??;
            records.reserve_exact(decoded.len());
            records.extend(decoded);
        }
        read.map(|()| records).map_err(|error| open_error(path, &error))
    })
}

fn read_chunks(database: &Database, chunks: &[SyncSender<Raw>]) -> Result<(), redb::Error> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(RECORDS)?;
    let mut turns = chunks.iter().cycle();
    let mut raw = Raw::with_capacity(CHUNK);
    // One that has ended has found an error, which it tells.
    let mut send = |raw: &mut Raw| {
        turns.next().map(|chunks| chunks.send(std::mem::replace(raw, Raw::with_capacity(CHUNK))));
    };
    for entry in table.iter()? {
        let (key, value) = entry?;
        raw.push((key.value().to_owned(), value.value().to_vec()));
        if raw.len() == CHUNK {
            send(&mut raw);
        }
    }
    send(&mut raw);
    Ok(())
}

fn decode(path: &Path, chunks: &Receiver<Raw>) -> Result<Records, OpenError> {
    chunks.iter().flatten().map(|(key, value)| read_record(path, &key, &value)).collect()
}

fn read_record(path: &Path, key: &str, value: &[u8]) -> Result<(Key, Revision, Record), OpenError> {
    let unreadable = |error: record::Unreadable| OpenError::Record {
        path: path.display().to_string(),
        key: key.into(),
        reason: error.to_string(),
    };
    let decoded_key = record::decode_key(key).map_err(unreadable)?;
    let (revision, record) = record::decode(value).map_err(unreadable)?;
    Ok((decoded_key, revision, record))
}

/// What redb cannot make sense of, it may panic over; here that is one more kind of damage.
pub(super) fn unpanicked<T>(run: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(of_panic(&*panic)))
}

fn of_panic(panic: &(dyn Any + Send)) -> redb::Error {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    redb::Error::Corrupted(said.unwrap_or("it makes no sense").into())
}

pub(super) fn open_error(path: &Path, error: &redb::Error) -> OpenError {
    OpenError::Open { path: path.display().to_string(), reason: explain(error) }
}

/// What is wrong, and the way out.
pub(super) fn explain(error: &redb::Error) -> String {
    const RESTORE: &str = "restore a backup with `convoy restore --force`";
    match error {
        redb::Error::DatabaseAlreadyOpen => {
            "another process has it open: stop that one, or choose another data_dir".into()
        }
        redb::Error::Corrupted(what) => format!("it is damaged ({what}): {RESTORE}"),
        redb::Error::Io(error) => match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                format!("the disk is full ({error}): make room on it, and writes go on by themselves")
            }
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
                format!("it cannot be written to ({error}): mount its disk writable, and let Convoy's user write to it")
            }
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput => {
                format!("it is damaged ({error}): {RESTORE}")
            }
            ErrorKind::NotFound => format!(
                "it is gone ({error}): save what Convoy still has with `convoy backup`, stop it, and restore that"
            ),
            _ => error.to_string(),
        },
        redb::Error::Backend(newer) if newer.is::<Newer>() => {
            format!("{newer}: start the newer Convoy that has written it, or restore an older backup")
        }
        redb::Error::UpgradeRequired(format) => {
            format!("it is of another version of the file format ({format}): start the Convoy that has written it")
        }
        redb::Error::TableDoesNotExist(table) => format!("it is no store of Convoy (no {table}): {RESTORE}"),
        error => error.to_string(),
    }
}
