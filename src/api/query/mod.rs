//! Queries as the API asks them: parsed into a `Question`, answered by `registry::query`, and cut to the fields wanted.

pub mod fields;
mod grpc;
pub mod http;

use std::time::Duration;

use convoy_client::proto::{self, QueryOrder};

use self::fields::Fields;
use super::{Api, error::Problem, optional};
use crate::{
    model::{InstanceSelector, Invalid, Locality, Namespace, limits::at_most, parse, selector::Knows, wire::duration},
    registry::query::{Answer, Facet, FacetField, Failure, Order, Place, Question},
};

const DEFAULT_PAGE_SIZE: u32 = 100;
const MAX_PAGE_SIZE: u32 = 1_000;
const DEFAULT_TIME: Duration = Duration::from_secs(1);
const MAX_TIME: Duration = Duration::from_secs(10);
const MAX_TEXT_BYTES: usize = 1024;
const MAX_FACETS: usize = 10;
const MAX_PLACE_BYTES: usize = 63;

impl Api {
    pub async fn query(&self, request: proto::QueryRequest) -> Result<proto::QueryResponse, Problem> {
        let fields = Fields::parse(&request.fields)?;
        let time = time(request.timeout)?;
        let question = question(request)?;
        let scored = !question.text.is_empty();
        let answer = self.queries.ask(question, time).await.map_err(|failure| problem(failure, time))?;
        Ok(self.response(answer, &fields, scored))
    }

    fn response(&self, answer: Answer, fields: &Fields, scored: bool) -> proto::QueryResponse {
        let instances = &answer.found.instances;
        let scores = instances.iter().filter(|_| scored).map(|(_, score)| f64::from(*score)).collect();
        proto::QueryResponse {
            instances: instances.iter().map(|(instance, _)| fields.of(self.instance(instance))).collect(),
            next_page_token: answer.found.next.unwrap_or_default(),
            revision: answer.revision.0,
            total: answer.found.total,
            facets: answer.facets.into_iter().map(facet).collect(),
            cost: Some(proto::QueryCost {
                examined: answer.examined,
                steps: answer.steps,
                index: answer.by_index,
                took: Some(duration(answer.took)),
            }),
            scores,
        }
    }
}

fn facet(from: Facet) -> proto::Facet {
    let value = |(value, count): (Box<str>, u64)| proto::FacetValue { value: value.into(), count };
    proto::Facet {
        field: from.field,
        values: from.values.into_iter().map(value).collect(),
        other: from.other,
        without: from.without,
    }
}

fn time(timeout: Option<prost_types::Duration>) -> Result<Duration, Invalid> {
    let Some(timeout) = timeout else { return Ok(DEFAULT_TIME) };
    let time = parse::duration("timeout", timeout)?;
    if time.is_zero() || time > MAX_TIME {
        let text = convoy_client::json::format_duration;
        return Err(Invalid::new("timeout", text(time), format!("more than 0s, up to {}", text(MAX_TIME))));
    }
    Ok(time)
}

fn question(request: proto::QueryRequest) -> Result<Question, Invalid> {
    let filter = optional(&request.filter, |text| InstanceSelector::parse("filter", text, Knows::Load))?;
    let namespace = optional(&request.namespace, |name| Namespace::parse("namespace", name))?;
    if request.text.len() > MAX_TEXT_BYTES {
        return Err(Invalid::new("text", &request.text, format!("at most {MAX_TEXT_BYTES} bytes")));
    }
    let text = request.text.trim().to_owned();
    at_most("facets", request.facets.len(), MAX_FACETS, "fields")?;
    let facet = |(index, name): (usize, &String)| FacetField::parse(&format!("facets[{index}]"), name);
    let facets = request.facets.iter().enumerate().map(facet).collect::<Result<_, _>>()?;
    let order = order(request.order_by, request.near, &text)?;
    let page_size = match request.page_size {
        0 => DEFAULT_PAGE_SIZE,
        size if size <= MAX_PAGE_SIZE => size,
        size => return Err(Invalid::new("page_size", size, format!("1 to {MAX_PAGE_SIZE}"))),
    };
    let count = request.count;
    let page_size = page_size as usize;
    let question = Question { filter, namespace, text, order, page_size, after: None, facets, count };
    let after = optional(&request.page_token, |token| Place::parse("page_token", token, question.digest()))?;
    Ok(Question { after, ..question })
}

