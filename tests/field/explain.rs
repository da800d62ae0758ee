//! An explanation, and what it says.

use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Explained(pub Value);

impl Explained {
    /// All in one sentence.
    pub fn summary(&self) -> &str {
        self.0["summary"].as_str().unwrap_or_default()
    }

    /// Checks the one sentence.
    #[track_caller]
    pub fn says(&self, expected: &str) -> &Self {
        assert_eq!(self.summary(), expected, "{:#}", self.0);
        self
    }

    /// Checks one of the steps: its outcome, and a part of its detail.
    #[track_caller]
    pub fn step(&self, name: &str, outcome: &str, detail: &str) -> &Self {
        let steps = self.0["steps"].as_array().cloned().unwrap_or_default();
        let step = steps.iter().find(|step| step["step"] == name);
        let step = step.unwrap_or_else(|| panic!("no step {name}: {:#}", self.0));
        assert_eq!(step["outcome"], outcome, "{step:#}");
        assert!(step["detail"].as_str().is_some_and(|said| said.contains(detail)), "not {detail:?}: {step:#}");
        self
    }

    /// Checks what the assignment says now, and what the proxy has accepted.
    #[track_caller]
    pub fn endpoint(&self, now: &str, accepted: &str) -> &Self {
        let cluster = &self.0["proxies"][0]["clusters"][0];
        let said = |field: &str| cluster[field]["health_status"].as_str().unwrap_or("absent").to_owned();
        assert_eq!((said("now").as_str(), said("accepted").as_str()), (now, accepted), "{cluster:#}");
        self
    }
}
