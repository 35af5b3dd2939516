//! `request` and `echo`: what is sent, how responses are judged, closed and open loop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::bench::{Run, bench, beside};
use crate::planted::Planted;
use crate::planted::answering::RIGHT;
use crate::planted::script::{Answer, Framing, Script, Writing};
use crate::planted::tally::Asked;

/// A run of `request` on `/`, where `answers` are planted.
#[track_caller]
fn request(answers: &[(u64, Answer)], words: &str) -> (Run, Planted) {
    let server = Planted::start(Script { answers: answers.to_vec(), ..Script::default() });
    let run = bench("request", &[&server.http("/")], words);
    (run, server)
}

#[test]
fn every_request_is_answered_once_however_its_body_is_framed() {
    let _machine = beside();
    for (framing, connections) in [(Framing::Length, 8), (Framing::Chunks, 8), (Framing::UntilClose, 400)] {
        let server = Planted::start(Script { framing, ..Script::default() });
        let contains = format!("contains={RIGHT}");
        let exact = [&*server.http("/"), "--check", &contains, "--check", "json:$.ok=true"];
        let run = bench("request", &exact, "-c 8 -n 400 --check status=200");
        run.exits(0);
        run.has(&[("sent", 400), ("succeeded", 400), ("unsuccessful", 0), ("dropped", 0)]);
        run.ended_as(&[("status 200", 400)]);
        assert_eq!(run.timed("response"), 400);
        let planted = server.until("all have gone", |tally| tally.open() == 0);
        assert_eq!((planted.asked, planted.connections.len()), (400, connections), "{framing:?}");
        assert_eq!(run.total("bytes_in"), planted.sum(|seen| seen.bytes_out), "{framing:?}");
        assert_eq!(run.total("bytes_out"), planted.sum(|seen| seen.bytes_in), "{framing:?}");
    }
}

#[test]
fn a_response_in_single_octets_is_one_response() {
    let _machine = beside();
    for framing in [Framing::Length, Framing::Chunks] {
        let server = Planted::start(Script { framing, writing: Writing::Octets, ..Script::default() });
        let run = bench("request", &[&server.http("/"), "--check", "json:$.ok=true"], "-c 4 -n 40");
        run.exits(0);
        run.has(&[("sent", 40), ("succeeded", 40)]);
    }
}

#[test]
fn without_keep_alive_each_request_has_a_connection() {
    let _machine = beside();
    let (run, server) = request(&[], "-c 4 -n 100 --no-keep-alive");
    run.exits(0);
    run.has(&[("succeeded", 100), ("dropped", 0), ("failed", 0)]);
    assert_eq!(server.tally().connections.len(), 100);
    let closes = |asked: &Asked| asked.request.header("connection") == Some("close");
    assert!(server.tally().requests.iter().all(closes));
}

#[test]
fn every_wrong_status_is_found() {
    let _machine = beside();
    let (run, _server) = request(&[(10, Answer::Status(500))], "-c 4 -n 200 --check status=200");
    run.exits(1);
    run.has(&[("sent", 200), ("succeeded", 180), ("unsuccessful", 20)]);
    assert_eq!((run.outcome("status 200"), run.outcome("status 500")), (180, 20), "{}", run.said());
}

#[test]
fn a_status_of_400_or_more_is_a_failure_without_any_check() {
    let _machine = beside();
    let (run, _server) = request(&[(10, Answer::Status(503))], "-c 4 -n 200");
    run.exits(1);
    run.has(&[("succeeded", 180), ("unsuccessful", 20)]);
}

#[test]
fn a_wrong_status_is_right_where_it_is_checked_for() {
    let _machine = beside();
    let (run, _server) = request(&[(1, Answer::Status(404))], "-c 2 -n 50 --check status=404");
    run.exits(0);
    run.has(&[("succeeded", 50), ("unsuccessful", 0)]);
}

#[test]
fn every_failed_check_is_found() {
    let _machine = beside();
    let (run, _server) = request(&[(8, Answer::WrongJson)], "-c 4 -n 200 --check json:$.ok=true");
    run.exits(1);
    run.has(&[("succeeded", 175), ("unsuccessful", 25)]);
    assert_eq!(run.outcome("error check_failed"), 25, "{}", run.said());
    let server = Planted::start(Script { answers: vec![(25, Answer::WrongBody)], ..Script::default() });
    let contains = format!("contains={RIGHT}");
    let run = bench("request", &[&server.http("/"), "--check", &contains], "-c 4 -n 200");
    run.exits(1);
    run.has(&[("succeeded", 192), ("unsuccessful", 8)]);
    assert_eq!(run.outcome("error check_failed"), 8, "{}", run.said());
}

