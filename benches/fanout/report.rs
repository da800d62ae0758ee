//! What was measured, as a table: medians over the rounds, and the ratio as the median of the rounds' ratios, since the
//! two of a round were measured right after each other.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{machine, server};

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Milliseconds,
    Microseconds,
    Kibibytes,
    Count,
}

impl Unit {
    fn show(self, amount: f64) -> String {
        let unit = match self {
            Self::Milliseconds => " ms",
            Self::Microseconds => " µs",
            Self::Kibibytes => " KiB",
            Self::Count => "",
        };
        let digits = if amount >= 100.0 || self == Self::Count { 0 } else { 2 };
        format!("{amount:.digits$}{unit}")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Convoy at most so many times the reference.
    Ratio(f64),
    /// The same, and something more.
    RatioAnd(f64, f64),
    /// Convoy at most so much.
    AtMost(f64),
    /// Shown for what it says of the others.
    None,
}

/// One measurement: what, of what it is compared to and of Convoy, in each round.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub scenario: char,
    pub what: String,
    pub unit: Unit,
    pub floor: Vec<f64>,
    pub convoy: Vec<f64>,
    pub target: Target,
}

impl Row {
    fn ratios(&self) -> Vec<f64> {
        self.floor.iter().zip(&self.convoy).map(|(floor, convoy)| convoy / floor).collect()
    }

    fn ratio(&self) -> Option<f64> {
        // Of nothing there are no multiples.
        self.floor.iter().any(|value| *value > 0.0).then(|| median(&self.ratios()))
    }

    fn reached(&self) -> Option<bool> {
        let convoy = median(&self.convoy);
        match self.target {
            Target::Ratio(most) => self.ratio().map(|ratio| ratio <= most),
            Target::RatioAnd(most, more) => Some(convoy <= median(&self.floor) * most + more),
            Target::AtMost(most) => Some(convoy <= most),
            Target::None => None,
        }
    }

    fn cells(&self) -> [String; 7] {
        let target = match self.target {
            Target::Ratio(most) => format!("≤ {most} ×"),
            Target::RatioAnd(most, more) => format!("≤ {most} × + {}", self.unit.show(more)),
            Target::AtMost(most) => format!("≤ {}", self.unit.show(most)),
            Target::None => String::new(),
        };
        let reached = self.reached().map_or("", |reached| if reached { "yes" } else { "**no**" });
        let ratios = self.ratios();
        let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let high = ratios.iter().copied().fold(0.0, f64::max);
        let ratio = self.ratio().map_or(String::new(), |ratio| format!("{ratio:.2} ({low:.2}–{high:.2})"));
        let floor = if self.floor.is_empty() { String::new() } else { self.unit.show(median(&self.floor)) };
        let convoy = self.unit.show(median(&self.convoy));
        [self.scenario.to_string(), self.what.clone(), floor, convoy, ratio, target, reached.into()]
    }
}

#[derive(Debug, Serialize)]
pub struct Report {
    machine: Vec<(&'static str, String)>,
    rows: Vec<Row>,
}

impl Report {
    pub fn new() -> Self {
        let report = Self { machine: machine::describe(), rows: Vec::new() };
        println!("{report}");
        report
    }

    /// Adds a row, and shows it.
    pub fn add(&mut self, row: Row) {
        println!("{}", line(&row.cells()));
        self.rows.push(row);
    }

    pub fn save(&self) -> anyhow::Result<()> {
        let path = server::target("fanout-report");
        std::fs::write(path.with_extension("md"), self.to_string())?;
        std::fs::write(path.with_extension("json"), serde_json::to_string_pretty(self)?)?;
        println!("\nwritten: {}.md and .json", path.display());
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine: Vec<String> = self.machine.iter().map(|(what, value)| format!("{what}: {value}")).collect();
        writeln!(f, "{}\n", machine.join("; "))?;
        writeln!(f, "{}", line(&["", "what", "floor", "convoy", "ratio (of the rounds)", "target", "reached"]))?;
        write!(f, "| - | - | -: | -: | -: | -: | - |")?;
        self.rows.iter().try_for_each(|row| write!(f, "\n{}", line(&row.cells())))
    }
}

fn line<T: AsRef<str>>(cells: &[T; 7]) -> String {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    format!("| {} |", cells.join(" | "))
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted[..] {
        [] => f64::NAN,
        _ if sorted.len() % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The value below which a share of them lies, in milliseconds.
pub fn percentile(values: &[Duration], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |value| milliseconds(*value))
}

pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
