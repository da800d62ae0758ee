//! A backup as bytes: a line that names the format, then frames (a letter, the length in four bytes, a protobuf message): the
//! head, the records, the end. The end has their number and a checksum of everything before it, so that one that was cut
//! off or damaged is found out by whoever reads it to its end, and nobody may use it before that.

use std::io::{self, ErrorKind, Read};

use prost::Message;
use xxhash_rust::xxh3::Xxh3;

use super::{
    Key, Record, SCHEMA,
    record::{
        self,
        stored::{BackupEnd, BackupHead, BackupRecord},
    },
};
use crate::model::{Revision, UnixMillis};

/// What every format begins with; this one's number follows.
const NAME: &[u8] = b"convoy-backup-";
const FORMAT: &[u8] = b"1\n";
const HEAD: u8 = b'H';
const RECORD: u8 = b'R';
const END: u8 = b'E';
/// No record is nearly as long: a frame that says so is damaged.
const LONGEST_FRAME: u32 = 256 * 1024 * 1024;

/// Of what a backup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub store_id: String,
    pub revision: Revision,
    pub taken_at: UnixMillis,
    /// Of the Convoy that wrote it.
    pub version: String,
}

/// Why something is no backup to restore from.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("it is no backup of Convoy")]
    Foreign,
    #[error("it was written by a newer Convoy ({0}): restore it with that one")]
    Newer(String),
    #[error("it was cut off after {records} records")]
    CutOff { records: u64 },
    #[error("it is damaged at record {at}: {why}")]
    Damaged { at: u64, why: String },
    #[error("it cannot be read: {0}")]
    Read(io::Error),
}

/// Writes a backup, piece by piece.
#[allow(missing_debug_implementations, reason = "a hash has none")]
pub struct Writer {
    hash: Xxh3,
    records: u64,
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new(head: Head) -> Self {
        let mut writer = Self { hash: Xxh3::new(), records: 0, bytes: [NAME, FORMAT].concat() };
        let Head { store_id, revision, taken_at, version } = head;
        let head = BackupHead { schema: SCHEMA, store_id, revision: revision.0, taken_at_ms: taken_at.0, version };
        writer.frame(HEAD, &head);
        writer
    }

    pub fn record(&mut self, key: &Key, revision: Revision, record: &Record) {
        self.records += 1;
        let (key, record) = (record::encode_key(key), record::encode(revision, record));
        self.frame(RECORD, &BackupRecord { key, record });
    }

    pub fn end(&mut self) {
        self.hash.update(&self.bytes);
        let checksum = self.hash.digest128().to_be_bytes().to_vec();
        self.frame(END, &BackupEnd { records: self.records, checksum });
    }

    /// How much there is to take.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        self.hash.update(&self.bytes);
        std::mem::take(&mut self.bytes)
    }

    fn frame(&mut self, kind: u8, message: &impl Message) {
        let bytes = message.encode_to_vec();
        self.bytes.push(kind);
        self.bytes.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.bytes.extend(bytes);
    }
}

/// Reads a backup to its end. `each` is given every record as it stands in a store; what it was given counts only if this
/// ends well.
pub fn read<E: From<Unusable>>(
    from: impl Read,
    mut each: impl FnMut(&str, &[u8]) -> Result<(), E>,
) -> Result<(Head, u64), E> {
    let mut reader = Reader { from, hash: Xxh3::new(), records: 0 };
    let head = reader.head()?;
    loop {
        let before = reader.hash.clone();
        let (kind, bytes) = reader.frame()?;
        match kind {
            RECORD => {
                let BackupRecord { key, record } = reader.message(&bytes)?;
                reader.check_record(&key, &record)?;
                each(&key, &record)?;
                reader.records += 1;
            }
            END => {
                let end: BackupEnd = reader.message(&bytes)?;
                reader.check_end(&end, &before)?;
                return Ok((head, end.records));
            }
            kind => return Err(reader.damaged(format!("a frame of kind {kind}")).into()),
        }
    }
}

struct Reader<R> {
    from: R,
    hash: Xxh3,
    records: u64,
}