#[test]
fn an_echo_that_is_not_what_was_sent_fails_its_check() {
    let _machine = beside();
    let server = Planted::start(Script { answers: vec![(25, Answer::WrongBody)], ..Script::default() });
    let exact = [&*server.ws("/echo"), "--message", "hello {{number}}", "--check", "contains=hello"];
    let run = bench("echo", &exact, "-c 4 -n 200");
    run.exits(1);
    run.has(&[("succeeded", 192), ("unsuccessful", 8)]);
    assert_eq!(run.outcome("error check_failed"), 8, "{}", run.said());
}

#[test]
fn every_answer_that_never_comes_is_a_timeout_and_the_rest_goes_on() {
    let _machine = beside();
    for (mode, path) in [("request", "/"), ("echo", "/echo")] {
        let server = Planted::start(Script { answers: vec![(50, Answer::Never)], ..Script::default() });
        let url = if mode == "echo" { server.ws(path) } else { server.http(path) };
        let run = bench(mode, &[&url], "-c 5 -n 200 --timeout 500ms");
        run.exits(1);
        run.has(&[("succeeded", 196), ("unsuccessful", 4)]);
        assert_eq!(run.outcome("error response_timed_out"), 4, "{mode}: {}", run.said());
    }
}

#[test]
fn every_connection_cut_instead_of_an_answer_is_counted_by_its_name() {
    let _machine = beside();
    for (mode, path) in [("request", "/"), ("echo", "/echo")] {
        let answers = vec![(40, Answer::Reset), (20, Answer::Ended)];
        let server = Planted::start(Script { answers, ..Script::default() });
        let url = if mode == "echo" { server.ws(path) } else { server.http(path) };
        let run = bench(mode, &[&url], "-c 5 -n 200");
        run.exits(1);
        run.has(&[("succeeded", 190), ("unsuccessful", 10)]);
        assert_eq!(
            (run.outcome("error reset"), run.outcome("error ended")),
            (5, 5),
            "{mode}: {}",
            run.said()
        );
    }
}

#[test]
fn an_answer_that_is_no_http_is_a_broken_protocol() {
    let _machine = beside();
    let (run, _server) = request(&[(50, Answer::Garbage)], "-c 5 -n 200 --timeout 2s");
    run.exits(1);
    run.has(&[("succeeded", 196), ("unsuccessful", 4)]);
    assert_eq!(run.outcome("error bad_protocol"), 4, "{}", run.said());
}

#[test]
fn an_open_loop_sends_at_its_rate_and_a_closed_one_as_fast_as_answers_come() {
    let _machine = beside();
    for (mode, path) in [("request", "/"), ("echo", "/echo")] {
        let answers = vec![(1, Answer::Late(Duration::from_millis(10)))];
        let server = Planted::start(Script { answers, ..Script::default() });
        let url = if mode == "echo" { server.ws(path) } else { server.http(path) };
        let run = bench(mode, &[&url], "-c 10 -n 150 --rate 100/s");
        run.exits(0);
        run.has(&[("sent", 150), ("succeeded", 150)]);
        let rate = run.report["rates"]["requests/s"].as_f64().unwrap();
        assert!((80.0..105.0).contains(&rate), "{mode}: {rate} a second: {}", run.said());
        // Ten at a time, each 10 ms: 150 ms and never less.
        let run = bench(mode, &[&url], "-c 10 -n 150");
        run.exits(0);
        let rate = run.report["rates"]["requests/s"].as_f64().unwrap();
        assert!((300.0..1001.0).contains(&rate), "{mode}: {rate} a second: {}", run.said());
    }
}

#[test]
fn without_a_number_the_time_ends_it() {
    let _machine = beside();
    let (run, server) = request(&[], "-c 2 --for 700ms --rate 100/s");
    run.exits(0);
    let sent = run.total("sent");
    assert!((60..=75).contains(&sent), "{sent} in 700 ms at 100 a second");
    assert_eq!((run.total("succeeded"), server.tally().asked), (sent, sent));
}

