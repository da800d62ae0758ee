//! An error for people: what, why, and how to fix it.

use std::fmt::Write as _;

use convoy_client::{Error, Refusal};

/// Some lines for standard error, each ended. `server` is the address that was asked.
pub(super) fn explain(error: &anyhow::Error, server: &str) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_report(&mut text, error, server);
    text
}

fn write_report(text: &mut String, error: &anyhow::Error, server: &str) -> std::fmt::Result {
    match error.downcast_ref::<Error>() {
        Some(Error::Unavailable(why)) => {
            writeln!(text, "error: no answer from Convoy at {server}: {why}")?;
            writeln!(
                text,
                "  fix: see that `convoy serve` runs there, or name another address with --server or CONVOY_ADDR"
            )
        }
        Some(Error::NotNow(why)) => {
            writeln!(text, "error: Convoy at {server} cannot do this now: {why}")?;
            writeln!(text, "  fix: try again; if it lasts, its log and /readyz say what it lacks")
        }
        Some(Error::Deadline(_)) => {
            writeln!(text, "error: Convoy at {server} gave {error:#}")?;
            writeln!(text, "  fix: give it longer with --timeout, or see why it is slow")
        }
        Some(Error::Address { .. }) => {
            writeln!(text, "error: {error:#}")?;
            writeln!(text, "  fix: write it as http://HOST:PORT in --server or CONVOY_ADDR")
        }
        Some(Error::Refused(refusal)) => write_refusal(text, error, refusal),
        _ => writeln!(text, "error: {error:#}"),
    }
}

fn write_refusal(text: &mut String, error: &anyhow::Error, refusal: &Refusal) -> std::fmt::Result {
    writeln!(text, "error: {error:#}")?;
    let Refusal { field, value, rule, reason, .. } = refusal;
    let parts = [("field", field.as_deref()), ("value", value.as_deref()), ("rule", rule.as_deref())];
    for (name, part) in parts {
        if let Some(part) = part {
            writeln!(text, "  {name}: {}", super::output::one_line(part))?;
        }
    }
    if !reason.is_empty() {
        writeln!(text, "  code: {reason}")?;
    }
    match refusal.code {
        tonic::Code::NotFound if field.as_deref() == Some("node") => {
            writeln!(text, "  fix: list who is connected with `convoy get proxies`")
        }
        tonic::Code::NotFound if field.as_deref() == Some("resource") => {
            writeln!(text, "  fix: list what there is with `convoy resource get`")
        }
        tonic::Code::NotFound => {
            writeln!(text, "  fix: list what there is with `convoy get services -A` or `convoy get instances -A`")
        }
        tonic::Code::Unimplemented => {
            writeln!(text, "  fix: this server is older than this command; see `convoy --version` on both")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn refusal(code: Code, reason: &str, field: Option<&str>) -> anyhow::Error {
        let field = field.map(str::to_owned);
        let (value, rule) = (field.as_ref().map(|_| "0".to_owned()), field.as_ref().map(|_| "1 to 65535".to_owned()));
        let (message, reason) = ("so it is not".to_owned(), reason.to_owned());
        Error::Refused(Box::new(Refusal { code, message, reason, field, value, rule })).into()
    }

    #[test]
    fn errors_say_what_why_and_how_to_fix() {
        for (error, says) in [
            (
                Error::Unavailable("Connection refused".into()).into(),
                &["no answer from Convoy at http://x:1: Connection refused", "convoy serve", "CONVOY_ADDR"][..],
            ),
            (Error::NotNow("the store is away".into()).into(), &["http://x:1 cannot do this now: the store is away"]),
            (Error::Deadline(std::time::Duration::from_secs(5)).into(), &["no answer within 5s", "--timeout"]),
            (
                refusal(Code::InvalidArgument, "INVALID_PORT", Some("ports[0].port")),
                &[
                    "error: so it is not\n",
                    "field: ports[0].port\n",
                    "value: 0\n",
                    "rule: 1 to 65535\n",
                    "code: INVALID_PORT",
                ],
            ),
            (refusal(Code::NotFound, "", Some("node")), &["error: so it is not\n", "convoy get proxies"]),
            (refusal(Code::NotFound, "", None), &["error: so it is not\n", "convoy get services"]),
            (anyhow::anyhow!("inner").context("outer"), &["error: outer: inner\n"]),
        ] {
            let text = explain(&error, "http://x:1");
            for part in says {
                assert!(text.contains(part), "{part:?} in {text}");
            }
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
        }
    }
}
