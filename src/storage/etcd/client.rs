//! Calls to etcd's members: which one, for how long, with which token.
//!
//! A connection to each member is made when it is first needed, and again after it broke. Calls go to the member that is
//! preferred (the follower prefers the one that it follows), and to the next one when it is away. A token is renewed when
//! etcd does not know it any more.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream};
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{
    config::{EtcdConfig, EtcdTls},
    failure::Failure,
    rpc::{
        AuthenticateRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, RangeRequest, RangeResponse,
        TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse, auth_client::AuthClient,
        kv_client::KvClient, lease_client::LeaseClient, watch_client::WatchClient, watch_request::RequestUnion,
    },
};

/// How long one member may take. Longer than an answer under load, shorter than an election's double.
pub const ATTEMPT: Duration = Duration::from_secs(2);
/// How long all members together may take: an election in between is waited for.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between two calls to members that fail at once.
const PAUSE: Duration = Duration::from_millis(50);
const CONNECT: Duration = Duration::from_secs(1);
/// etcd ends connections that ping more often than every 5 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Client {
    members: Vec<Member>,
    preferred: AtomicUsize,
    credentials: Option<Credentials>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    /// One renews, others wait.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Member {
    address: String,
    channel: Channel,
}

#[derive(Debug)]
struct Credentials {
    user: String,
    password: Secret,
}

#[derive(Debug)]
enum Secret {
    Said(super::config::Password),
    In(PathBuf),
}

impl Client {
    /// Connects to nobody yet.
    pub fn new(config: &EtcdConfig) -> anyhow::Result<Self> {
        let tls = config.tls.as_ref().map(tls).transpose()?;
        let member = |address: &String| {
            let mut endpoint = Endpoint::from_shared(address.clone())?
                .connect_timeout(CONNECT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
                .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                .keep_alive_while_idle(true);
            if let Some(tls) = &tls {
                endpoint = endpoint.tls_config(tls.clone())?;
            }
            anyhow::Ok(Member { address: address.clone(), channel: endpoint.connect_lazy() })
        };
        let secret = match (&config.password, &config.password_file) {
            (Some(password), _) => Some(Secret::Said(password.clone())),
            (None, file) => file.clone().map(Secret::In),
        };
        let credentials = config.user.clone().zip(secret).map(|(user, password)| Credentials { user, password });
        let members = config.endpoints.iter().map(member).collect::<anyhow::Result<Vec<_>>>()?;
        // Replicas that start together do not all go to the first.
        let preferred = rand::random_range(0..members.len().max(1)).into();
        let (token, renewing) = Default::default();
        Ok(Self { members, preferred, credentials, token, renewing })
    }

    pub fn members(&self) -> usize {
        self.members.len()
    }

    pub fn address(&self, member: usize) -> &str {
        &self.members[member % self.members.len()].address
    }

    pub fn preferred(&self) -> usize {
        self.preferred.load(Relaxed)
    }

    pub fn prefer(&self, member: usize) {
        self.preferred.store(member % self.members.len(), Relaxed);
    }

    /// Reads from any member what all have agreed on.
    pub async fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Failure> {
        self.anywhere(Repeat::Always, |member| Box::pin(self.range_at(member, request.clone()))).await
    }

    /// Reads from one member.
    pub async fn range_at(&self, member: usize, request: RangeRequest) -> Result<RangeResponse, Failure> {
        let range = |channel, request| -> Answer<_> { Box::pin(async { kv(channel).range(request).await }) };
        self.call(member, request, range).await
    }

    /// Carries out a transaction. With `Repeat::Always` it may be sent again though it was carried out: what it compares
    /// has to exclude that it is carried out twice.
    pub async fn txn(&self, request: &TxnRequest, repeat: Repeat) -> Result<TxnResponse, Failure> {
        let txn = |channel, request| -> Answer<_> { Box::pin(async { kv(channel).txn(request).await }) };
        self.anywhere(repeat, |member| Box::pin(self.call(member, request.clone(), txn))).await
    }

    /// Makes a lease.
    pub async fn grant(&self, ttl: Duration) -> Result<i64, Failure> {
        let request = LeaseGrantRequest { ttl: ttl.as_secs().try_into().unwrap_or(i64::MAX), id: 0 };
        let grant = |channel, request| -> Answer<_> {
            Box::pin(async { LeaseClient::<Channel>::new(channel).lease_grant(request).await })
        };
        // One that nobody heard of ends by itself.
        let answer = self.anywhere(Repeat::Always, |member| Box::pin(self.call(member, request, grant))).await?;
        if answer.error.is_empty() { Ok(answer.id) } else { Err(Failure::Refused(answer.error)) }
    }

    /// Renews a lease; whether it is still there.
    pub async fn keep_alive(&self, id: i64) -> Result<bool, Failure> {
        let keep = |channel, id| -> Answer<_> { Box::pin(keep_alive(channel, id)) };
        let ttl = self.anywhere(Repeat::Always, |member| Box::pin(self.call(member, id, keep))).await?;
        Ok(ttl > 0)
    }

    /// Ends a lease, and what hangs on it.
    pub async fn revoke(&self, id: i64) -> Result<(), Failure> {
        let revoke = |channel, request| -> Answer<_> {
            Box::pin(async { LeaseClient::<Channel>::new(channel).lease_revoke(request).await })
        };
        let request = LeaseRevokeRequest { id };
        self.anywhere(Repeat::Always, |member| Box::pin(self.call(member, request, revoke))).await.map(drop)
    }

    /// Opens a watch at one member, which ends when that has no leader.
    pub async fn watch_at(
        &self,
        member: usize,
        create: WatchCreateRequest,
    ) -> Result<Streaming<WatchResponse>, Failure> {
        self.call(member, create, |channel, request| Box::pin(open_watch(channel, request))).await
    }

    /// Asks the preferred member, then the others, while there is patience.
    async fn anywhere<'a, A>(
        &'a self,
        repeat: Repeat,
        at: impl Fn(usize) -> BoxFuture<'a, Result<A, Failure>>,
    ) -> Result<A, Failure> {
        let (first, until) = (self.preferred(), Instant::now() + PATIENCE);
        let mut turn = 0;
        loop {
            let outcome = at(first + turn).await;
            match outcome {
                Err(Failure::Away(_)) if repeat == Repeat::Always && Instant::now() + PAUSE < until => {
                    turn += 1;
                    sleep(PAUSE).await;
                }
                _ => return outcome,
            }
        }
    }