#[test]
fn a_request_pasted_from_a_browser_is_sent_as_it_was() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("request.txt");
    let curl = format!(
        "curl 'http://{}/api/items?a=1&b=%20' \\\n  -X 'PUT' \\\n  -H 'accept: application/json' \\\n  \
         -H 'content-type: application/json' \\\n  -H 'x-it: it'\\''s' \\\n  -b 'session=abc; theme=dark' \\\n  \
         --data-raw $'{{\"name\":\"caf\\u00e9\\u0021\"}}' \\\n  --compressed\n",
        server.address
    );
    std::fs::write(&file, curl).unwrap();
    let run = bench("request", &["--curl", file.to_str().unwrap()], "-c 2 -n 6");
    run.exits(0);
    let planted = server.tally();
    assert_eq!(planted.requests.len(), 6);
    for asked in &planted.requests {
        let request = &asked.request;
        assert_eq!((&*request.method, &*request.target), ("PUT", "/api/items?a=1&b=%20"));
        assert_eq!(request.header("accept"), Some("application/json"));
        assert_eq!(request.header("x-it"), Some("it's"));
        assert_eq!(request.header("cookie"), Some("session=abc; theme=dark"));
        assert_eq!(request.header("host"), Some(&*server.address.to_string()));
        assert_eq!(String::from_utf8_lossy(&request.body), r#"{"name":"café!"}"#);
    }
}

#[test]
fn variables_of_a_csv_are_in_url_headers_and_body_of_each_connection() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    let directory = tempfile::tempdir().unwrap();
    let csv = directory.path().join("users.csv");
    std::fs::write(&csv, "name,token\nann,\"a,1\"\nbob,b2\ncy,c3\n").unwrap();
    let url = format!("http://{}/u/{{{{name}}}}", server.address);
    let exact =
        [&*url, "--csv", csv.to_str().unwrap(), "-H", "X-Token: {{token}}", "-d", "{{name}}:{{token}}"];
    let run = bench("request", &exact, "-c 6 -n 60");
    run.exits(0);
    let planted = server.tally();
    let mut per_connection: BTreeMap<usize, String> = BTreeMap::new();
    for asked in &planted.requests {
        let request = &asked.request;
        let name = request.target.strip_prefix("/u/").unwrap();
        let token =
            [("ann", "a,1"), ("bob", "b2"), ("cy", "c3")].iter().find(|(it, _)| *it == name).unwrap().1;
        assert_eq!(request.method, "POST");
        assert_eq!(request.header("x-token"), Some(token));
        assert_eq!(request.body, format!("{name}:{token}").into_bytes());
        // A connection keeps its line.
        assert_eq!(per_connection.entry(asked.connection).or_insert(name.to_owned()), name);
    }
    for name in ["ann", "bob", "cy"] {
        assert_eq!(per_connection.values().filter(|it| *it == name).count(), 2, "{per_connection:?}");
    }
}

#[test]
fn several_targets_get_connections_by_their_weights() {
    let _machine = beside();
    let first = Planted::start(Script::default());
    let second = Planted::start(Script::default());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("targets");
    let lines = format!(
        "# two servers\n6 http://{0}/a\n3 PUT http://{0}/b\n\n1 http://{1}/c\n",
        first.address, second.address
    );
    std::fs::write(&file, lines).unwrap();
    let run = bench("request", &["--targets", file.to_str().unwrap()], "-c 20 --for 500ms --rate 200/s");
    run.exits(0);
    let mut connections: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for server in [&first, &second] {
        for asked in server.tally().requests {
            let what = format!("{} {}", asked.request.method, asked.request.target);
            connections.entry(what).or_default().insert(asked.connection);
        }
    }
    let counts: Vec<(&str, usize)> = connections.iter().map(|(what, ids)| (&**what, ids.len())).collect();
    assert_eq!(counts, [("GET /a", 12), ("GET /c", 2), ("PUT /b", 6)]);
}

#[test]
fn a_greeting_is_sent_once_by_each_websocket() {
    let _machine = beside();
    let server = Planted::start(Script::default());
    let exact = [&*server.ws("/ws"), "--greeting", "i am {{number}}", "--greeting", "and that is all"];
    bench("hold", &exact, "-c 15 --for 200ms").exits(0);
    let planted = server.tally();
    assert!(planted.clients().all(|seen| seen.messages == 2), "{planted:?}");
}
