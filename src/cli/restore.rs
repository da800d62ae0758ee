//! `convoy restore`: a backup becomes the store of a Convoy that is not running.

use std::{
    fs::File,
    io::{BufReader, Read, Write},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::Args;

use super::{backup::Summary, options::Options};
use crate::{
    config::{Config, Overrides, StorageKind},
    model::UnixMillis,
    storage::redb::restore,
};

const EXAMPLES: &str = "Examples:
  convoy restore convoy.backup
  convoy restore convoy.backup --data-dir /var/lib/convoy --force";

/// Make the store of a Convoy that is not running from a backup
///
/// What was registered since the backup registers again by itself: no revision comes again, watches begin anew, and proxies
/// keep what they have until the agents are back (`settle`). What was removed since then expires after its TTL. etcd has
/// its own way (`etcdctl snapshot restore`), and the memory store keeps nothing to restore to.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Restore {
    /// What `convoy backup` wrote
    file: PathBuf,
    /// The settings that `convoy serve` has
    #[arg(long, value_name = "FILE", env = "CONVOY_CONFIG")]
    config: Option<PathBuf>,
    /// What keeps the registrations; redb when not set
    #[arg(long, value_enum, env = "CONVOY_STORAGE")]
    storage: Option<StorageKind>,
    /// Where redb keeps its file
    #[arg(long, value_name = "DIRECTORY", env = "CONVOY_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Take the place of a store that is there; it is kept beside the new one
    #[arg(long)]
    force: bool,
}

pub(super) fn run(command: Restore, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let Restore { file, config, storage, data_dir, force } = command;
    let config = Config::load(config.as_deref(), Overrides { storage, data_dir, ..Overrides::default() })?;
    match config.storage {
        StorageKind::Redb => {}
        StorageKind::Etcd => anyhow::bail!(
            "storage is etcd, which keeps its own backups: use `etcdctl snapshot restore`, or --storage redb to go on with one Convoy"
        ),
        StorageKind::Memory => anyhow::bail!("storage is memory, which begins with nothing: use --storage redb"),
    }
    let from = || Ok(Box::new(BufReader::new(File::open(&file)?)) as Box<dyn Read>);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = UnixMillis(now.try_into().unwrap_or(u64::MAX));
    let new_store_id = uuid::Uuid::new_v4().simple().to_string();
    let restored = restore::restore(&config.data_dir, &new_store_id, from, force, now);
    let restored = restored.with_context(|| file.display().to_string())?;
    if let Some(replaced) = restored.replaced {
        writeln!(std::io::stderr(), "the store that was there is kept as {}", replaced.display())?;
    }
    let (file, revision) = (restored.path.display().to_string(), restored.head.revision.0 + restore::AHEAD);
    let (records, version) = (restored.records, restored.head.version);
    Summary { file, records, revision, store_id: new_store_id, version }.print(options, out)
}