    /// One call to one member, with a token; once more with a new one if etcd does not know it.
    async fn call<Q: Clone, A>(
        &self,
        member: usize,
        request: Q,
        call: impl Fn(Channel, Request<Q>) -> Answer<A>,
    ) -> Result<A, Failure> {
        let member = &self.members[member % self.members.len()];
        let mut renewed = false;
        loop {
            if self.credentials.is_some() && self.token().is_none() {
                self.renew(member, None).await?;
            }
            let token = self.token();
            let mut request = Request::new(request.clone());
            if let Some(token) = &token {
                request.metadata_mut().insert("token", token.clone());
            }
            let outcome = bounded(member, call(member.channel.clone(), request)).await;
            match outcome {
                Err(Failure::Token(_)) if self.credentials.is_some() && !renewed => {
                    renewed = true;
                    self.renew(member, token).await?;
                }
                Err(Failure::Token(said)) => return Err(Failure::Refused(said)),
                outcome => return outcome,
            }
        }
    }

    fn token(&self) -> Option<MetadataValue<Ascii>> {
        self.token.lock().expect("nothing panics while it holds this lock").clone()
    }

    /// Takes a new token, unless somebody has since `stale`.
    async fn renew(&self, member: &Member, stale: Option<MetadataValue<Ascii>>) -> Result<(), Failure> {
        let Some(credentials) = &self.credentials else { return Ok(()) };
        let _one = self.renewing.lock().await;
        if self.token() != stale {
            return Ok(());
        }
        let password = match &credentials.password {
            Secret::Said(password) => password.0.clone(),
            Secret::In(path) => fs::read_to_string(path)
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| Failure::Refused(format!("etcd.password_file {}: {error}", path.display())))?,
        };
        let request = AuthenticateRequest { name: credentials.user.clone(), password };
        let answer = bounded(member, AuthClient::new(member.channel.clone()).authenticate(request)).await?;
        let token = answer.token.parse().map_err(|_| Failure::Refused("the token is no text".into()))?;
        *self.token.lock().expect("nothing panics while it holds this lock") = Some(token);
        Ok(())
    }

    /// Forgets the token: a watch that etcd refuses does not say that it was because of that.
    pub fn forget_token(&self) {
        *self.token.lock().expect("nothing panics while it holds this lock") = None;
    }
}

/// Whether a call of which nobody knows whether it was carried out may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    Always,
    Never,
}

type Answer<A> = BoxFuture<'static, Result<Response<A>, Status>>;

async fn open_watch(
    channel: Channel,
    request: Request<WatchCreateRequest>,
) -> Result<Response<Streaming<WatchResponse>>, Status> {
    let (mut metadata, extensions, create) = request.into_parts();
    metadata.insert("hasleader", MetadataValue::from_static("true"));
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The stream of requests stays open: its end is the watch's.
    let requests = stream::iter([create]).chain(stream::pending());
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    client.watch(Request::from_parts(metadata, extensions, requests)).await
}

async fn keep_alive(channel: Channel, request: Request<i64>) -> Result<Response<i64>, Status> {
    let request = request.map(|id| stream::iter([LeaseKeepAliveRequest { id }]).chain(stream::pending()));
    let mut answers = LeaseClient::new(channel).lease_keep_alive(request).await?.into_inner();
    let answer = answers.message().await?.ok_or_else(|| Status::unavailable("no answer"))?;
    Ok(Response::new(answer.ttl))
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

async fn bounded<A>(member: &Member, call: impl Future<Output = Result<Response<A>, Status>>) -> Result<A, Failure> {
    let outcome = match timeout(ATTEMPT, call).await {
        Ok(outcome) => outcome.map(Response::into_inner).map_err(Failure::from),
        Err(_) => Err(Failure::Away(format!("no answer within {} s", ATTEMPT.as_secs()))),
    };
    outcome.map_err(|failure| match failure {
        Failure::Away(said) => Failure::Away(format!("{}: {said}", member.address)),
        failure => failure,
    })
}

fn tls(tls: &EtcdTls) -> anyhow::Result<ClientTlsConfig> {
    let read = |setting: &str, path: &PathBuf| {
        fs::read(path).map_err(|error| anyhow::anyhow!("etcd.tls.{setting}: {}: {error}", path.display()))
    };
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca", &tls.ca)?));
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => Ok(config.identity(Identity::from_pem(read("cert", cert)?, read("key", key)?))),
        _ => Ok(config),
    }
}
