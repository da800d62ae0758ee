//! The replicas of Convoy that a client may talk to: one at a time, and another one when that is away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tonic::transport::{Channel, Endpoint};

use crate::Error;

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Without these a client whose peer vanished silently (a partition, a lost host) would never notice.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Clones share which one it is.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    channels: Arc<[Channel]>,
    at: Arc<AtomicUsize>,
}

impl Servers {
    /// Connects to nobody yet. Addresses stand between commas.
    pub(crate) fn new(addresses: &str) -> Result<Self, Error> {
        let channels = addresses.split(',').map(|address| channel(address.trim())).collect::<Result<_, _>>()?;
        Ok(Self { channels, at: Arc::default() })
    }

    pub(crate) fn count(&self) -> usize {
        self.channels.len()
    }

    /// The present one, and how it is left.
    pub(crate) fn present(&self) -> (Channel, Turn) {
        let at = self.at.load(Relaxed);
        (self.channels[at % self.channels.len()].clone(), Turn(at))
    }

    /// Goes on with the next one, unless somebody has since then.
    pub(crate) fn leave(&self, Turn(at): Turn) {
        // Whoever came first has moved it.
        let _ = self.at.compare_exchange(at, at.wrapping_add(1), Relaxed, Relaxed);
    }
}

/// When a server was the present one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn(usize);

fn channel(address: &str) -> Result<Channel, Error> {
    let bad = |reason: String| Error::Address { address: address.into(), reason };
    let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    if !uri.starts_with("http://") {
        return Err(bad("it must begin with http://".into()));
    }
    let endpoint = Endpoint::from_shared(uri).map_err(|error| bad(error.to_string()))?;
    if endpoint.uri().port_u16().is_none() {
        return Err(bad("it has no port".into()));
    }
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).http2_keep_alive_interval(KEEPALIVE_INTERVAL);
    Ok(endpoint.keep_alive_timeout(KEEPALIVE_TIMEOUT).keep_alive_while_idle(true).connect_lazy())
}