impl<R: Read> Reader<R> {
    fn head(&mut self) -> Result<Head, Unusable> {
        let mut line = [0; NAME.len() + FORMAT.len()];
        self.from.read_exact(&mut line).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Unusable::Foreign,
            _ => Unusable::Read(error),
        })?;
        self.hash.update(&line);
        let (name, format) = line.split_at(NAME.len());
        if name != NAME {
            return Err(Unusable::Foreign);
        }
        if format != FORMAT {
            return Err(Unusable::Newer(format!("format {}", String::from_utf8_lossy(format).trim_end())));
        }
        let (kind, bytes) = self.frame()?;
        if kind != HEAD {
            return Err(self.damaged("it has no head"));
        }
        let BackupHead { schema, store_id, revision, taken_at_ms, version } = self.message(&bytes)?;
        if schema > SCHEMA {
            return Err(Unusable::Newer(format!("{version}, with records of schema {schema}")));
        }
        Ok(Head { store_id, revision: Revision(revision), taken_at: UnixMillis(taken_at_ms), version })
    }

    fn frame(&mut self) -> Result<(u8, Vec<u8>), Unusable> {
        let mut start = [0; 5];
        self.exactly(&mut start)?;
        let [kind, length @ ..] = start;
        let length = u32::from_be_bytes(length);
        if length > LONGEST_FRAME {
            return Err(self.damaged(format!("a frame of {length} bytes")));
        }
        // Its length is believed no further than there are bytes.
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(length.into()).read_to_end(&mut bytes).map_err(Unusable::Read)?;
        if read < length as usize {
            return Err(Unusable::CutOff { records: self.records });
        }
        self.hash.update(&bytes);
        Ok((kind, bytes))
    }

    fn exactly(&mut self, into: &mut [u8]) -> Result<(), Unusable> {
        self.from.read_exact(into).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Unusable::CutOff { records: self.records },
            _ => Unusable::Read(error),
        })?;
        self.hash.update(into);
        Ok(())
    }

    fn message<M: Message + Default>(&self, bytes: &[u8]) -> Result<M, Unusable> {
        M::decode(bytes).map_err(|error| self.damaged(error))
    }

    /// What is restored is to open.
    fn check_record(&self, key: &str, record: &[u8]) -> Result<(), Unusable> {
        record::decode_key(key).map_err(|error| self.damaged(error))?;
        record::decode(record).map(drop).map_err(|error| self.damaged(error))
    }

    fn check_end(&mut self, end: &BackupEnd, before: &Xxh3) -> Result<(), Unusable> {
        if end.checksum != before.digest128().to_be_bytes() {
            return Err(self.damaged("the checksum is that of something else"));
        }
        if end.records != self.records {
            return Err(self.damaged(format!("its end speaks of {} records", end.records)));
        }
        match self.from.read(&mut [0]).map_err(Unusable::Read)? {
            0 => Ok(()),
            _ => Err(self.damaged("something follows its end")),
        }
    }

    fn damaged(&self, why: impl ToString) -> Unusable {
        Unusable::Damaged { at: self.records, why: why.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance::{instance, lease, raw, service, tombstone};

    fn written() -> (Head, Vec<u8>, Vec<String>) {
        let head =
            Head { store_id: "store".into(), revision: Revision(9), taken_at: UnixMillis(1), version: "0".into() };
        let mut writer = Writer::new(head.clone());
        let mut bytes = writer.take();
        let mut keys = Vec::new();
        for (index, (key, record)) in
            [service("a"), instance("a", "1", 1), tombstone("a", "2"), lease(1), raw("b", "")].into_iter().enumerate()
        {
            writer.record(&key, Revision(index as u64), &record);
            keys.push(record::encode_key(&key));
            if index % 2 == 0 {
                bytes.extend(writer.take());
            }
        }
        writer.end();
        bytes.extend(writer.take());
        (head, bytes, keys)
    }

    fn reading(bytes: &[u8]) -> Result<(Head, u64, Vec<String>), Unusable> {
        let mut keys = Vec::new();
        let (head, records) = read::<Unusable>(bytes, |key, _| {
            keys.push(key.to_owned());
            Ok(())
        })?;
        Ok((head, records, keys))
    }

    #[test]
    fn it_reads_as_it_was_written() {
        let (head, bytes, keys) = written();
        assert_eq!(reading(&bytes).expect("a backup"), (head, 5, keys));
    }

    #[test]
    fn what_was_cut_off_or_changed_is_never_taken() {
        let (_, bytes, _) = written();
        for length in 0..bytes.len() {
            let error = reading(&bytes[..length]).expect_err("it was cut off");
            assert!(matches!(error, Unusable::Foreign | Unusable::CutOff { .. }), "{length}: {error}");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            reading(&damaged).expect_err("a byte was changed");
        }
        reading(&[&bytes[..], b"more"].concat()).expect_err("something follows");
    }

    #[test]
    fn a_newer_one_and_something_else_are_named() {
        let (_, bytes, _) = written();
        let newer = [b"convoy-backup-2\n", &bytes[16..]].concat();
        assert!(reading(&newer).expect_err("newer").to_string().contains("newer Convoy (format 2)"));
        let mut writer = Writer { hash: Xxh3::new(), records: 0, bytes: [NAME, FORMAT].concat() };
        writer.frame(HEAD, &BackupHead { schema: SCHEMA + 1, version: "9.0".into(), ..Default::default() });
        let error = reading(&writer.take()).expect_err("newer").to_string();
        assert!(error.contains("9.0") && error.contains("schema 2"), "{error}");
        assert!(matches!(reading(b"#!/bin/sh\necho something else"), Err(Unusable::Foreign)));
    }
}
