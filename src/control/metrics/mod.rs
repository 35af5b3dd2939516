//! The counters, as Prometheus text (`GET /metrics`) and as JSON (`GET /v1/stats`).
//!
//! Pure. A new counter is one line in `table`; JSON takes it from the struct by itself.

mod table;

use std::fmt::{Display, Write};

use serde_json::{Value, json};

use super::command::Stats;
use super::http;
use super::tally::{RequestKind, RequestResult, Tally};
use crate::stats::{AcceptError, CloseReason, Histogram, MemoryClass, RefusalReason, ShardStats};
use table::{Metric, Source};

/// `Content-Type` of the Prometheus text format 0.0.4.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// What one sample takes, roughly: the text is made without growing.
const SAMPLE_BYTES: usize = 80;

/// The Prometheus text.
pub fn text(stats: &Stats) -> http::Answer {
    let mut text = String::with_capacity(SAMPLE_BYTES * (150 + 250 * stats.shards.len()));
    for metric in table::every() {
        let Metric { name, kind, help, .. } = metric;
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        write_samples(&mut text, metric, stats);
    }
    http::Answer { status: 200, content_type: PROMETHEUS, allow: None, body: text.into_bytes() }
}

fn write_samples(text: &mut String, metric: &Metric, stats: &Stats) {
    let name = metric.name;
    let mut sample = |labels: &str, value: &dyn Display| {
        let _ = writeln!(text, "{name}{labels} {value}");
    };
    match &metric.source {
        Source::Gateway(read) => sample("", &read(stats)),
        Source::Facts(labels, read) => {
            let pairs = labels.iter().zip(read(stats)).map(|(label, value)| format!("{label}=\"{value}\""));
            sample(&format!("{{{}}}", pairs.collect::<Vec<_>>().join(",")), &1);
        }
        Source::Pairs([first, second], read) => {
            for ([one, other], count) in read(stats) {
                sample(&format!("{{{first}=\"{one}\",{second}=\"{other}\"}}"), &count);
            }
        }
        Source::Shard(read) => {
            stats.shards.iter().for_each(|s| sample(&format!("{{shard=\"{}\"}}", s.shard), &read(s)));
        }
        Source::ShardMs(read) => {
            let seconds = |s| Seconds { whole: read(s) / 1000, nanos: read(s) % 1000 * 1_000_000 };
            stats.shards.iter().for_each(|s| sample(&format!("{{shard=\"{}\"}}", s.shard), &seconds(s)));
        }
        Source::ShardBy(label, read) => {
            for s in &stats.shards {
                for (value, count) in read(s) {
                    sample(&format!("{{shard=\"{}\",{label}=\"{value}\"}}", s.shard), &count);
                }
            }
        }
        Source::Times(read) => {
            stats.shards.iter().for_each(|s| write_times(text, name, s.shard, read(s)));
        }
    }
}

fn write_times(text: &mut String, name: &str, shard: u16, times: &Histogram) {
    for (le_us, count) in times.cumulative_octaves() {
        let le = Seconds { whole: le_us / 1_000_000, nanos: le_us % 1_000_000 * 1000 };
        let _ = writeln!(text, "{name}_bucket{{shard=\"{shard}\",le=\"{le}\"}} {count}");
    }
    let (count, sum_ns) = (times.count(), times.sum_ns());
    let sum = Seconds { whole: sum_ns / 1_000_000_000, nanos: sum_ns % 1_000_000_000 };
    let _ = writeln!(text, "{name}_bucket{{shard=\"{shard}\",le=\"+Inf\"}} {count}");
    let _ = writeln!(text, "{name}_sum{{shard=\"{shard}\"}} {sum}");
    let _ = writeln!(text, "{name}_count{{shard=\"{shard}\"}} {count}");
}

/// Seconds as Prometheus reads them, to the nanosecond.
struct Seconds {
    whole: u64,
    nanos: u64,
}

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fraction = format!("{:09}", self.nanos);
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{}", self.whole),
            fraction => write!(f, "{}.{fraction}", self.whole),
        }
    }
}

/// Rows of a Markdown table of every metric: name, type, labels, help.
pub fn reference() -> String {
    let row = |metric: &Metric| {
        let labels: Vec<_> = metric.labels().iter().map(|label| format!("`{label}`")).collect();
        let Metric { name, kind, help, .. } = metric;
        format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "))
    };
    table::every().map(row).collect()
}

/// One shard's counters by name; by reason and the like where there are several, and times as `of_times` shows
/// them.
pub fn shard_json(stats: &ShardStats) -> Value {
    let mut json = json!(stats);
    let named = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| -> Value {
        Value::Object(counts.map(|(name, count)| (name.to_owned(), count.into())).collect())
    };
    json["closed"] = named(&mut CloseReason::named(&stats.closed));
    json["dropped"] = named(&mut stats.dropped.by_reason());
    json["refused"] = named(&mut RefusalReason::named(&stats.refused));
    json["accept_errors"] = named(&mut AcceptError::named(&stats.accept_errors));
    json["memory"] = named(&mut MemoryClass::named(&stats.memory));
    put_times(&mut json, stats);
    json
}

