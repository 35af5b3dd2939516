//! Which topics are hot: how often each was pushed to between two lists of them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Instant;

use crate::control::command::TopicAnswer;
use crate::message::Topic;

/// A topic with subscribers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HotTopic {
    pub topic: Topic,
    pub connections: u64,
    /// `None` in the first list that it is in.
    pub pushes_per_second: Option<f64>,
}

/// The counts of the last list.
#[derive(Debug, Default)]
pub(super) struct TopicCounts {
    pushes: HashMap<Topic, u32>,
    at: Option<Instant>,
    lists: u64,
}

impl TopicCounts {
    /// Whether there were two lists, which a rate takes.
    pub(super) fn are_two(&self) -> bool {
        self.lists > 1
    }

    /// Takes the list of `now`; gives its topics, those with the most pushes since the last one first.
    pub(super) fn take(&mut self, list: Vec<TopicAnswer>, now: Instant) -> Vec<HotTopic> {
        let seconds = self.at.map(|at| now.saturating_duration_since(at).as_secs_f64());
        let seconds = seconds.filter(|seconds| *seconds > 0.0);
        let per_second = |topic: &TopicAnswer| {
            let before = *self.pushes.get(&topic.topic)?;
            // Less than before: it was forgotten, and counts from 0 again.
            let grown = topic.pushes.checked_sub(before).unwrap_or(topic.pushes);
            Some(f64::from(grown) / seconds?)
        };
        let hot = |topic: &TopicAnswer| HotTopic {
            topic: topic.topic.clone(),
            connections: topic.connections,
            pushes_per_second: per_second(topic),
        };
        let mut topics: Vec<HotTopic> = list.iter().map(hot).collect();
        topics.sort_by(|a, b| {
            let rate = |topic: &HotTopic| topic.pushes_per_second.unwrap_or(0.0);
            let hotter = rate(b).total_cmp(&rate(a));
            hotter
                .then_with(|| Reverse(a.connections).cmp(&Reverse(b.connections)))
                .then_with(|| a.topic.cmp(&b.topic))
        });
        self.pushes = list.into_iter().map(|topic| (topic.topic, topic.pushes)).collect();
        (self.at, self.lists) = (Some(now), self.lists + 1);
        topics
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn list(topics: &[(&str, u64, u32)]) -> Vec<TopicAnswer> {
        let answer = |&(name, connections, pushes): &(&str, u64, u32)| TopicAnswer {
            topic: name.parse().unwrap(),
            connections,
            position: None,
            pushes,
        };
        topics.iter().map(answer).collect()
    }

    fn shown(topics: &[HotTopic]) -> Vec<(&str, Option<f64>)> {
        topics.iter().map(|topic| (topic.topic.as_str(), topic.pushes_per_second)).collect()
    }

    #[test]
    fn issue_7_the_hottest_topic_is_the_one_with_the_most_pushes_a_second() {
        let (mut counts, begun) = (TopicCounts::default(), Instant::now());
        let first = counts.take(list(&[("crowd", 9000, 700), ("busy", 2, 50)]), begun);
        assert_eq!(shown(&first), [("crowd", None), ("busy", None)], "by subscribers: there is no rate yet");
        assert!(!counts.are_two());
        let later = begun + Duration::from_secs(2);
        let second = counts.take(list(&[("crowd", 9000, 700), ("busy", 2, 53), ("new", 3, 80)]), later);
        let expected = [("busy", Some(1.5)), ("crowd", Some(0.0)), ("new", None)];
        assert_eq!(shown(&second), expected);
        assert!(counts.are_two());
    }

    #[test]
    fn issue_7_a_topic_that_was_forgotten_meanwhile_counts_from_0() {
        let (mut counts, begun) = (TopicCounts::default(), Instant::now());
        counts.take(list(&[("t", 1, 1000)]), begun);
        let topics = counts.take(list(&[("t", 1, 4)]), begun + Duration::from_secs(4));
        assert_eq!(shown(&topics), [("t", Some(1.0))]);
        let topics = counts.take(list(&[("t", 1, 9)]), begun + Duration::from_secs(4));
        assert_eq!(shown(&topics), [("t", None)], "no time has passed");
    }
}
