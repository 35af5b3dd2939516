//! What Prometheus reads: checked by its own `promtool`, and against what really happened. What is made of it,
//! the dashboard and the alerts in `tuning/`, names only what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::guest::INSTALL;
use crate::harness::poll::Poller;
use crate::harness::websocket::{WebSocket, connect, reset, upgrade};
use crate::harness::{Gateway, sum};

const DASHBOARD: &str = include_str!("../../tuning/grafana.json");
const ALERTS: &str = include_str!("../../tuning/alerts.yml");

/// Labels that Prometheus adds to what it scrapes, and the one of histograms.
const ADDED: [&str; 3] = ["instance", "job", "le"];
/// Most samples of one metric and shard: the largest set of kinds.
const SAMPLES_MAX: usize = 64;

/// `promtool`, with `input` on its standard input.
fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("promtool: {error}; {INSTALL}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// One line of the text.
#[derive(Debug)]
struct Sample<'t> {
    name: &'t str,
    labels: BTreeMap<&'t str, &'t str>,
    value: f64,
}

fn samples(text: &str) -> Vec<Sample<'_>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line}"))).collect()
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let pairs = labels.strip_suffix('}')?.split_terminator(',');
    let pair = |pair: &'_ str| -> Option<(usize, usize)> { Some((pair.find('=')?, pair.len())) };
    let labels = pairs.map(|text| pair(text).map(|(at, end)| (&text[..at], &text[at + 2..end - 1])));
    Some(Sample { name, labels: labels.collect::<Option<_>>()?, value: value.parse().ok()? })
}

fn scrape(gateway: &Gateway) -> String {
    gateway.control("GET", "/metrics", "", b"").text().to_owned()
}

/// The sum of all samples of this name that have these labels.
fn total(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has =
        |sample: &Sample<'_>| labels.iter().all(|(label, value)| sample.labels.get(label) == Some(value));
    let found: Vec<f64> =
        samples(text).iter().filter(|sample| sample.name == name && has(sample)).map(|s| s.value).collect();
    assert!(!found.is_empty(), "no sample of {name} {labels:?}");
    found.iter().sum()
}