/// In the place of each histogram, what it comes to: `latency_us` and `latency_buckets`, `turn_us` and
/// `turn_buckets`. Buckets are upper bounds in microseconds and how many were at most as long.
fn put_times(json: &mut Value, stats: &ShardStats) {
    for (field, name, times) in
        [("latency", "latency", &stats.latency), ("turn_time", "turn", &stats.turn_time)]
    {
        json.as_object_mut().expect("a struct").remove(field);
        json[format!("{name}_us")] = json!(times.percentiles());
        json[format!("{name}_buckets")] = json!(times.cumulative().collect::<Vec<_>>());
    }
}

/// Of these the largest counts, not their sum.
const LARGEST: [&str; 2] = ["lag_bytes_max", "tape_age_ms"];

/// The shards' sum, as JSON like each of them.
pub fn totals_json(shards: &[ShardStats]) -> Value {
    let mut merged = ShardStats::default();
    let mut totals = shard_json(&merged);
    let mut largest = [0; LARGEST.len()];
    for shard in shards {
        merged.latency.merge(&shard.latency);
        merged.turn_time.merge(&shard.turn_time);
        let json = shard_json(shard);
        let here = LARGEST.iter().filter_map(|name| json[name].as_u64());
        largest.iter_mut().zip(here).for_each(|(largest, here)| *largest = here.max(*largest));
        add(&mut totals, &json);
    }
    LARGEST.iter().zip(largest).for_each(|(name, largest)| totals[name] = largest.into());
    // Percentiles do not add up.
    put_times(&mut totals, &merged);
    totals.as_object_mut().expect("a struct").remove("shard");
    totals
}

fn add(total: &mut Value, more: &Value) {
    match total {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| add(field, &more[name])),
        Value::Number(_) => {
            let sum = total.as_u64().unwrap_or(0).saturating_add(more.as_u64().unwrap_or(0));
            *total = sum.into();
        }
        _ => {}
    }
}

