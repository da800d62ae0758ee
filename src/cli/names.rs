//! How things are named on the command line.

use std::str::FromStr;

/// `SERVICE/ID`: one instance. `instance/SERVICE/ID` too, as kubectl would write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InstanceName {
    pub(super) service: String,
    pub(super) id: String,
}

impl FromStr for InstanceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match ServiceOrInstance::from_str(text)? {
            ServiceOrInstance { service, id: Some(id) } => Ok(Self { service, id }),
            ServiceOrInstance { service, .. } => Err(format!("an instance is named SERVICE/ID, as in {service}/ID")),
        }
    }
}

/// `SERVICE` or `SERVICE/ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceOrInstance {
    pub(super) service: String,
    pub(super) id: Option<String>,
}

impl FromStr for ServiceOrInstance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.strip_prefix("instance/").unwrap_or(text).split('/').collect();
        match parts.as_slice() {
            [service] if !service.is_empty() => Ok(Self { service: (*service).into(), id: None }),
            [service, id] if !service.is_empty() && !id.is_empty() => {
                Ok(Self { service: (*service).into(), id: Some((*id).into()) })
            }
            _ => Err("it is written SERVICE or SERVICE/ID".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_named_by_service_and_id() {
        for (text, name) in [
            ("reviews/reviews-1", Some(("reviews", "reviews-1"))),
            ("instance/reviews/reviews-1", Some(("reviews", "reviews-1"))),
            ("reviews", None),
            ("reviews/", None),
            ("/reviews-1", None),
            ("a/b/c", None),
            ("", None),
        ] {
            let parsed = text.parse::<InstanceName>().ok();
            let parsed = parsed.as_ref().map(|name| (name.service.as_str(), name.id.as_str()));
            assert_eq!(parsed, name, "{text}");
        }
    }
}
