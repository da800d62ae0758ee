//! A proxy's stream is at one of several replicas: what is asked about it elsewhere is passed on to that one.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{Code, Response, Status, transport::Channel};

use super::{Api, error::Problem};

/// How long that replica may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Api {
    /// What was answered here, unless the proxy is connected to another replica: then what that one answers.
    pub(super) async fn or_at_its_replica<T>(
        &self,
        node: &str,
        here: Result<T, Problem>,
        there: impl AsyncFnOnce(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Problem> {
        let (Some(peers), Err(unknown)) = (&self.peers, &here) else { return here };
        if !unknown.is_no_proxy() {
            return here;
        }
        let Some((replica, channel)) = peers.replica_of(node).await else { return here };
        match timeout(PATIENCE, there(channel)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            // It has left meanwhile.
            Ok(Err(status)) if status.code() == Code::NotFound => here,
            Ok(Err(status)) => {
                Err(Problem::new("unavailable", format!("{replica} has the proxy: {}", status.message())))
            }
            Err(_) => Err(Problem::new("unavailable", format!("{replica} has the proxy, and does not answer"))),
        }
    }
}
