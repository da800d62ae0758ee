//! Records and keys as bytes, for the durable stores. Protobuf, so that a newer Convoy reads what an older one wrote.

use std::{sync::Arc, time::Duration};

use convoy_client::proto::{Checks, PutServiceRequest};
use prost::Message;

use super::{Key, Record};
use crate::model::{
    CheckKind, CheckState, CheckStatus, Drain, Failover, Incarnation, Instance, InstanceKey, Invalid, Lease, LeaseId,
    Limits, LoadPolicy, NodeSelector, Override, RawKey, RawResource, RemovalCause, Replica, ReplicaId, Revision,
    Service, Share, Tombstone, UnixMillis, parse, wire,
};

#[allow(clippy::large_enum_variant, reason = "generated; one is decoded at a time")]
pub(super) mod stored {
    tonic::include_proto!("convoy.storage.v1");
}
use stored::{
    StoredCheck, StoredInstance, StoredLease, StoredOverride, StoredRaw, StoredRecord, StoredReplica, StoredService,
    StoredTombstone, stored_check, stored_record,
};

/// Why bytes of a store cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
    #[error("{0}")]
    Shape(&'static str),
}

/// Limits hold for what comes in; what a store has was let in under the limits of its time.
fn no_limits() -> Limits {
    Limits {
        labels: usize::MAX,
        label_name_bytes: usize::MAX,
        label_value_bytes: usize::MAX,
        capabilities: usize::MAX,
        metadata_bytes: usize::MAX,
        ports: usize::MAX,
        checks_per_service: usize::MAX,
        ..Limits::default()
    }
}

/// The kind's letter, then the names with `/` between; a lease's and a replica's id in hexadecimal. A resource's name may itself have `/`,
/// and stands last.
pub fn encode_key(key: &Key) -> String {
    match key {
        Key::Service(key) => format!("s/{key}"),
        Key::Instance(key) => format!("i/{key}"),
        Key::Lease(id) => format!("l/{id}"),
        Key::Raw(key) => format!("r/{}/{}/{}", key.kind.as_str(), key.variant, key.name),
        Key::Replica(id) => format!("c/{id}"),
    }
}

pub fn decode_key(text: &str) -> Result<Key, Unreadable> {
    let of_raw: Vec<&str> = text.splitn(4, '/').collect();
    if let ["r", kind, variant, name] = of_raw[..] {
        return Ok(Key::Raw(RawKey::parse(kind, name, variant)?));
    }
    let parts: Vec<&str> = text.split('/').collect();
    match parts[..] {
        ["s", namespace, service] => Ok(Key::Service(parse::service_key(namespace, service)?)),
        ["i", namespace, service, id] => Ok(Key::Instance(parse::instance_key(namespace, service, id)?)),
        ["l", id] => Ok(Key::Lease(LeaseId::parse("lease", id)?)),
        ["c", id] => Ok(Key::Replica(ReplicaId::parse("replica", id)?)),
        _ => Err(Unreadable::Shape("the key is of no known kind")),
    }
}

