//! Registrations to test with.

use convoy_client::proto::{self, Protocol, RegisterRequest, Registration};
use serde_json::Value;

pub fn port(name: &str, port: u32, protocol: Protocol) -> proto::Port {
    proto::Port { name: name.into(), port, protocol: protocol.into() }
}

/// The instance of a service with this number: its id, and an address of its own, follow from that.
pub fn instance(service: &str, number: u32) -> Registration {
    let [_, high, middle, low] = number.to_be_bytes();
    Registration {
        service: service.into(),
        id: format!("{service}-{number}"),
        address: format!("10.{high}.{middle}.{low}"),
        ports: vec![port("http", 8080, Protocol::Http)],
        ..Default::default()
    }
}

/// The call that registers these, of incarnation 1.
pub fn call(instances: impl IntoIterator<Item = Registration>) -> RegisterRequest {
    RegisterRequest { incarnation: Some(1), instances: instances.into_iter().collect(), ..Default::default() }
}

/// The instances of a service with these numbers.
pub fn instances(service: &str, numbers: std::ops::Range<u32>) -> RegisterRequest {
    call(numbers.map(|number| instance(service, number)))
}

/// An answer without when the next heartbeat is due: that is another time with each answer.
pub fn unpaced(mut answer: Value) -> Value {
    match &mut answer {
        Value::Object(fields) => {
            fields.remove("heartbeat_interval");
            fields.values_mut().for_each(|value| *value = unpaced(value.take()));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = unpaced(value.take())),
        _ => {}
    }
    answer
}

pub fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}
