//! Backups over the API: a copy of the registry's state, encoded while it is sent. Convoy goes on meanwhile; what the copy
//! shares with the state is kept for as long as it takes.

use std::time::Duration;

use convoy_client::proto::BackupChunk;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::{Api, error::Problem};
use crate::{
    registry::copy::Copy,
    storage::backup::{Head, Writer},
};

const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that wait for the reader.
const WAITING: usize = 4;
/// A copy is kept no longer than this for somebody who does not read.
const PATIENCE: Duration = Duration::from_secs(60);

impl Api {
    pub(super) async fn backup(&self) -> Result<ReceiverStream<BackupChunk>, Problem> {
        let busy = || Problem::new("unavailable", "other backups are being made: try again when they are done");
        let turn = self.registry.backup_turn().ok_or_else(busy)?;
        let copy = self.registry.copy().await?;
        let head = Head {
            store_id: self.registry.store_id().to_owned(),
            revision: copy.revision(),
            taken_at: self.registry.unix(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let (chunks, receiver) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            // One that is cut short has no end, by which its reader knows.
            if send(head, &copy, &chunks).await.is_none() {
                tracing::warn!("a backup was given up: its reader has gone, or does not read");
            }
            drop(turn);
        });
        Ok(ReceiverStream::new(receiver))
    }
}

async fn send(head: Head, copy: &Copy, chunks: &mpsc::Sender<BackupChunk>) -> Option<()> {
    let mut writer = Writer::new(head);
    for (key, revision, record) in copy.records() {
        writer.record(&key, revision, &record);
        if writer.len() >= CHUNK_BYTES {
            send_chunk(chunks, writer.take()).await?;
        }
    }
    writer.end();
    send_chunk(chunks, writer.take()).await
}

async fn send_chunk(chunks: &mpsc::Sender<BackupChunk>, data: Vec<u8>) -> Option<()> {
    timeout(PATIENCE, chunks.send(BackupChunk { data })).await.ok()?.ok()
}
