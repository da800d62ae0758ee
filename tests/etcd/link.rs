//! A way to etcd that can be cut.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

pub struct Link {
    address: SocketAddr,
    open: watch::Sender<bool>,
    _forwarding: JoinSet<()>,
}

impl Link {
    /// Leads to an endpoint, `http://host:port`.
    pub async fn to(endpoint: &str) -> Self {
        let to = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, open) = (listener.local_addr().expect("bound"), watch::Sender::new(true));
        let mut forwarding = JoinSet::new();
        forwarding.spawn(forward(listener, to, open.subscribe()));
        Self { address, open, _forwarding: forwarding }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends all connections, and lets none begin.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn forward(listener: TcpListener, to: String, open: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let (to, mut open) = (to.clone(), open.clone());
        if !*open.borrow() {
            continue;
        }
        connections.spawn(async move {
            let Ok(mut far) = TcpStream::connect(to).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = open.wait_for(|open| !*open) => {}
            }
        });
    }
}
