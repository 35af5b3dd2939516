//! A reading beside its goal and its limit, and the table of them.
//!
//! Goals and limits are those of the project's promise ("Figures to reach"): a goal missed is printed,
//! a limit broken fails `--check`. A reading without either is there to explain its neighbour.

use serde::Serialize;

/// Which side of a number is good.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The number or less.
    AtMost(f64),
    /// The number or more.
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
        }
    }

    fn text(bound: Option<Self>) -> String {
        match bound {
            Some(Bound::AtMost(bound)) => format!("<= {bound}"),
            Some(Bound::AtLeast(bound)) => format!(">= {bound}"),
            None => "-".to_owned(),
        }
    }
}

/// What a reading amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As good as promised.
    Reached,
    /// Short of the goal, inside the limit (or there is none).
    Short,
    /// Beyond the limit.
    Broken,
    /// Nothing was promised.
    Printed,
}

/// One figure, measured.
#[derive(Clone, Debug, Serialize)]
pub struct Reading {
    /// `figure` or `figure.detail`.
    pub name: &'static str,
    /// The median.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// What is aimed at.
    pub goal: Option<Bound>,
    /// What must not be broken.
    pub limit: Option<Bound>,
    /// The single runs, or what else helps to read it.
    pub note: String,
}

impl Reading {
    /// A number that explains, and promises nothing.
    pub fn detail(name: &'static str, value: f64, unit: &'static str, note: impl Into<String>) -> Self {
        Self { name, value, unit, goal: None, limit: None, note: note.into() }
    }

    /// The same with a goal.
    pub fn goal(self, goal: Bound) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// The same with a limit.
    pub fn limit(self, limit: Bound) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// What it amounts to.
    pub fn verdict(&self) -> Verdict {
        let holds = |bound: Bound| bound.holds(self.value);
        match (self.goal.map(holds), self.limit.map(holds)) {
            (_, Some(false)) => Verdict::Broken,
            (Some(false), _) => Verdict::Short,
            (None, None) => Verdict::Printed,
            _ => Verdict::Reached,
        }
    }

    /// Its line of the table, under `HEADING`.
    pub fn line(&self) -> String {
        let verdict = match self.verdict() {
            Verdict::Reached => "reached",
            Verdict::Short => "short",
            Verdict::Broken => "BROKEN",
            Verdict::Printed => "",
        };
        let (goal, limit) = (Bound::text(self.goal), Bound::text(self.limit));
        let digits = if self.value.abs() < 100.0 { 3 } else { 0 };
        let (value, Self { name, unit, note, .. }) = (self.value, self);
        format!("{name:<22} {value:>12.digits$} {unit:<14} {goal:>9} {limit:>9} {verdict:<8} {note}")
    }
}

/// The table's head.
pub fn heading() -> String {
    format!(
        "{:<22} {:>12} {:<14} {:>9} {:>9} {:<8} {}",
        "figure", "value", "unit", "goal", "limit", "verdict", "note"
    )
}

/// The middle of some numbers (of an even count the mean of the two). Panics when there are none.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The single runs behind a median, for the note.
pub fn runs(numbers: &[f64]) -> String {
    let digits = if numbers.iter().any(|number| number.abs() < 100.0) { 3 } else { 0 };
    let texts: Vec<String> = numbers.iter().map(|number| format!("{number:.digits$}")).collect();
    format!("runs {}", texts.join(" "))
}
