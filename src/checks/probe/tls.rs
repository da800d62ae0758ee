//! The TLS side of a probe: whom to believe, and which name to ask for.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::model::{Tls, TlsTrust};

/// Configurations that are kept, since reading certificates costs more than a handshake's own work. When there are more,
/// all are made anew.
const MAX_KEPT: usize = 1024;

type Kept = Mutex<HashMap<(TlsTrust, Vec<Vec<u8>>), Arc<ClientConfig>>>;
static KEPT: LazyLock<Kept> = LazyLock::new(Kept::default);

pub(super) async fn handshake(
    stream: TcpStream,
    tls: &Tls,
    host: Option<&str>,
    alpn: &[&str],
) -> Result<TlsStream<TcpStream>, String> {
    let address = stream.peer_addr().map_err(|error| error.to_string())?;
    let name = server_name(tls, host, address)?;
    let config = config(&tls.trust, alpn)?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| format!("TLS: {error}"))
}

/// The check's word, else the host that is asked for, else the address.
fn server_name(tls: &Tls, host: Option<&str>, address: SocketAddr) -> Result<ServerName<'static>, String> {
    let host = host.and_then(|host| host.parse::<hyper::http::uri::Authority>().ok());
    let host = host.as_ref().map(|host| host.host().trim_matches(['[', ']']));
    match tls.server_name.as_deref().or(host) {
        Some(name) => ServerName::try_from(name.to_owned()).map_err(|error| format!("TLS: {name:?}: {error}")),
        None => Ok(address.ip().into()),
    }
}

fn config(trust: &TlsTrust, alpn: &[&str]) -> Result<Arc<ClientConfig>, String> {
    let key = (trust.clone(), alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect::<Vec<_>>());
    let mut kept = KEPT.lock().expect("nothing panics while it holds this lock");
    if let Some(config) = kept.get(&key) {
        return Ok(config.clone());
    }
    let mut config = new_config(trust).map_err(|error| format!("TLS: {error}"))?;
    config.alpn_protocols = key.1.clone();
    let config = Arc::new(config);
    if kept.len() >= MAX_KEPT {
        kept.clear();
    }
    kept.insert(key, config.clone());
    Ok(config)
}

fn new_config(trust: &TlsTrust) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let mut config = match trust {
        TlsTrust::Anybody => {
            let anybody = Arc::new(Anybody { provider });
            builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()
        }
        TlsTrust::Authorities(pem) => {
            let mut roots = RootCertStore::empty();
            // They could be read when the check was put.
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok));
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    // A probe asks whether a handshake works now, and not whether one did before.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Believes every certificate: for checks that ask for it. That the other side has the certificate's key is still checked.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