/// A gateway to which something of everything has happened.
fn used() -> (Gateway, Vec<WebSocket>) {
    let gateway = Gateway::start(&[]);
    let mut clients: Vec<_> = (0..4).map(|n| gateway.raw(&format!("user=u{n}&topics=t{n},all"))).collect();
    let mut stream = gateway.stream("user=s&topics=all");
    for n in 0..10 {
        gateway.push(json!({"topic": "all"}), json!(n));
        // Read before the next is pushed: each delivery is a send of its own.
        clients.iter_mut().for_each(|client| assert_eq!(client.text(), n.to_string()));
        stream.next();
    }
    gateway.until("delivered", |totals| totals["delivered"] == 50);
    drop(stream);
    gateway.ask("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    (gateway, clients)
}

#[test]
fn issue_7_promtool_finds_nothing_to_object_to() {
    let (gateway, _clients) = used();
    let text = scrape(&gateway);
    let checked = promtool(&["check", "metrics"], &text);
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    // It does look.
    let wrong = text.replace("# HELP corecast_users ", "# help ");
    assert!(!promtool(&["check", "metrics"], &wrong).status.success());
}

#[test]
fn issue_7_histograms_ascend_to_their_count_and_have_their_sum() {
    let (gateway, _clients) = used();
    let text = scrape(&gateway);
    let all = samples(&text);
    for name in ["corecast_push_to_socket_seconds", "corecast_turn_seconds"] {
        assert!(text.contains(&format!("# TYPE {name} histogram\n")));
        for shard in ["0", "1"] {
            let of = |suffix: &str| {
                let name = format!("{name}_{suffix}");
                let samples = all.iter().filter(move |s| s.name == name && s.labels["shard"] == shard);
                samples.map(|s| (s.labels.get("le").copied(), s.value)).collect::<Vec<_>>()
            };
            let (buckets, count) = (of("bucket"), of("count")[0].1);
            let bounds: Vec<f64> = buckets.iter().map(|(le, _)| le.unwrap().parse().unwrap()).collect();
            assert!(
                bounds.is_sorted_by(|a, b| a < b) && bounds[bounds.len() - 1].is_infinite(),
                "{bounds:?}"
            );
            assert!(bounds[0] < 1e-5 && bounds[bounds.len() - 2] > 10.0, "{bounds:?}");
            let counts: Vec<f64> = buckets.iter().map(|(_, count)| *count).collect();
            assert!(counts.is_sorted() && counts[counts.len() - 1] == count, "{counts:?}");
            let sum = of("sum")[0].1;
            assert!((count > 0.0) == (sum > 0.0) && sum < 60.0, "{name} of shard {shard}: {count}, {sum}");
        }
    }
    // Everybody keeps up here: each delivery was timed.
    assert_eq!(total(&text, "corecast_push_to_socket_seconds_count", &[]), 50.0);
    let turns = total(&text, "corecast_turns_total", &[]);
    // The snapshot is taken within a turn.
    assert_eq!(total(&text, "corecast_turn_seconds_count", &[]), turns - 2.0);
}

#[test]
fn issue_7_no_label_grows_with_what_clients_do() {
    let (gateway, _clients) = used();
    let before = scrape(&gateway);
    let more: Vec<_> = (0..40).map(|n| gateway.raw(&format!("user=other{n}&topics=topic{n}"))).collect();
    gateway.until("they are here", |totals| totals["users"] == 44);
    let after = scrape(&gateway);
    let series = |text: &str| {
        let line = |line: &str| line.rsplit_once(' ').unwrap().0.to_owned();
        text.lines().filter(|line| !line.starts_with('#')).map(line).collect::<BTreeSet<_>>()
    };
    assert_eq!(series(&before), series(&after));
    drop(more);
    let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
    for sample in samples(&after) {
        *by_name.entry(sample.name).or_default() += 1;
        let known = ["shard", "transport", "reason", "errno", "class", "kind", "result", "le"];
        let of_build = sample.name == "corecast_build_info";
        assert!(of_build || sample.labels.keys().all(|label| known.contains(label)), "{sample:?}");
    }
    let (most, count) = by_name.into_iter().max_by_key(|(_, count)| *count).unwrap();
    assert!(count <= 2 * SAMPLES_MAX, "{most} has {count} samples");
}

/// The labels that something in `text` wants of a metric, with the values that it names.
type Wanted = (String, BTreeMap<String, Vec<String>>);

/// Every metric that is named in `text`, with the matchers in braces behind it.
fn wanted(text: &str) -> Vec<Wanted> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("corecast_") {
        let rest = &text[at..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let matchers = rest[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let mut labels = BTreeMap::new();
        for matcher in matchers.iter().flat_map(|(matchers, _)| matchers.split(',')) {
            let (label, value) = matcher.split_once(['=', '!']).expect("a matcher");
            let value = value.trim_start_matches(['=', '~']).trim_matches('"');
            let values = value.split('|').map(str::to_owned);
            labels.insert(label.to_owned(), values.filter(|value| !value.starts_with('$')).collect());
        }
        found.push((rest[..end].to_owned(), labels));
    }
    found
}

#[test]
fn issue_7_documents_name_only_metrics_that_exist() {
    let gateway = Gateway::start(&[]);
    let text = scrape(&gateway);
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (file, document) in [
        ("README.md", include_str!("../../README.md")),
        ("tuning/troubles.md", include_str!("../../tuning/troubles.md")),
        ("tuning/manual.md", include_str!("../../tuning/manual.md")),
    ] {
        for (at, _) in document.match_indices("`corecast_") {
            let name = document[at + 1..].split(|c| !is_word(c)).next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{file} names {name}, which there is not");
        }
    }
}

/// What `sum by (…)` and its like name.
fn grouped(text: &str) -> BTreeSet<&str> {
    let lists = text.split("by (").skip(1).filter_map(|rest| rest.split_once(')'));
    lists.flat_map(|(list, _)| list.split(',')).map(str::trim).filter(|label| !label.is_empty()).collect()
}

fn expressions() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|field| collect(field, found));
            }
            _ => {}
        }
    }
    let (dashboard, mut found) = (serde_json::from_str(DASHBOARD).unwrap(), Vec::new());
    collect(&dashboard, &mut found);
    found
}

