//! How near its limit the gateway's memory is, and what is to be done about it: arithmetic only.

/// What is used of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes that may be.
    pub limit_bytes: u64,
}

impl Reading {
    /// Used, in hundredths of the limit.
    pub fn percent(self) -> u64 {
        let percent = u128::from(self.used_bytes) * 100 / u128::from(self.limit_bytes.max(1));
        u64::try_from(percent).unwrap_or(u64::MAX)
    }

    /// Bytes beyond the mark at which cutting ends.
    pub fn excess_bytes(self) -> u64 {
        self.used_bytes.saturating_sub(self.limit_bytes / 100 * (Level::Cut.mark() - SLACK))
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Fine,
    /// Tell the operator.
    Warn,
    /// Let nobody in.
    Refuse,
    /// Cut who is furthest behind.
    Cut,
}

/// A level that was reached is left only so many hundredths below its mark: else each client that goes would
/// let another in, and each line in the log be followed by one more.
const SLACK: u64 = 5;

impl Level {
    /// From how many hundredths of the limit on.
    pub fn mark(self) -> u64 {
        match self {
            Self::Fine => 0,
            Self::Warn => 80,
            Self::Refuse => 90,
            Self::Cut => 95,
        }
    }

    fn highest(percent: u64) -> Self {
        let levels = [Self::Cut, Self::Refuse, Self::Warn];
        levels.into_iter().find(|level| percent >= level.mark()).unwrap_or_default()
    }

    /// The level at `reading`, where it was this one before.
    pub fn after(self, reading: Reading) -> Self {
        let percent = reading.percent();
        let (reached, kept) = (Self::highest(percent), Self::highest(percent.saturating_add(SLACK)));
        reached.max(self.min(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(percent: u64) -> Reading {
        Reading { used_bytes: percent * 10, limit_bytes: 1000 }
    }

    #[test]
    fn issue_6_80_percent_warns_90_refuses_and_95_cuts() {
        let levels = [(0, Level::Fine), (79, Level::Fine), (80, Level::Warn), (89, Level::Warn)];
        let more = [(90, Level::Refuse), (94, Level::Refuse), (95, Level::Cut), (120, Level::Cut)];
        for (percent, level) in levels.into_iter().chain(more) {
            assert_eq!(Level::Fine.after(at(percent)), level, "{percent}");
        }
    }

    #[test]
    fn issue_6_a_level_is_left_5_percent_below_its_mark() {
        let cut = Level::Cut;
        assert_eq!(
            [94, 90, 89, 85, 84, 75, 74].map(|percent| cut.after(at(percent))),
            [Level::Cut, Level::Cut, Level::Refuse, Level::Refuse, Level::Warn, Level::Warn, Level::Fine]
        );
        // What was not reached is not kept.
        assert_eq!(Level::Warn.after(at(89)), Level::Warn);
    }

    #[test]
    fn issue_6_cutting_is_to_bring_it_to_90_percent() {
        assert_eq!(at(97).excess_bytes(), 70);
        assert_eq!(at(80).excess_bytes(), 0);
        let full = Reading { used_bytes: u64::MAX, limit_bytes: 1 };
        assert_eq!((full.percent(), Level::Fine.after(full)), (u64::MAX, Level::Cut));
        assert_eq!(Level::Fine.after(Reading { used_bytes: 1, limit_bytes: 0 }), Level::Cut);
    }
}
