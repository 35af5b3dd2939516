//! Which topics a client may subscribe to: the claim `topics`.
//!
//! A pattern is a topic in which `*` stands for something: as a whole segment between slashes for one
//! segment, at the end for any rest. `orders/*/state` allows `orders/7/state`; `orders/*` all under
//! `orders/`; `news*` also `news`; `*` everything.

use std::sync::Arc;

use crate::message::Topic;

/// Most patterns of one client.
pub const PATTERNS_MAX: usize = 1024;

/// What one client may subscribe to. Cheap to clone.
// One text, since it is kept for each connection: a topic has no comma.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patterns(Arc<str>);

/// Not a list of patterns: too many, or one that is no topic, or has `*` where it may not stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPattern;

impl Patterns {
    /// Checks each of `texts`; none of them is a client that may subscribe to nothing. Errors: `BadPattern`.
    pub fn new<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, BadPattern> {
        let mut patterns = Vec::new();
        for text in texts {
            if Topic::new(text).is_err() || !is_pattern(text) || patterns.len() == PATTERNS_MAX {
                return Err(BadPattern);
            }
            patterns.push(text);
        }
        Ok(Self(patterns.join(",").into()))
    }

    /// Whether one of them allows `topic`.
    pub fn allow(&self, topic: &Topic) -> bool {
        self.0.split(',').any(|pattern| matches(pattern, topic.as_str()))
    }

    /// The first of `topics` that none of them allows.
    pub fn first_refused<'t>(&self, topics: &'t [Topic]) -> Option<&'t Topic> {
        topics.iter().find(|topic| !self.allow(topic))
    }
}

fn is_pattern(text: &str) -> bool {
    let (begin, last) = text.rsplit_once('/').map_or((None, text), |(begin, last)| (Some(begin), last));
    let whole = |segment: &str| segment == "*" || !segment.contains('*');
    begin.is_none_or(|begin| begin.split('/').all(whole))
        && !last.strip_suffix('*').unwrap_or(last).contains('*')
}

fn matches(pattern: &str, topic: &str) -> bool {
    let (mut pattern, mut topic) = (pattern, topic);
    while let Some((wanted, pattern_rest)) = pattern.split_once('/') {
        let Some((segment, topic_rest)) = topic.split_once('/') else { return false };
        let any = wanted == "*" && !segment.is_empty();
        if !any && wanted != segment {
            return false;
        }
        (pattern, topic) = (pattern_rest, topic_rest);
    }
    match pattern.strip_suffix('*') {
        Some(begin) => topic.starts_with(begin),
        None => topic == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(pattern: &str, topic: &str) -> bool {
        Patterns::new([pattern]).unwrap().allow(&Topic::new(topic).unwrap())
    }

    #[test]
    fn issue_6_a_pattern_allows_itself_one_segment_for_a_star_and_any_rest_for_the_last() {
        for (pattern, topic) in [
            ("news", "news"),
            ("news*", "news"),
            ("news*", "newsletter/7"),
            ("orders/*", "orders/7"),
            ("orders/*", "orders/7/state"),
            ("orders/*/state", "orders/7/state"),
            ("*/state", "7/state"),
            ("a/*/*/d*", "a/b/c/de/f"),
            ("*", "anything/at.all:here"),
        ] {
            assert!(allowed(pattern, topic), "{pattern} {topic}");
        }
    }

    #[test]
    fn issue_6_a_pattern_allows_nothing_else() {
        for (pattern, topic) in [
            ("news", "new"),
            ("news", "news/1"),
            ("news", "News"),
            ("orders/*", "orders"),
            ("orders/*", "order/7"),
            ("orders/*/state", "orders/7/8/state"),
            ("orders/*/state", "orders//state"),
            ("orders/*/state", "orders/7/states"),
            ("*/state", "state"),
            ("*/state", "/state"),
        ] {
            assert!(!allowed(pattern, topic), "{pattern} {topic}");
        }
    }

    #[test]
    fn issue_6_a_star_inside_a_segment_is_no_pattern() {
        for bad in ["a*b", "a*/b", "**", "a/**", "*a", "a/*b*", "", "a b", "a,b"] {
            assert_eq!(Patterns::new([bad]), Err(BadPattern), "{bad}");
        }
    }

    #[test]
    fn issue_6_an_empty_list_allows_nothing_and_a_list_has_a_length() {
        let none = Patterns::new([]).unwrap();
        assert!(!none.allow(&Topic::new("a").unwrap()));
        assert!(Patterns::new(vec!["a"; PATTERNS_MAX]).is_ok());
        assert_eq!(Patterns::new(vec!["a"; PATTERNS_MAX + 1]), Err(BadPattern));
    }
}