#[test]
fn issue_7_dashboard_and_alerts_use_only_metrics_and_labels_that_exist() {
    let (gateway, _clients) = used();
    let text = scrape(&gateway);
    let all = samples(&text);
    let expressions = expressions();
    assert!(expressions.len() > 30, "{}", expressions.len());
    let (said, asked): (Vec<&str>, Vec<&str>) =
        ALERTS.lines().partition(|line| ["summary:", "action:"].iter().any(|word| line.contains(word)));
    for (name, _) in wanted(&said.join("\n")) {
        assert!(text.contains(&format!("# TYPE {name} ")), "an alert speaks of {name}, which there is not");
    }
    let queries = expressions.join("\n") + "\n" + &asked.join("\n");
    for (name, labels) in wanted(&queries) {
        let of_name: Vec<_> = all.iter().filter(|sample| sample.name == name).collect();
        assert!(!of_name.is_empty(), "there is no metric {name}");
        for (label, values) in labels.iter().filter(|(label, _)| !ADDED.contains(&&label[..])) {
            for value in values {
                let is_there = |sample: &&Sample<'_>| sample.labels.get(&label[..]) == Some(&&value[..]);
                assert!(of_name.iter().any(is_there), "{name} has no {label}=\"{value}\"");
            }
        }
    }
    let labels: BTreeSet<&str> = all.iter().flat_map(|sample| sample.labels.keys().copied()).collect();
    for label in grouped(&queries) {
        assert!(labels.contains(label) || ADDED.contains(&label), "nothing has the label {label}");
    }
}

#[test]
fn issue_7_promtool_reads_every_alert_and_every_query_of_the_dashboard() {
    let directory = tempfile::tempdir().unwrap();
    let check = |name: &str, rules: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, rules).unwrap();
        let checked = promtool(&["check", "rules", file.to_str().unwrap()], "");
        assert!(checked.status.success(), "{checked:?}");
        String::from_utf8(checked.stdout).unwrap()
    };
    let alerts = ALERTS.matches("- alert: ").count();
    assert!(check("alerts.yml", ALERTS).contains(&format!("{alerts} rules found")));
    // As rules, because those are what it checks.
    let rules: Vec<Value> = expressions()
        .iter()
        .enumerate()
        .map(|(n, query)| {
            let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*");
            json!({"record": format!("dashboard:query:n{n}"), "expr": query})
        })
        .collect();
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    assert!(check("dashboard.json", &groups.to_string()).contains(&format!("{} rules found", rules.len())));
}

#[test]
fn issue_7_every_alert_says_what_happened_and_what_to_do() {
    for alert in ALERTS.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap();
        for annotation in ["summary: \"", "action: \""] {
            let text = alert.split_once(annotation).unwrap_or_else(|| panic!("{name}: no {annotation}")).1;
            assert!(text.find('"') > Some(20), "{name}: {annotation} says too little");
        }
        assert!(alert.contains("severity: page") || alert.contains("severity: warn"), "{name}");
    }
}

#[test]
fn issue_7_refusals_are_counted_by_reason_and_add_up() {
    let gateway = Gateway::start(&["limits.connections=1", "web.origins=https://example.org"]);
    let client = gateway.raw("user=a");
    let get = |target: &str, more: &str| gateway.ask(upgrade(target, more)).refusal();
    assert_eq!(get("/ws?user=b", ""), (503, "overloaded".to_owned()));
    assert_eq!(get("/nowhere", ""), (404, "not_found".to_owned()));
    assert_eq!(get("/ws?user=a%20b", ""), (400, "bad_user".to_owned()));
    assert_eq!(get("/ws?topics=,", ""), (400, "bad_topic".to_owned()));
    assert_eq!(get("/ws?since=x", ""), (400, "bad_request".to_owned()));
    assert_eq!(get("/ws", "Origin: https://example.com\r\n"), (403, "forbidden_origin".to_owned()));
    assert_eq!(gateway.ask("POST /ws HTTP/1.1\r\nHost: x\r\n\r\n").status, 405);
    let totals = gateway.until("they have gone", |totals| totals["closed"]["refused"] == 7);
    for reason in ["connections", "not_found", "bad_user", "bad_topic", "bad_request", "forbidden_origin"] {
        assert_eq!(totals["refused"][reason], 1, "{reason}");
    }
    assert_eq!(sum(&totals["refused"]), 7);
    let text = scrape(&gateway);
    assert_eq!(total(&text, "corecast_refused_total", &[("reason", "connections")]), 1.0);
    client.close();
}

