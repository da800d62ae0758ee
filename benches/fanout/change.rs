//! A change that can be found again: one instance of a service gets another port, and in the service's assignment its
//! address, by which the service is known, stands right before its port.

use std::sync::LazyLock;

use convoy_client::{
    Port, Protocol,
    proto::{RegisterRequest, Registration},
};
use memchr::memmem::Finder;

/// Long enough that nobody has to heartbeat: that is no part of what is measured.
pub const TTL: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
/// From here on a port takes three bytes, so that all states of an assignment are of one length.
const FIRST_PORT: u16 = 16_384;
/// The end of a changing instance's address, and the key of the port after it. No other address ends so.
const MARK: &[u8] = b".200\x18";
/// `10.AAA.BBB` before it.
const ADDRESS_BYTES: usize = 10;
static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MARK));

/// The state of a service's changing instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub service: u16,
    /// Which state: the first is 0.
    pub number: u16,
}

impl Change {
    /// How many changes there can be of one service.
    pub const MOST: u16 = u16::MAX - FIRST_PORT;

    pub fn port(self) -> u16 {
        FIRST_PORT + self.number
    }

    /// What to say to the registry.
    pub fn request(self) -> RegisterRequest {
        let ttl = convoy_client::duration(TTL);
        RegisterRequest { ttl: Some(ttl), instances: vec![self.registration()], ..RegisterRequest::default() }
    }

    pub fn registration(self) -> Registration {
        let (a, b) = (100 + self.service / 100, 100 + self.service % 100);
        registration(self.service, "changing", format!("10.{a}.{b}.200"), self.port())
    }

    /// What a registration asks for.
    pub fn of(registration: &Registration) -> Option<Self> {
        let service = registration.service.rsplit_once('-')?.1.parse().ok()?;
        let port = u16::try_from(registration.ports.first()?.port).ok()?;
        Some(Self { service, number: port.checked_sub(FIRST_PORT)? })
    }

    /// All that are found in resources.
    pub fn find(content: &[u8]) -> impl Iterator<Item = Self> {
        FINDER.find_iter(content).filter_map(move |at| {
            let address = &content[at.checked_sub(ADDRESS_BYTES)?..at];
            let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u16>().ok()?.checked_sub(100);
            let service = number(&address[3..6])? * 100 + number(&address[7..10])?;
            let port = port(&content[port_at(at)..])?;
            Some(Self { service, number: port.checked_sub(FIRST_PORT)? })
        })
    }

    /// A resource as it is after this change.
    pub fn apply(self, resource: &[u8]) -> Vec<u8> {
        let mut changed = resource.to_vec();
        if let Some(at) = FINDER.find(resource) {
            let port = self.port();
            let bytes = [port as u8 | 0x80, (port >> 7) as u8 | 0x80, (port >> 14) as u8];
            changed[port_at(at)..port_at(at) + 3].copy_from_slice(&bytes);
        }
        changed
    }
}

fn port_at(mark: usize) -> usize {
    mark + MARK.len()
}

fn port(mut bytes: &[u8]) -> Option<u16> {
    prost::encoding::decode_varint(&mut bytes).ok()?.try_into().ok()
}

pub fn service_name(service: u16) -> String {
    format!("service-{service:05}")
}

pub fn registration(service: u16, id: &str, address: String, port: u16) -> Registration {
    let port = Port { name: "http".into(), port: port.into(), protocol: Protocol::Http.into() };
    Registration {
        service: service_name(service),
        id: id.into(),
        address,
        ports: vec![port],
        ..Registration::default()
    }
}
