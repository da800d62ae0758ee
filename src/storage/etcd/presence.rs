//! That this replica is here: a key of its own, which goes with an etcd lease that is kept alive. It is the only thing that
//! hangs on one; what becomes of the replica's registrations when it goes is for the others to decide.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::{
    client::{Client, Repeat},
    failure::Failure,
    keys::Keys,
    rpc::{PutRequest, RequestOp, TxnRequest, request_op::Request},
};
use crate::{
    model::{Replica, ReplicaId, Revision},
    storage::{Key, Record, record},
};

/// How long the key outlives a replica that does not say so when it ends. Longer than an election takes.
pub const TTL: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_secs(2);
/// Before it is tried again.
const PAUSE: Duration = Duration::from_millis(500);
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Presence {
    client: Arc<Client>,
    key: Bytes,
    value: Bytes,
    lease: tokio::sync::Mutex<i64>,
}

impl Presence {
    /// Comes here.
    pub async fn begin(client: &Arc<Client>, keys: &Keys, id: ReplicaId, replica: &Replica) -> Result<Self, Failure> {
        let key = keys.record(&Key::Replica(id));
        let value = record::encode(Revision(0), &Record::Replica(Arc::new(replica.clone()))).into();
        let presence = Self { client: client.clone(), key, value, lease: tokio::sync::Mutex::new(0) };
        presence.put().await?;
        Ok(presence)
    }

    async fn put(&self) -> Result<(), Failure> {
        let lease = self.client.grant(TTL).await?;
        let put = PutRequest { key: self.key.clone(), value: self.value.clone(), lease };
        let success = vec![RequestOp { request: Some(Request::RequestPut(put)) }];
        self.client.txn(&TxnRequest { success, ..TxnRequest::default() }, Repeat::Always).await?;
        *self.lease.lock().await = lease;
        Ok(())
    }

    /// Stays, and comes back when the key went meanwhile.
    pub async fn keep(&self) {
        let mut seen = Instant::now();
        loop {
            sleep(if seen.elapsed() < INTERVAL * 2 { INTERVAL } else { PAUSE }).await;
            let lease = *self.lease.lock().await;
            let outcome = match self.client.keep_alive(lease).await {
                Ok(true) => Ok(()),
                Ok(false) => {
                    tracing::warn!("this replica's key was gone: its leases may have been adopted by others");
                    self.put().await
                }
                Err(failure) => Err(failure),
            };
            match outcome {
                Ok(()) => seen = Instant::now(),
                Err(failure) => tracing::debug!(%failure, "this replica's key cannot be kept"),
            }
        }
    }

    /// Goes at once.
    pub async fn end(&self) {
        let lease = *self.lease.lock().await;
        match timeout(FAREWELL, self.client.revoke(lease)).await {
            Ok(Ok(())) => tracing::info!("this replica is gone from etcd"),
            _ => {
                tracing::warn!(
                    "etcd cannot be told that this replica ends: it is taken for gone when its time is over"
                );
            }
        }
    }
}