/// Requests on the control socket by kind, and each kind's by result.
pub fn requests_json(requests: &Tally) -> Value {
    let results = |kind| {
        let count = |&result: &RequestResult| (result.name().to_owned(), requests.of(kind, result).into());
        Value::Object(RequestResult::ALL.iter().map(count).collect())
    };
    let kinds = RequestKind::ALL.iter().map(|&kind| (kind.name().to_owned(), results(kind)));
    Value::Object(kinds.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::message::Position;

    fn stats() -> Stats {
        let mut shards = vec![ShardStats { shard: 0, delivered: 3, ..Default::default() }; 2];
        shards[1].shard = 1;
        shards[1].count_close(CloseReason::SlowConsumer);
        shards[1].count_refusal(RefusalReason::Memory);
        shards[1].dropped.ended[CloseReason::SlowConsumer as usize] = 7;
        shards[1].accept_errors[AcceptError::Emfile as usize] = 5;
        shards[1].memory[MemoryClass::Tape as usize] = 6;
        (shards[0].websockets, shards[0].polls) = (4, 1);
        shards[0].dropped.unsubscribed = 2;
        (shards[0].tape_age_ms, shards[1].tape_age_ms) = (1500, 250);
        shards[0].latency.observe_times(Duration::from_micros(100), 99);
        shards[1].latency.observe(Duration::from_millis(30));
        let mut requests = Tally::default();
        requests.count(RequestKind::Push, RequestResult::Busy);
        Stats {
            version: "1.2.3".to_owned(),
            uptime_s: 5,
            uptime_ms: 5000,
            position: Position { epoch: 0xa1, seq: 9 },
            draining: false,
            accepted: 9,
            refused: 2,
            busy: 1,
            reloads: 1,
            reloads_refused: 0,
            memory_used_bytes: 3,
            memory_limit_bytes: 4,
            tickets: 0,
            control_clients: 1,
            admin_clients: 0,
            admin_unauthorized: 0,
            requests,
            descriptors: 17,
            descriptors_max: 1024,
            counted_addresses: 2,
            shards,
        }
    }

    fn text_of(stats: &Stats) -> String {
        String::from_utf8(text(stats).body).expect("text")
    }

    #[test]
    fn contract_3_every_metric_has_help_and_type_and_counters_end_in_total() {
        let text = text_of(&stats());
        for metric in table::every() {
            let Metric { name, kind, help, .. } = metric;
            assert!(text.contains(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name}")), "{name}");
            assert!(help.ends_with('.') && help.len() <= 100, "{name}: {help}");
            assert_eq!(*kind == "counter", name.ends_with("_total"), "{name}");
            let base = name.trim_end_matches("_total");
            assert!(!["_ms", "_us", "_kb", "_percent"].iter().any(|unit| base.ends_with(unit)), "{name}");
        }
        let names: HashSet<_> = table::every().map(|metric| metric.name).collect();
        assert_eq!(names.len(), table::every().count(), "a name stands there twice");
    }

    #[test]
    fn issue_7_samples_have_their_shard_and_their_kind_and_base_units() {
        let text = text_of(&stats());
        for sample in [
            "corecast_delivered_total{shard=\"1\"} 3",
            "corecast_closed_total{shard=\"1\",reason=\"slow_consumer\"} 1",
            "corecast_dropped_total{shard=\"1\",reason=\"slow_consumer\"} 7",
            "corecast_dropped_total{shard=\"0\",reason=\"unsubscribed\"} 2",
            "corecast_refused_total{shard=\"1\",reason=\"memory\"} 1",
            "corecast_accept_errors_total{shard=\"1\",errno=\"EMFILE\"} 5",
            "corecast_memory_class_bytes{shard=\"1\",class=\"tape\"} 6",
            "corecast_connections{shard=\"0\",transport=\"ws\"} 4",
            "corecast_control_requests_total{kind=\"push\",result=\"busy\"} 1",
            "corecast_tape_age_seconds{shard=\"0\"} 1.5",
            "corecast_tape_age_seconds{shard=\"1\"} 0.25",
            "corecast_push_to_socket_seconds_bucket{shard=\"0\",le=\"0.000064\"} 0",
            "corecast_push_to_socket_seconds_bucket{shard=\"0\",le=\"0.000128\"} 99",
            "corecast_push_to_socket_seconds_bucket{shard=\"0\",le=\"16.777216\"} 99",
            "corecast_push_to_socket_seconds_bucket{shard=\"0\",le=\"+Inf\"} 99",
            "corecast_push_to_socket_seconds_sum{shard=\"0\"} 0.0099",
            "corecast_push_to_socket_seconds_count{shard=\"0\"} 99",
        ] {
            assert!(text.contains(&format!("\n{sample}\n")), "{sample}");
        }
        assert!(text.contains("\ncorecast_build_info{version=\"1.2.3\",arch="), "{text}");
    }

    #[test]
    fn issue_7_totals_add_up_counters_take_the_largest_age_and_merge_times() {
        let totals = totals_json(&stats().shards);
        assert_eq!((&totals["delivered"], &totals["closed"]["slow_consumer"]), (&json!(6), &json!(1)));
        assert_eq!(
            (&totals["dropped"]["unsubscribed"], &totals["refused"]["memory"]),
            (&json!(2), &json!(1))
        );
        assert_eq!((&totals["accept_errors"]["EMFILE"], &totals["memory"]["tape"]), (&json!(5), &json!(6)));
        assert_eq!(totals["tape_age_ms"], 1500);
        let latency = &totals["latency_us"];
        assert_eq!((&latency["count"], &latency["max"]), (&json!(100), &json!(30_000)));
        assert!((96..=128).contains(&latency["p99"].as_u64().unwrap()), "{latency}");
        let buckets = totals["latency_buckets"].as_array().unwrap();
        assert_eq!((&buckets[13], buckets.last().unwrap()), (&json!([128, 99]), &json!([1 << 24, 100])));
        assert!(totals.get("shard").is_none() && totals.get("latency").is_none());
    }

    /// The same with another number in the place of each, from 1,000,001 up; gives those.
    fn number(value: &mut Value, numbers: &mut Vec<u64>) {
        match value {
            Value::Number(_) => {
                numbers.push(1_000_001 + numbers.len() as u64);
                *value = numbers[numbers.len() - 1].into();
            }
            Value::Array(items) => items.iter_mut().for_each(|item| number(item, numbers)),
            Value::Object(fields) => fields.values_mut().for_each(|field| number(field, numbers)),
            _ => {}
        }
    }

    #[test]
    fn issue_7_every_number_that_is_counted_is_a_metric() {
        let mut json = json!(Stats { shards: vec![ShardStats::default()], ..stats() });
        // Shown as the sum of the transports; the label; times, which have a test of their own.
        let apart = ["connections", "shard", "latency", "turn_time"];
        let kept = apart.map(|name| (name, json["shards"][0][name].take()));
        // Shown in seconds, as `uptime_s` has it.
        let uptime_ms = json["uptime_ms"].take();
        let mut numbers = Vec::new();
        number(&mut json, &mut numbers);
        assert!(numbers.len() > 120, "{}", numbers.len());
        kept.into_iter().for_each(|(name, value)| json["shards"][0][name] = value);
        json["uptime_ms"] = uptime_ms;
        let text = text_of(&serde_json::from_value(json).expect("as it was"));
        let shown: HashSet<&str> = text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.1)).collect();
        for number in numbers {
            let seconds = Seconds { whole: number / 1000, nanos: number % 1000 * 1_000_000 }.to_string();
            let found = shown.contains(&number.to_string()[..]) || shown.contains(&seconds[..]);
            assert!(found, "no metric shows the {}th number of the counters", number - 1_000_000);
        }
    }

    #[test]
    fn issue_7_the_reference_has_a_row_for_each_metric() {
        let reference = reference();
        assert_eq!(reference.lines().count(), table::every().count());
        let row = "| `corecast_closed_total` | counter | `shard`, `reason` | Connections ended, by reason. |";
        assert!(reference.lines().any(|line| line == row), "{reference}");
    }
}