pub fn encode(revision: Revision, record: &Record) -> Vec<u8> {
    let record = match record {
        Record::Service(service) => stored_record::Record::Service(StoredService {
            default_port: service.default_port.to_string(),
            ports: service.ports.iter().map(wire::service_port).collect(),
            drain_time_ms: millis(service.drain_time),
            export_to: wire::exports(&service.exports),
            no_brake: !service.brake,
            load: Some(service.load.wire()),
            checks: service.checks.iter().map(wire::check).collect(),
            failover: service.failover.map_or(0, |failover| failover.overprovisioning_factor),
            selector: service.selector.as_ref().map(|selector| selector.as_str().to_owned()).unwrap_or_default(),
        }),
        Record::Instance(instance) => stored_record::Record::Instance(StoredInstance {
            registration: Some(wire::registration(&instance.key, &instance.spec)),
            incarnation: instance.incarnation.0,
            lease: instance.lease.to_string(),
            registered_at_ms: instance.registered_at.0,
            was_ready: instance.was_ready,
            draining_since_ms: instance.drain.map_or(0, |drain| drain.since.0),
            drain_time_ms: instance.drain.map_or(0, |drain| millis(drain.time)),
            health_since_ms: instance.health_since.0,
            ready_since_ms: instance.ready_since.0,
            lapsed_ms: instance.lapsed.map_or(0, |brake| brake.since.0),
            brake: instance.lapsed.map(wire::brake),
            disbelieved_ms: instance.disbelieved.unwrap_or_default().0,
            checks: instance.checks.iter().map(encode_check).collect(),
            operator: instance.operator.as_ref().map(|operator| StoredOverride {
                health: wire::override_health(operator.health).into(),
                reason: operator.reason.to_string(),
                since_ms: operator.since.0,
            }),
            share: instance.share.percent(),
            history: wire::history(&instance.history),
        }),
        Record::Tombstone(tombstone) => stored_record::Record::Tombstone(StoredTombstone {
            incarnation: tombstone.incarnation.0,
            cause: wire::cause(tombstone.cause).into(),
            removed_at_ms: tombstone.removed_at.0,
            history: wire::history(&tombstone.history),
        }),
        Record::Lease(lease) => stored_record::Record::Lease(StoredLease {
            ttl_ms: millis(lease.ttl),
            incarnation: lease.incarnation.0,
            owner: lease.owner.0,
        }),
        Record::Replica(replica) => stored_record::Record::Replica(StoredReplica {
            name: replica.name.to_string(),
            address: replica.address.to_string(),
            since_ms: replica.since.0,
        }),
        Record::Raw(raw) => stored_record::Record::Raw(StoredRaw {
            bytes: raw.bytes.to_vec(),
            selector: raw.selector.as_ref().map(|selector| selector.as_str().to_owned()).unwrap_or_default(),
            ttl_ms: raw.ttl.map_or(0, millis),
        }),
    };
    StoredRecord { revision: revision.0, record: Some(record) }.encode_to_vec()
}

pub fn decode(bytes: &[u8]) -> Result<(Revision, Record), Unreadable> {
    let stored = StoredRecord::decode(bytes)?;
    let record = match stored.record.ok_or(Unreadable::Shape("the record is empty or of a newer version"))? {
        stored_record::Record::Service(from) => {
            let said = PutServiceRequest {
                default_port: from.default_port,
                ports: from.ports,
                checks: Some(Checks { checks: from.checks }),
                ..Default::default()
            };
            let patch = parse::service(&said, &no_limits())?;
            let (drain_time, exports) = (Duration::from_millis(from.drain_time_ms), parse::exports(&from.export_to)?);
            let overprovisioning_factor = from.failover;
            let failover = (overprovisioning_factor != 0).then_some(Failover { overprovisioning_factor });
            let load = from.load.as_ref().map(LoadPolicy::parse).transpose()?.unwrap_or_default();
            let (brake, selector) = (!from.no_brake, parse::selector("selector", &from.selector)?);
            let new = patch.apply(None)?;
            Record::Service(Arc::new(Service { drain_time, exports, brake, load, failover, selector, ..new }))
        }
        stored_record::Record::Instance(from) => Record::Instance(Arc::new(decode_instance(from)?)),
        stored_record::Record::Tombstone(from) => Record::Tombstone(Tombstone {
            incarnation: Incarnation(from.incarnation),
            cause: parse::cause(from.cause()).unwrap_or(RemovalCause::Expired),
            removed_at: UnixMillis(from.removed_at_ms),
            history: parse::history(from.history),
        }),
        stored_record::Record::Lease(from) => {
            let ttl = Duration::from_millis(from.ttl_ms);
            Record::Lease(Lease { ttl, incarnation: Incarnation(from.incarnation), owner: ReplicaId(from.owner) })
        }
        stored_record::Record::Replica(from) => {
            let rule = "an IP address and a port";
            let address = from.address.parse().map_err(|_| Invalid::new("replica.address", &from.address, rule))?;
            let since = UnixMillis(from.since_ms);
            Record::Replica(Arc::new(Replica { name: from.name.into(), address, since }))
        }
        stored_record::Record::Raw(from) => Record::Raw(Arc::new(decode_raw(from)?)),
    };
    Ok((Revision(stored.revision), record))
}

