//! Which addresses may be probed (section `checks` of the configuration file): agents name addresses, and Convoy must not
//! become their way to what only Convoy can reach.
//!
//! Addresses that are an IPv4 address in another coat (mapped, NAT64, 6to4) are judged as that address too. Link-local,
//! metadata, unspecified, multicast and broadcast addresses are closed unless `allow` names them; `deny` closes more. To open
//! everything (`0.0.0.0/0`) does not open those: they are the narrower networks.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer};

/// Addresses with a common prefix: `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not an address or a network such as \"10.0.0.0/8\"");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| bad()))?;
        if bits > most {
            return Err(bad());
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who may be probed. The narrowest network that an address is in decides; of two equal ones `deny` goes first, then
/// `allow`, then what is closed by default.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<(Network, Rule)>,
}

/// In the order in which they go before each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// Closed by default, since it is such a one.
    Special(&'static str),
    Allow,
    Deny,
}

/// Why an address may not be probed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    #[error("{0} may not be probed: it is in {1} of checks.deny")]
    Denied(IpAddr, Network),
    #[error("{0} may not be probed: it is {1}, and not in checks.allow")]
    Special(IpAddr, &'static str),
}

impl Policy {
    pub fn new(allow: &[Network], deny: &[Network], close_loopback: bool) -> Self {
        let closed = SPECIAL.iter().chain(LOOPBACK.iter().filter(|_| close_loopback));
        let special =
            closed.map(|(address, bits, what)| (Network { address: *address, bits: *bits }, Rule::Special(what)));
        let allow = allow.iter().map(|network| (*network, Rule::Allow));
        let deny = deny.iter().map(|network| (*network, Rule::Deny));
        Self { rules: special.chain(allow).chain(deny).collect() }
    }

    pub fn check(&self, address: IpAddr) -> Result<(), Closed> {
        // As it is written, and as the IPv4 address that it leads to.
        for judged in [Some(address), inner(address)].into_iter().flatten() {
            let concerned = self.rules.iter().filter(|(network, _)| network.contains(judged));
            match concerned.max_by_key(|(network, rule)| (network.bits, *rule)) {
                Some((network, Rule::Deny)) => return Err(Closed::Denied(address, *network)),
                Some((_, Rule::Special(what))) => return Err(Closed::Special(address, what)),
                Some((_, Rule::Allow)) | None => {}
            }
        }
        Ok(())
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(first: u16, second: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, last))
}

/// What is closed by default, and what it is.
const SPECIAL: [(IpAddr, u8, &str); 13] = [
    // With the metadata of most clouds, 169.254.169.254.
    (v4(169, 254, 0, 0), 16, "a link-local address"),
    (v6(0xfe80, 0, 0), 10, "a link-local address"),
    // Amazon's and Google's metadata; Alibaba's, Azure's platform, Oracle's.
    (v6(0xfd00, 0xec2, 0x254), 128, "a metadata address"),
    (v6(0xfd20, 0xce, 0x254), 128, "a metadata address"),
    (v4(100, 100, 100, 200), 32, "a metadata address"),
    (v4(168, 63, 129, 16), 32, "a metadata address"),
    (v4(192, 0, 0, 192), 32, "a metadata address"),
    // This host, or nobody.
    (v4(0, 0, 0, 0), 8, "an unspecified address"),
    (v6(0, 0, 0), 128, "an unspecified address"),
    (v4(224, 0, 0, 0), 4, "a multicast address"),
    (v6(0xff00, 0, 0), 8, "a multicast address"),
    (v4(255, 255, 255, 255), 32, "a broadcast address"),
    (v6(0xfec0, 0, 0), 10, "a site-local address"),
];
const LOOPBACK: [(IpAddr, u8, &str); 2] =
    [(v4(127, 0, 0, 0), 8, "a loopback address"), (v6(0, 0, 1), 128, "a loopback address")];

/// The IPv4 address that an IPv6 address stands for.
fn inner(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let octets = v6.octets();
    let last = Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]);
    let v4 = match v6.segments() {
        // Mapped and translated (RFC 4291, RFC 2765), NAT64 (RFC 6052, RFC 8215), and the old compatible form.
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => last,
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 1, ..] => last,
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) > (0, 1) => last,
        // 6to4 (RFC 3056), and the client of Teredo (RFC 4380), which is written inverted.
        [0x2002, ..] => Ipv4Addr::new(octets[2], octets[3], octets[4], octets[5]),
        [0x2001, 0, ..] => Ipv4Addr::from_bits(!last.to_bits()),
        _ => return None,
    };
    Some(v4.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect(text)
    }

    #[test]
    fn who_may_be_probed() {
        let open = Policy::new(&[network("0.0.0.0/0")], &[], false);
        for address in ["10.0.0.1", "192.0.2.1", "127.0.0.1", "::1", "2001:db8::1", "fd00::1", "100.64.0.1"] {
            assert_eq!(open.check(address.parse().expect("an address")), Ok(()), "{address}");
        }
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::",
            "ff02::1",
            "::ffff:169.254.169.254",
            "::ffff:0:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "2001:0:1:2:3:4:5601:5601",
        ] {
            let closed = open.check(address.parse().expect("an address")).expect_err(address);
            assert!(matches!(closed, Closed::Special(..)), "{address}: {closed}");
        }
    }

    #[test]
    fn lists_open_and_close() {
        let allow = ["169.254.7.0/24", "127.0.0.2", "10.9.0.0/16"].map(network);
        let deny = ["10.0.0.0/8", "169.254.7.9", "2001:db8::/32"].map(network);
        let policy = Policy::new(&allow, &deny, true);
        for (address, open) in [
            ("169.254.7.1", true),
            ("::ffff:169.254.7.1", true),
            ("169.254.7.9", false),
            ("169.254.8.1", false),
            ("10.1.2.3", false),
            ("11.1.2.3", true),
            ("10.9.2.3", true),
            ("64:ff9b::10.1.2.3", false),
            ("::ffff:10.1.2.3", false),
            ("127.0.0.1", false),
            ("127.0.0.2", true),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("2001:db8::1", false),
            ("2001:db9::1", true),
        ] {
            assert_eq!(policy.check(address.parse().expect("an address")).is_ok(), open, "{address}");
        }
    }

    #[test]
    fn networks_are_read() {
        assert!(network("0.0.0.0/0").contains("255.1.1.1".parse().expect("an address")));
        assert!(network("::/0").contains("ff02::1".parse().expect("an address")));
        assert!(!network("0.0.0.0/0").contains("::1".parse().expect("an address")));
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "ten/8", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
