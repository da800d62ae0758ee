//! Waiting for the end of a drain.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Client, Drained, Error, proto::GetInstanceRequest};

/// How often to look whether a draining instance is gone. A look costs the server less than a heartbeat's stream.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Client {
    /// Waits until the instance is gone, or until the deadline. With an incarnation, a newer one in its place counts
    /// as gone. A server that is away is waited for.
    ///
    /// # Errors
    /// If the server refuses to say.
    pub async fn wait_until_gone(
        &self,
        instance: GetInstanceRequest,
        incarnation: Option<u64>,
        deadline: Instant,
    ) -> Result<Drained, Error> {
        loop {
            let looked = tokio::time::timeout_at(deadline, self.get_instance(instance.clone())).await;
            match looked {
                Ok(Ok(found)) if incarnation.is_some_and(|ours| found.incarnation > ours) => return Ok(Drained::Gone),
                Ok(Err(error)) if error.is_not_found() => return Ok(Drained::Gone),
                Ok(Err(error)) if !error.is_temporary() => return Err(error),
                Err(_) => return Ok(Drained::TimeOver),
                Ok(_) => {}
            }
            let next = Instant::now() + LOOK_EVERY;
            if next > deadline {
                tokio::time::sleep_until(deadline).await;
                return Ok(Drained::TimeOver);
            }
            tokio::time::sleep_until(next).await;
        }
    }
}