#[test]
fn issue_7_a_handshake_that_is_not_finished_is_in_progress() {
    let gateway = Gateway::start(&[]);
    let mut silent = connect(gateway.address, None, None);
    silent.write_all(b"GET /ws HTTP/1.1\r\n").unwrap();
    gateway.until("it is seen", |totals| totals["handshakes"] == 1);
    // Between two polls nothing is in progress.
    let mut poller = Poller::connect(gateway.address);
    poller.poll("timeout=0");
    reset(silent);
    let totals = gateway.until("it is over", |totals| totals["handshakes"] == 0);
    assert_eq!(totals["open"], 1);
}

#[test]
fn issue_7_who_does_not_read_is_lagging_and_the_largest_lag_is_the_furthest_ones() {
    let gateway = Gateway::start(&["limits.socket_send_bytes=4096", "shards=1"]);
    let lazy = WebSocket::open_on(connect(gateway.address, Some(4096), None), "/ws?topics=t", None);
    let mut reads = gateway.raw("topics=t");
    for n in 0..20 {
        gateway.push(json!({"topic": "t"}), json!("x".repeat(20_000)));
        assert_eq!(reads.text().len(), 20_002, "{n}");
    }
    let totals = gateway.until("it is behind", |totals| {
        totals["lagging"] == 1 && totals["lag_bytes_max"].as_u64() > Some(200_000)
    });
    assert_eq!(totals["blocked"], 1);
    assert!(totals["lag_bytes_max"].as_u64() <= Some(20 * 20_010), "{}", totals["lag_bytes_max"]);
    // Who lags is not timed: that is his network, not this gateway.
    let timed = totals["latency_us"]["count"].as_u64().unwrap();
    assert!((20..=totals["delivered"].as_u64().unwrap()).contains(&timed), "{timed}: {totals}");
    drop(lazy);
    let totals = gateway.until("it has gone", |totals| totals["connections"] == 1);
    assert_eq!((&totals["lagging"], &totals["lag_bytes_max"]), (&json!(0), &json!(0)));
}

#[test]
fn issue_7_resumes_and_gaps_are_counted() {
    let gateway = Gateway::start(&["shards=1"]);
    let first = gateway.push(json!({"topic": "t"}), json!(1));
    gateway.push(json!({"topic": "t"}), json!(2));
    let since = first["position"].as_str().unwrap();
    let _resumes = gateway.raw(&format!("topics=t&since={since}"));
    let _misses = gateway.raw("topics=t&since=00000000-1");
    let (mut subscribes, _) = gateway.hello("");
    subscribes.send_json(&json!({"type": "subscribe", "topics": ["t"], "since": since}));
    subscribes.expect("subscribed");
    subscribes.expect("resumed");
    let totals = gateway.totals();
    assert_eq!((&totals["resumes"], &totals["gaps"]), (&json!(3), &json!(1)));
    // The tape holds them meanwhile.
    assert!(totals["tape_age_ms"].as_u64() < Some(60_000));
}

