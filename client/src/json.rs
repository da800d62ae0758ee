//! The JSON form of the API's types: durations as `"30s"` or `"50ms"`, times as RFC 3339, enum values in lower case.
//! The generated types name these functions in their serde attributes (see `build.rs`).

use std::{fmt, time::Duration, time::SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::proto;

const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Writes a duration in the largest unit that holds it whole: `90s`, `1500ms`, `24h`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".into();
    }
    let (unit, size) = UNITS.iter().find(|(_, size)| nanos % size == 0).expect("every number is whole in nanoseconds");
    format!("{}{unit}", nanos / size)
}

/// Reads `30s`, `1.5s`, `1m30s`, `50ms`; units h, m, s, ms, us, ns. No sign, no bare number but `0`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration such as \"30s\", \"1m30s\" or \"50ms\"");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (_, size) = UNITS.iter().find(|(unit, _)| *unit == &rest[..end]).ok_or_else(bad)?;
        total += number * *size as f64;
        rest = &rest[end..];
    }
    if text.is_empty() || total > u64::MAX as f64 {
        return Err(bad());
    }
    Ok(Duration::from_nanos(total.round() as u64))
}

pub(crate) mod duration {
    use super::{Deserialize, Deserializer, Serializer, format_duration, parse_duration};
    use serde::de::Error as _;

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<prost_types::Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let duration = value.and_then(|value| std::time::Duration::try_from(value).ok()).unwrap_or_default();
        serializer.serialize_str(&format_duration(duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<prost_types::Duration>, D::Error> {
        let Some(text) = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)? else { return Ok(None) };
        let duration = parse_duration(&text).map_err(D::Error::custom)?;
        prost_types::Duration::try_from(duration).map(Some).map_err(D::Error::custom)
    }
}

pub(crate) mod time {
    use super::{Deserialize, Deserializer, Serializer};
    use serde::de::Error as _;

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<prost_types::Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.unwrap_or_default().to_string())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<prost_types::Timestamp>, D::Error> {
        let Some(text) = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)? else { return Ok(None) };
        text.parse().map(Some).map_err(D::Error::custom)
    }
}

/// A message of another API, which this crate cannot read: its type, and its bytes in base64.
pub(crate) mod any {
    use std::borrow::Cow;

    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Opaque<'a> {
        #[serde(rename = "@type")]
        type_url: Cow<'a, str>,
        value: String,
    }

    pub(crate) fn serialize<S: Serializer>(value: &Option<prost_types::Any>, serializer: S) -> Result<S::Ok, S::Error> {
        let opaque = value
            .as_ref()
            .map(|any| Opaque { type_url: any.type_url.as_str().into(), value: BASE64_STANDARD.encode(&any.value) });
        opaque.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<prost_types::Any>, D::Error> {
        let Some(opaque) = Option::<Opaque<'de>>::deserialize(deserializer)? else { return Ok(None) };
        let value = BASE64_STANDARD.decode(&opaque.value).map_err(D::Error::custom)?;
        Ok(Some(prost_types::Any { type_url: opaque.type_url.into_owned(), value }))
    }
}

/// A text that is a JSON document itself, such as an agent card: in JSON it stands as what it says.
pub(crate) mod document {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(crate) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        // What is no JSON can still be shown.
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        value.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Null => String::new(),
            value => value.to_string(),
        })
    }
}

/// An enum of the API, by its names.
pub(crate) trait Named: TryFrom<i32> + Copy {
    const PREFIX: &'static str;
    fn full_name(self) -> &'static str;
    fn from_full_name(name: &str) -> Option<Self>;
    fn number(self) -> i32;
}

macro_rules! named {
    ($($name:ident $prefix:literal),*) => {$(
        impl Named for proto::$name {
            const PREFIX: &'static str = $prefix;
            fn full_name(self) -> &'static str {
                self.as_str_name()
            }
            fn from_full_name(name: &str) -> Option<Self> {
                Self::from_str_name(name)
            }
            fn number(self) -> i32 {
                self as i32
            }
        }

        impl fmt::Display for proto::$name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&short_name(*self))
            }
        }

        impl std::str::FromStr for proto::$name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                parse_enum(text)
            }
        }
    )*};
}

