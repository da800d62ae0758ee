//! How answers are printed: one document for programs, a table for people.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::options::{Format, Options};

/// A table for people: names of columns, and rows of as many cells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) header: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// Columns by two spaces apart, no borders, no space at the ends of lines; each line ended.
    pub(super) fn render(&self, headers: bool) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        if headers {
            table.set_header(&self.header);
        }
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| one_line(cell)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

/// Prints an answer in the format asked for. `names` are what other commands take; `none` is said on standard error
/// instead of an empty table.
pub(super) fn print<T: Serialize>(
    out: &mut dyn Write,
    options: &Options,
    document: &T,
    names: &[String],
    none: &str,
    table: impl FnOnce(Width) -> Table,
) -> anyhow::Result<()> {
    let width = match options.output {
        Format::Json => return Ok(writeln!(out, "{}", serde_json::to_string_pretty(document)?)?),
        Format::Yaml => return Ok(out.write_all(yaml(document)?.as_bytes())?),
        Format::Name => return Ok(names.iter().try_for_each(|name| writeln!(out, "{name}"))?),
        Format::Table => Width::Narrow,
        Format::Wide => Width::Wide,
    };
    let table = table(width);
    if table.rows.is_empty() {
        return Ok(writeln!(io::stderr(), "{none}")?);
    }
    Ok(out.write_all(table.render(!options.no_headers).as_bytes())?)
}

/// How much a table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Narrow,
    Wide,
}

/// A YAML document with what the JSON document has, ended by a line end.
pub(super) fn yaml<T: Serialize>(document: &T) -> anyhow::Result<String> {
    Ok(serde_yaml::to_string(document)?.trim_end().to_owned() + "\n")
}

/// What strangers wrote (a label, a NACK), fit for a line on a terminal: no line ends and no escape sequences.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The time since then, in the two largest units: `3m12s`, `2d4h`, `12s`. Empty if there is no time; `0s` if clocks
/// differ.
pub(super) fn age(since: Option<&prost_types::Timestamp>, now: SystemTime) -> String {
    let Some(since) = since.and_then(|since| SystemTime::try_from(*since).ok()) else { return String::new() };
    short(now.duration_since(since).unwrap_or(Duration::ZERO))
}

fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (large, small) = match seconds {
        0..60 => return format!("{seconds}s"),
        60..3_600 => ((60, "m"), (1, "s")),
        3_600..86_400 => ((3_600, "h"), (60, "m")),
        _ => ((86_400, "d"), (3_600, "h")),
    };
    let (count, rest) = (seconds / large.0, seconds % large.0 / small.0);
    if rest == 0 { format!("{count}{}", large.1) } else { format!("{count}{}{rest}{}", large.1, small.1) }
}

/// `a=1,b=2`
pub(super) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_borders_and_no_escapes() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = vec![row(["reviews", "2/3", ""]), row(["a", "0/0", "bad\n\u{1b}[31mred"])];
        let table = Table { header: vec!["SERVICE", "HEALTHY", "WHY"], rows };
        let text = "SERVICE  HEALTHY  WHY\nreviews  2/3\na        0/0      bad  [31mred\n";
        assert_eq!(table.render(true), text);
        assert_eq!(table.render(false), "reviews  2/3\na        0/0  bad  [31mred\n");
    }

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (192, "3m12s"),
            (3_600, "1h"),
            (3_720, "1h2m"),
            (86_400, "1d"),
            (100_000, "1d3h"),
            (9_999_999, "115d17h"),
        ] {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        assert_eq!(age(at(40).as_ref(), now), "1m");
        assert_eq!(age(at(101).as_ref(), now), "0s");
        assert_eq!(age(None, now), "");
    }
}
