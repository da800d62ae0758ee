//! `convoy backup`: all that there is, from a running Convoy into a file.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use convoy_client::proto::BackupRequest;
use serde::Serialize;

use super::{
    options::Options,
    output::{self, Table},
};
use crate::storage::backup::{self, Unusable};

const EXAMPLES: &str = "Examples:
  convoy backup convoy.backup
  convoy --server http://10.0.0.5:7071 backup /var/backups/convoy-today.backup -o json";

/// Save everything that is registered and configured, as it is at one moment, into a file
///
/// Convoy goes on meanwhile. The file has its name when all of it is there and checked; one that has the name already is
/// replaced. With etcd, and with the memory store, it is the same.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Backup {
    /// Where to
    file: PathBuf,
}

/// What is in a backup.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) file: String,
    pub(super) records: u64,
    pub(super) revision: u64,
    pub(super) store_id: String,
    pub(super) version: String,
}

impl Summary {
    pub(super) fn print(&self, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
        output::print(out, options, self, std::slice::from_ref(&self.file), "", |_| Table {
            header: vec!["FILE", "RECORDS", "REVISION", "STORE", "VERSION"],
            rows: vec![vec![
                self.file.clone(),
                self.records.to_string(),
                self.revision.to_string(),
                self.store_id.clone(),
                self.version.clone(),
            ]],
        })
    }
}

pub(super) async fn run(command: &Backup, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let path = &command.file;
    anyhow::ensure!(path.file_name().is_some(), "{} is no name for a file", path.display());
    let mut partial = path.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let done = receive(&partial, options).await.and_then(|()| name(&partial, path));
    if done.is_err() {
        // Half a backup is none.
        let _ = fs::remove_file(&partial);
    }
    done?.print(options, out)
}

async fn receive(into: &Path, options: &Options) -> anyhow::Result<()> {
    let mut backup = options.client()?.backup(BackupRequest {}).await?;
    let unwritten = || format!("{} cannot be written", into.display());
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(into).with_context(unwritten)?;
    let mut file = BufWriter::new(file);
    while let Some(bytes) = backup.next().await? {
        file.write_all(&bytes).with_context(unwritten)?;
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all().with_context(unwritten)
}

/// Reads it back, and gives it its name.
fn name(partial: &Path, path: &Path) -> anyhow::Result<Summary> {
    let file = BufReader::new(File::open(partial)?);
    let (head, records) = backup::read::<Unusable>(file, |_, _| Ok(())).context("the backup did not come whole")?;
    fs::rename(partial, path).with_context(|| format!("{} cannot be written", path.display()))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()?;
    let (file, revision) = (path.display().to_string(), head.revision.0);
    Ok(Summary { file, records, revision, store_id: head.store_id, version: head.version })
}
