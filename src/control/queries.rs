//! The query strings of `GET /v1/connections` and `GET /v1/topics`: which, in which order, how many.
//!
//! Pure. What nobody knows is refused by name, so that a misspelt filter does not list everybody.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::command::{CommandError, ErrorCode, TopicsQuery};
use crate::config::ByteSize;
use crate::connections::Query;
use crate::wire::request::query_decode;

/// What may be asked of connections.
const ARGUMENTS: &str =
    "user, topic, transport, remote, lag_above, idle_above, age_above, sort, limit, after";

/// What may be asked of topics.
const TOPICS_ARGUMENTS: &str = "limit, after";

/// The arguments of `GET /v1/connections`; an argument without a value is as if it were not there.
///
/// Errors: `bad_request`, with the argument's name: unknown, given twice, or with a value that it cannot have.
pub fn connections(text: &str) -> Result<Query, CommandError> {
    let mut query = Query::default();
    each(text, ARGUMENTS, |name, value| take(&mut query, name, value))?;
    Ok(query)
}

/// The arguments of `GET /v1/topics`. Errors: as `connections`.
pub fn topics(text: &str) -> Result<TopicsQuery, CommandError> {
    let mut query = TopicsQuery::default();
    each(text, TOPICS_ARGUMENTS, |name, value| {
        match name {
            "limit" => query.limit = Some(parse(name, value)?),
            "after" => query.after = Some(parse(name, value)?),
            _ => return unknown(name, TOPICS_ARGUMENTS),
        }
        Ok(())
    })?;
    Ok(query)
}

/// How many a page has, at most, over either protocol. Errors: `bad_request` for none, and for more than `max`.
pub fn limit(asked: Option<u32>, default: u32, max: u32) -> Result<u32, CommandError> {
    match asked.unwrap_or(default) {
        limit if (1..=max).contains(&limit) => Ok(limit),
        limit => refuse(format!("limit must be 1 to {max}, not {limit}")),
    }
}

/// Takes each argument of `text` that has a value, decoded, with its name.
fn each(
    text: &str,
    arguments: &str,
    mut take: impl FnMut(&str, &str) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut seen = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (query_decode(name), query_decode(value)) else {
            return refuse(format!("{pair:?} is not percent-encoded UTF-8"));
        };
        if seen.contains(&name) {
            return refuse(format!("{name} is given twice"));
        }
        if !value.is_empty() {
            take(&name, &value)?;
        } else if !arguments.split(", ").any(|known| known == name) {
            return unknown(&name, arguments);
        }
        seen.push(name);
    }
    Ok(())
}

fn take(query: &mut Query, name: &str, value: &str) -> Result<(), CommandError> {
    let filter = &mut query.filter;
    match name {
        "user" => filter.user = Some(parse(name, value)?),
        "topic" => filter.topic = Some(parse(name, value)?),
        "transport" => filter.transport = Some(parse(name, value)?),
        "remote" => filter.remote = Some(parse(name, value)?),
        "lag_above" => filter.lag_above_bytes = Some(parse::<ByteSize>(name, value)?.0),
        "idle_above" => filter.idle_above_ms = Some(milliseconds(name, value)?),
        "age_above" => filter.age_above_ms = Some(milliseconds(name, value)?),
        "sort" => query.sort = parse(name, value)?,
        "limit" => query.limit = Some(parse(name, value)?),
        "after" => query.after = Some(parse(name, value)?),
        _ => return unknown(name, ARGUMENTS),
    }
    Ok(())
}

fn parse<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, CommandError> {
    value.parse().or_else(|error| refuse(format!("{name}={value:?}: {error}")))
}

fn milliseconds(name: &str, value: &str) -> Result<u64, CommandError> {
    let duration: Duration =
        humantime::parse_duration(value).or_else(|error| refuse(format!("{name}={value:?}: {error}")))?;
    Ok(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn unknown<T>(name: &str, arguments: &str) -> Result<T, CommandError> {
    refuse(format!("no such argument: {name:?}; there are {arguments}"))
}

fn refuse<T>(message: String) -> Result<T, CommandError> {
    Err(CommandError::new(ErrorCode::BadRequest, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::{Sort, Transport};

    #[test]
    fn issue_7_each_argument_is_read_with_its_units() {
        let query = connections(
            "user=a%2Fb&topic=news&transport=sse&remote=10.1.&lag_above=64KiB&idle_above=30s&age_above=1h&\
             sort=lag&limit=5&after=lag-9-0-5-1",
        );
        let query = query.expect("all are good");
        assert_eq!(query.filter.user.as_ref().map(|user| user.as_str()), Some("a/b"));
        assert_eq!(query.filter.topic.as_ref().map(|topic| topic.as_str()), Some("news"));
        assert_eq!(query.filter.transport, Some(Transport::EventStream));
        assert_eq!(query.filter.remote.as_ref().map(ToString::to_string).as_deref(), Some("10.1."));
        let above = (query.filter.lag_above_bytes, query.filter.idle_above_ms, query.filter.age_above_ms);
        assert_eq!(above, (Some(65_536), Some(30_000), Some(3_600_000)));
        assert_eq!((query.sort, query.limit), (Sort::Lag, Some(5)));
        assert_eq!(query.after.map(|after| after.to_string()).as_deref(), Some("lag-9-0-5-1"));
        assert_eq!(connections("").expect("nothing"), Query::default());
        assert_eq!(connections("&user=&sort&").expect("nothing"), Query::default());
    }

    #[test]
    fn issue_7_what_is_wrong_is_refused_by_the_arguments_name() {
        for (text, name) in [
            ("usr=a", "usr"),
            ("usr=", "usr"),
            ("User=a", "User"),
            ("user=a%20b", "user"),
            ("user=a&user=b", "user"),
            ("user=&user=b", "user"),
            ("topic=a,b", "topic"),
            ("transport=udp", "transport"),
            ("remote=example.org", "remote"),
            ("lag_above=64KB", "lag_above"),
            ("lag_above=-1", "lag_above"),
            ("idle_above=30", "idle_above"),
            ("age_above=soon", "age_above"),
            ("sort=name", "sort"),
            ("limit=x", "limit"),
            ("limit=-1", "limit"),
            ("limit=99999999999", "limit"),
            ("after=5", "after"),
            ("topic=%ff", "topic"),
            ("remote=%2", "remote"),
        ] {
            let refused = connections(text).expect_err(text);
            assert_eq!(refused.code, ErrorCode::BadRequest, "{text}");
            assert!(refused.message.contains(name), "{text}: {}", refused.message);
        }
    }
}
