//! The order of an answer, and the place in it at which a page ended.
//!
//! A page goes on after the rank and the key of the last instance shown, not after a count: what comes or goes in between
//! moves nothing. Who changes rank meanwhile (its load, its score) may be shown twice or not at all; with the order `name`
//! nobody is.

use convoy_client::proto::Load;

use crate::model::{Instance, InstanceId, InstanceKey, Invalid, Locality, Namespace, ServiceKey, ServiceName};

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Order {
    /// By namespace, service and id.
    #[default]
    Name,
    /// The least loaded first; those that say nothing of it last.
    Load,
    /// Those in the same place first: sub-zone, zone, region.
    Nearest(Locality),
    /// What fits the words best first.
    Relevance,
}

/// What is smaller comes first; equal ones are in the order of their names.
pub type Rank = u64;

impl Order {
    pub fn rank(&self, instance: &Instance, load: Option<&Load>, score: f32) -> Rank {
        match self {
            Self::Name => 0,
            Self::Load => load.map_or(Rank::MAX, |load| ascending(utilisation(load))),
            Self::Nearest(to) => {
                let at = &instance.spec.locality;
                let region = at.region == to.region;
                let zone = region && at.zone == to.zone;
                let sub_zone = zone && at.sub_zone == to.sub_zone;
                3 - Rank::from(region) - Rank::from(zone) - Rank::from(sub_zone)
            }
            Self::Relevance => ascending(f64::from(-score)),
        }
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Load => "load",
            Self::Nearest(_) => "nearest",
            Self::Relevance => "relevance",
        }
    }
}

/// How busy an agent is: the worse of CPU and memory. One that reports neither is as busy as its requests say, after all
/// those that do.
fn utilisation(load: &Load) -> f64 {
    const AFTER: f64 = 1e6;
    let waiting = load.queue_depth.unwrap_or_default() + load.in_flight.unwrap_or_default();
    match (load.cpu, load.memory) {
        (Some(cpu), Some(memory)) => cpu.max(memory),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => AFTER + waiting,
    }
}

/// The number as one that is ordered like it.
fn ascending(number: f64) -> Rank {
    const SIGN: u64 = 1 << 63;
    let bits = number.to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub rank: Rank,
    pub key: InstanceKey,
}

impl Place {
    /// The token that goes on here, of one question only.
    pub fn token(&self, question: u64) -> String {
        let ServiceKey { namespace, name } = &self.key.service;
        format!("{question:016x}.{:x}.{namespace}.{name}.{}", self.rank, self.key.id)
    }

    pub fn parse(field: &str, token: &str, question: u64) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(field, token, "the next_page_token of an answer to the same question");
        let mut parts = token.splitn(5, '.');
        let mut part = || parts.next().ok_or_else(invalid);
        let asked = part()?;
        if asked != format!("{question:016x}") {
            return Err(invalid());
        }
        let rank = Rank::from_str_radix(part()?, 16).map_err(|_| invalid())?;
        let namespace = Namespace::parse(field, part()?).map_err(|_| invalid())?;
        let name = ServiceName::parse(field, part()?).map_err(|_| invalid())?;
        let id = InstanceId::parse(field, part()?).map_err(|_| invalid())?;
        Ok(Self { rank, key: InstanceKey { service: ServiceKey { namespace, name }, id } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parse;

    #[test]
    fn tokens_are_of_one_question() {
        let key = parse::instance_key("shop", "web", "web-1.a_b").expect("a key");
        let place = Place { rank: 7, key };
        let token = place.token(1);
        assert_eq!(Place::parse("page_token", &token, 1), Ok(place));
        for wrong in
            ["", "x", "0000000000000001.7.shop.web", "0000000000000001.z.shop.web.a", token.trim_end_matches("b")]
        {
            // A token cut short may still be one, of another place: but never an error of another kind.
            if let Err(error) = Place::parse("page_token", wrong, 1) {
                assert_eq!(error.field, "page_token");
            }
        }
        assert!(Place::parse("page_token", &token, 2).is_err());
    }

    #[test]
    fn ranks_are_in_the_order_of_numbers() {
        let numbers = [f64::NEG_INFINITY, -2.5, -1.0, 0.0, 0.5, 1.0, 1e6, f64::INFINITY];
        assert!(numbers.windows(2).all(|pair| ascending(pair[0]) < ascending(pair[1])));
        let load = |cpu, memory| Load { cpu, memory, ..Load::default() };
        assert!(utilisation(&load(Some(0.2), Some(0.9))) > utilisation(&load(Some(0.8), None)));
        assert!(utilisation(&load(None, None)) > utilisation(&load(Some(64.0), None)));
    }
}
