//! What came out: a line for each fault, and what did not hold beneath it.

use std::fmt;
use std::time::Duration;

/// What the good ones' p99 with a fault may be: so many times theirs without it, or below the floor.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub ratio: f64,
    /// Below this nobody notices, and a scheduler on two cores decides.
    pub floor_ms: u64,
}

/// One fault.
pub struct Row {
    fault: String,
    size: String,
    /// Without and with it, in microseconds.
    p99_us: [u64; 2],
    exact: bool,
    back: Option<Duration>,
    panics: usize,
    log_lines_per_second: usize,
    broken: Vec<String>,
}

impl Row {
    #[expect(clippy::too_many_arguments, reason = "one for each column")]
    pub fn new(
        fault: &str,
        size: String,
        probes_us: [Vec<u64>; 2],
        bound: Bound,
        exact: bool,
        back: Option<Duration>,
        panics: usize,
        log_lines_per_second: usize,
        mut broken: Vec<String>,
    ) -> Self {
        let counts = probes_us.each_ref().map(Vec::len);
        let p99_us = probes_us.map(p99);
        let allowed_us = ((p99_us[0] as f64 * bound.ratio) as u64).max(bound.floor_ms * 1000);
        if counts.contains(&0) {
            broken.push("no probe was measured".to_owned());
        }
        if p99_us[1] > allowed_us {
            broken.push(format!("p99 is {} with the fault, {} is allowed", ms(p99_us[1]), ms(allowed_us)));
        }
        let fault = fault.to_owned();
        Self { fault, size, p99_us, exact, back, panics, log_lines_per_second, broken }
    }

    /// Of a fault whose run broke off.
    pub fn broke_off(fault: &str, why: String) -> Self {
        let (size, broken) = ("-".to_owned(), vec![format!("broke off: {why}")]);
        let fault = fault.to_owned();
        Self {
            fault,
            size,
            p99_us: [0; 2],
            exact: false,
            back: None,
            panics: 0,
            log_lines_per_second: 0,
            broken,
        }
    }

    pub fn holds(&self) -> bool {
        self.broken.is_empty()
    }

    #[track_caller]
    pub fn assert_holds(&self) {
        println!("{HEAD}\n{self}");
        assert!(self.holds(), "\n{self}");
    }
}

/// The table's head, in Markdown.
pub const HEAD: &str = "\
| fault | size | good ones' p99 without, with | ratio | counters exact | back after | panics | log lines/s | holds |
|---|---|---|---|---|---|---|---|---|";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |holds| if holds { "yes" } else { "no" };
        let [without, with] = self.p99_us;
        let ratio = with as f64 / without.max(1) as f64;
        let back = self.back.map_or("not".to_owned(), |after| format!("{:.1} s", after.as_secs_f64()));
        write!(
            f,
            "| {} | {} | {}, {} | {ratio:.1} | {} | {back} | {} | {} | {} |",
            self.fault,
            self.size,
            ms(without),
            ms(with),
            yes(self.exact),
            self.panics,
            self.log_lines_per_second,
            yes(self.holds())
        )?;
        self.broken.iter().try_for_each(|promise| write!(f, "\n  not held: {promise}"))
    }
}

/// The value that 99 of 100 are not above; 0 of none.
fn p99(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    let rank = (values.len() * 99).div_ceil(100);
    rank.checked_sub(1).map_or(0, |index| values[index])
}

fn ms(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1000.0)
}