fn decode_instance(from: StoredInstance) -> Result<Instance, Unreadable> {
    let registration = from.registration.ok_or(Unreadable::Shape("the instance has no registration"))?;
    let (key, spec): (InstanceKey, _) = parse::registration(registration, None, &no_limits())?;
    let since = UnixMillis(from.draining_since_ms);
    let drain = (since.0 != 0).then_some(Drain { since, time: Duration::from_millis(from.drain_time_ms) });
    Ok(Instance {
        key,
        incarnation: Incarnation(from.incarnation),
        lease: LeaseId::parse("lease", &from.lease)?,
        spec,
        registered_at: UnixMillis(from.registered_at_ms),
        ready_since: UnixMillis(from.ready_since_ms),
        was_ready: from.was_ready,
        lapsed: from.brake.as_ref().and_then(parse::brake).filter(|_| from.lapsed_ms != 0),
        disbelieved: (from.disbelieved_ms != 0).then_some(UnixMillis(from.disbelieved_ms)),
        checks: from.checks.into_iter().map(decode_check).collect(),
        operator: from.operator.map(decode_override).transpose()?.flatten().map(Arc::new),
        drain,
        share: Share::of_percent(if from.share == 0 { 100 } else { from.share }),
        health_since: UnixMillis(from.health_since_ms),
        history: parse::history(from.history),
    })
}

fn encode_check(check: &CheckState) -> StoredCheck {
    let status = match check.status {
        CheckStatus::Pending => stored_check::Status::Pending,
        CheckStatus::Passing => stored_check::Status::Passing,
        CheckStatus::Degraded => stored_check::Status::Degraded,
        CheckStatus::Failing => stored_check::Status::Failing,
    };
    StoredCheck {
        name: check.name.to_string(),
        readiness: check.kind == CheckKind::Readiness,
        status: status.into(),
        since_ms: check.since.0,
        output: check.output.to_string(),
    }
}

fn decode_check(from: StoredCheck) -> CheckState {
    let status = match from.status() {
        stored_check::Status::Pending => CheckStatus::Pending,
        stored_check::Status::Passing => CheckStatus::Passing,
        stored_check::Status::Degraded => CheckStatus::Degraded,
        stored_check::Status::Failing => CheckStatus::Failing,
    };
    CheckState {
        kind: if from.readiness { CheckKind::Readiness } else { CheckKind::Liveness },
        status,
        since: UnixMillis(from.since_ms),
        name: from.name.into(),
        output: from.output.into(),
    }
}

fn decode_override(from: StoredOverride) -> Result<Option<Override>, Unreadable> {
    let said = parse::override_of(from.health, from.reason)?;
    Ok(said.map(|(health, reason)| Override { health, reason, since: UnixMillis(from.since_ms) }))
}

fn decode_raw(from: StoredRaw) -> Result<RawResource, Unreadable> {
    let selector = (!from.selector.is_empty()).then(|| NodeSelector::parse("selector", &from.selector));
    let ttl = (from.ttl_ms != 0).then_some(Duration::from_millis(from.ttl_ms));
    Ok(RawResource { bytes: from.bytes.into(), selector: selector.transpose()?, ttl })
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance::{instance, lease, raw, service, tombstone};

    #[test]
    fn records_read_as_they_were_written() {
        for (key, record) in [
            service("reviews"),
            instance("reviews", "r-1", 7),
            tombstone("reviews", "r-2"),
            lease(9),
            raw("convoy/outbound", "edge"),
            raw("a//b", ""),
        ] {
            assert_eq!(decode_key(&encode_key(&key)).expect("a key"), key);
            assert_eq!(decode(&encode(Revision(5), &record)).expect("a record"), (Revision(5), record));
        }
    }

    #[test]
    fn garbage_is_refused() {
        for key in ["", "x/default/a", "s/default", "i/default/a", "l/zz", "s/De/a", "r/clusters/a", "r/cars//a"] {
            assert!(decode_key(key).is_err(), "{key}");
        }
        for bytes in [&b""[..], b"\x08\x01", b"garbage", &[0xff; 40]] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