named!(
    Protocol "PROTOCOL_", Verdict "VERDICT_", LeaseOutcome "LEASE_OUTCOME_", WatchKind "WATCH_KIND_",
    RemovalCause "REMOVAL_CAUSE_", Dialect "DIALECT_", SyncState "SYNC_STATE_",
    BarrierOutcome "BARRIER_OUTCOME_", MissingReason "MISSING_REASON_",
    BrakeScope "BRAKE_SCOPE_", QueryOrder "QUERY_ORDER_",
    OverrideHealth "OVERRIDE_HEALTH_",
    StepOutcome "STEP_OUTCOME_",
    CheckKind "CHECK_KIND_",
    WatchChange "WATCH_CHANGE_"
);

fn short_name<E: Named>(value: E) -> String {
    value.full_name().trim_start_matches(E::PREFIX).to_ascii_lowercase()
}

fn parse_enum<E: Named>(text: &str) -> Result<E, String> {
    let known = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    E::from_full_name(&format!("{}{}", E::PREFIX, text.to_ascii_uppercase())).filter(|_| known).ok_or_else(|| {
        let names: Vec<String> = (1..).map_while(|number| E::try_from(number).ok()).map(short_name).collect();
        format!("{text:?} is not one of {}", names.join(", "))
    })
}

pub(crate) fn write_enum<E: Named, S: Serializer>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    match E::try_from(*value) {
        Ok(value) => short_name(value).serialize(serializer),
        Err(_) => value.serialize(serializer),
    }
}

/// Whether an enum field says nothing.
pub(crate) fn is_unspecified(value: &i32) -> bool {
    *value == 0
}

pub(crate) fn read_enum<'de, E: Named, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    parse_enum::<E>(&text).map(Named::number).map_err(D::Error::custom)
}

pub(crate) fn write_enums<E: Named, S: Serializer>(values: &[i32], serializer: S) -> Result<S::Ok, S::Error> {
    let name = |value: &i32| E::try_from(*value).map_or_else(|_| value.to_string(), short_name);
    serializer.collect_seq(values.iter().map(name))
}

pub(crate) fn read_enums<'de, E: Named, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i32>, D::Error> {
    let names = Vec::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    names.iter().map(|name| parse_enum::<E>(name).map(Named::number).map_err(D::Error::custom)).collect()
}

/// A moment as the API writes it.
pub fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis, written) in [
            ("30s", 30_000, "30s"),
            ("1m30s", 90_000, "90s"),
            ("1.5s", 1_500, "1500ms"),
            ("50ms", 50, "50ms"),
            ("24h", 86_400_000, "24h"),
            ("0", 0, "0s"),
        ] {
            let duration = parse_duration(text).expect(text);
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(format_duration(duration), written, "{text}");
        }
        for text in ["", "30", "s", "-1s", "1 s", "1y", "1.2.3s", "99999999999999h", "1s1"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_registration_reads_as_people_write_it() {
        let text = r#"{"address": "10.0.0.7", "ports": [{"name": "http", "port": 8080, "protocol": "http"}],
            "sla": {"latency_p99": "50ms", "throughput_rps": 200}}"#;
        let registration: proto::Registration = serde_json::from_str(text).expect("valid");
        assert_eq!(registration.ports[0].protocol(), proto::Protocol::Http);
        assert_eq!(registration.sla.and_then(|sla| sla.latency_p99).map(|d| d.nanos), Some(50_000_000));
        assert_eq!(registration.weight, None);
    }

    #[test]
    fn a_foreign_message_is_its_type_and_its_bytes() {
        let any = prost_types::Any { type_url: "type.googleapis.com/a.B".into(), value: vec![0, 1, 255] };
        let resource = proto::ProxyResource { resource: Some(any), ..Default::default() };
        let text = serde_json::to_string(&resource).expect("written");
        assert!(text.contains(r#""resource":{"@type":"type.googleapis.com/a.B","value":"AAH/"}"#), "{text}");
        assert_eq!(serde_json::from_str::<proto::ProxyResource>(&text).expect("read"), resource);
    }

    #[test]
    fn mistakes_name_what_is_allowed() {
        for (text, says) in [
            (r#"{"ports": [{"protocol": "htp"}]}"#, "\"htp\" is not one of http, http2, grpc, tcp"),
            (r#"{"prots": []}"#, "unknown field `prots`"),
            (r#"{"sla": {"latency_p99": "fast"}}"#, "\"fast\" is not a duration"),
        ] {
            let error = serde_json::from_str::<proto::Registration>(text).expect_err(text).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