fn order(order_by: i32, near: Option<proto::Locality>, text: &str) -> Result<Order, Invalid> {
    let order = QueryOrder::try_from(order_by)
        .map_err(|_| Invalid::new("order_by", order_by, "one of name, load, nearest, relevance"))?;
    if near.is_some() && order != QueryOrder::Nearest {
        return Err(Invalid::new("near", "…", "only with order_by nearest"));
    }
    Ok(match order {
        QueryOrder::Unspecified if text.is_empty() => Order::Name,
        QueryOrder::Relevance if text.is_empty() => {
            return Err(Invalid::new("order_by", "relevance", "only with words in text"));
        }
        QueryOrder::Unspecified | QueryOrder::Relevance => Order::Relevance,
        QueryOrder::Name => Order::Name,
        QueryOrder::Load => Order::Load,
        QueryOrder::Nearest => {
            let proto::Locality { region, zone, sub_zone } = near.unwrap_or_default();
            for (name, text) in [("near.region", &region), ("near.zone", &zone), ("near.sub_zone", &sub_zone)] {
                if text.len() > MAX_PLACE_BYTES {
                    return Err(Invalid::new(name, text, format!("at most {MAX_PLACE_BYTES} bytes")));
                }
            }
            if region.is_empty() {
                return Err(Invalid::new("near.region", "", "the place to be near to"));
            }
            Order::Nearest(Locality { region, zone, sub_zone })
        }
    })
}

fn problem(failure: Failure, time: Duration) -> Problem {
    let narrow = "narrow the filter by an equality on namespace, service, capability, label or locality";
    let (code, field, value, rule) = match failure {
        Failure::TooMany => ("limit_reached", "queries", String::new(), "so many wait at a time: try again".to_owned()),
        Failure::TooSlow => {
            let given = convoy_client::json::format_duration(time);
            ("deadline_exceeded", "timeout", given, format!("{narrow}, or allow up to 10s"))
        }
        Failure::TooExpensive => ("query_too_expensive", "filter", String::new(), narrow.to_owned()),
    };
    let message = format!("{failure}: {rule}");
    Problem { field: field.into(), value, rule, ..Problem::new(code, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked() {
        type Change = fn(&mut proto::QueryRequest);
        let table: &[(&str, &str, Change)] = &[
            ("filter", "did you mean \"labels\"", |r| r.filter = "instance.lables.a == 'b'".into()),
            ("namespace", "", |r| r.namespace = "No".into()),
            ("text", "at most 1024 bytes", |r| r.text = "a".repeat(1025)),
            ("order_by", "only with words", |r| r.order_by = QueryOrder::Relevance.into()),
            ("order_by", "one of name", |r| r.order_by = 77),
            ("near.region", "the place", |r| r.order_by = QueryOrder::Nearest.into()),
            ("near", "only with order_by nearest", |r| r.near = Some(proto::Locality::default())),
            ("page_size", "1 to 1000", |r| r.page_size = 1001),
            ("page_token", "next_page_token", |r| r.page_token = "x".into()),
            ("facets[1]", "label:NAME", |r| r.facets = vec!["zone".into(), "colour".into()]),
            ("facets", "at most 10", |r| r.facets = vec!["zone".into(); 11]),
        ];
        for (field, rule, change) in table {
            let mut request = proto::QueryRequest::default();
            change(&mut request);
            let error = question(request).expect_err(field);
            assert!(error.field == *field && error.rule.contains(rule), "{error}");
        }
        for (seconds, good) in [(0, false), (1, true), (10, true), (11, false)] {
            assert_eq!(time(Some(prost_types::Duration { seconds, nanos: 0 })).is_ok(), good, "{seconds}");
        }
        assert_eq!(time(None), Ok(DEFAULT_TIME));
    }
}