#[test]
fn issue_7_control_requests_are_counted_by_kind_and_result() {
    let gateway = Gateway::start(&[]);
    gateway.push(json!({"all": true}), json!(1));
    gateway.control("POST", "/v1/push", "application/json", br#"{"to":{"all":true},"data":1,"event":"\n"}"#);
    gateway.control("POST", "/v1/push", "application/x-ndjson", br#"{"to":{"all":true},"data":1}"#);
    gateway.control("GET", "/nowhere", "", b"");
    gateway.control("GET", "/v1/users/a", "", b"");
    gateway.control("DELETE", "/v1/users/a?code=7", "", b"");
    let requests = gateway.get("/v1/stats")["requests"].clone();
    let push = json!({"done": 1, "refused": 1, "busy": 0});
    assert_eq!(requests["push"], push);
    assert_eq!(requests["push_batch"]["done"], 1);
    assert_eq!((&requests["unknown"]["refused"], &requests["presence"]["done"]), (&json!(1), &json!(1)));
    assert_eq!(requests["kick_user"], json!({"done": 0, "refused": 1, "busy": 0}));
    assert_eq!(requests["stats"]["done"], 1);
    let text = scrape(&gateway);
    assert_eq!(
        total(&text, "corecast_control_requests_total", &[("kind", "stats"), ("result", "done")]),
        2.0
    );
}

#[test]
fn issue_7_a_full_mailbox_is_counted_at_its_shard() {
    let gateway = Gateway::start(&["control.mailbox_bytes=1KiB"]);
    let user = gateway.user_on(1);
    let line = json!({"to": {"user": user}, "data": "x".repeat(600)}).to_string();
    // One command with many pushes would wait for room; each by itself is refused.
    let mut client = gateway.client();
    let push = || corecast::control::command::Push {
        target: corecast::message::Target::User(user.parse().unwrap()),
        kind: corecast::message::Kind::Text,
        payload: line.clone().into_bytes().into(),
        event: None,
        ttl_ms: None,
        id: None,
    };
    let sent: Vec<_> =
        (0..64).map(|_| client.send(&corecast::control::command::Command::Push(push()))).collect();
    client.flush().unwrap();
    let busy = sent.iter().filter(|_| client.receive().unwrap().1.is_err()).count() as u64;
    let stats = gateway.get("/v1/stats");
    assert_eq!(stats["busy"], busy);
    let refused = |shard: usize| stats["shards"][shard]["mailbox_refused"].as_u64().unwrap();
    assert_eq!((refused(0), refused(1)), (0, busy), "{busy} of 64");
    assert!(busy > 0);
}

#[test]
fn issue_7_memory_and_descriptors_are_what_they_are_used_for() {
    let gateway = Gateway::start(&["shards=1"]);
    let before = gateway.get("/v1/stats");
    let mut clients: Vec<_> = (0..100).map(|n| gateway.raw(&format!("user=u{n}&topics=t{n}"))).collect();
    gateway.push(json!({"all": true}), json!("x".repeat(10_000)));
    clients.iter_mut().for_each(|client| assert_eq!(client.text().len(), 10_002));
    let after = gateway.get("/v1/stats");
    let class = |stats: &Value, class: &str| stats["totals"]["memory"][class].as_u64().unwrap();
    let grown = |name: &str| class(&after, name) - class(&before, name);
    // A chunk of 1,024 slots, one of as many short ids.
    assert!((64 * 1024..80 * 1024).contains(&class(&after, "slots")), "{}", class(&after, "slots"));
    assert!((12 * 1024..20 * 1024).contains(&class(&after, "users")), "{}", class(&after, "users"));
    assert!((100 * 60..100 * 200).contains(&grown("topics")), "{}", grown("topics"));
    assert!((10_000..11_000).contains(&grown("tape")), "{}", grown("tape"));
    assert!(class(&after, "buffers") >= 128 * 1024);
    assert_eq!(class(&after, "addresses"), 0);
    let open = |stats: &Value| stats["descriptors"].as_u64().unwrap();
    assert_eq!(open(&after) - open(&before), 100);
    assert!(open(&after) < after["descriptors_max"].as_u64().unwrap());
}

#[test]
fn issue_7_the_ring_counts_what_it_is_given_and_what_comes_back() {
    let gateway = Gateway::start(&["shards=1"]);
    let mut clients: Vec<_> = (0..50).map(|_| gateway.raw("topics=t")).collect();
    let before = gateway.totals();
    gateway.push(json!({"topic": "t"}), json!(1));
    clients.iter_mut().for_each(|client| assert_eq!(client.text(), "1"));
    let after = gateway.until("counted", |totals| totals["delivered"] == 50);
    let during = |name: &str| after[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    assert!(during("ring_submissions") >= 50 && during("ring_completions") >= 50);
    // Fifty in a few calls: that is what batches are for.
    assert!(during("ring_enters") < 25, "{}", during("ring_enters"));
}
