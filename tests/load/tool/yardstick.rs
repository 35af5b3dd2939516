//! Is the yardstick straight? The planted server, as clients see it that nobody here wrote.

use std::process::Command;

use serde_json::Value;

use crate::bench::beside;
use crate::guest::{Guest, curl, python};
use crate::planted::script::{Answer, End, Framing, Script, Writing};
use crate::planted::{Planted, To};

/// Messages 1 to `last`, to all, each 40 octets long.
fn publish(server: &Planted, last: u32) {
    for number in 1..=last {
        server.publish(To::All, format!("{number:>40}").into_bytes());
    }
}

/// Every third is dropped, every fifth sent twice.
fn faulty() -> Script {
    Script { drops: 3, doubles: 5, ..Script::default() }
}

const AS_PLANTED: [&str; 9] = ["1", "2", "4", "5", "5", "7", "8", "10", "10"];

#[test]
fn curl_gets_the_events_that_were_planted() {
    let _machine = beside();
    for writing in [Writing::Whole, Writing::Octets] {
        let server = Planted::start(Script { writing, retry_ms: Some(250), ..faulty() });
        let guest = curl(&[&format!("http://{}/sse", server.address)]);
        server.until("the stream is open", |tally| tally.open() == 1);
        publish(&server, 8);
        server.end_all(End::Silent);
        let (status, said) = guest.ended();
        assert_eq!(status, 0);
        assert!(said.starts_with("retry: 250\n\nid: planted-0\ndata:  "), "{said}");
        let data: Vec<&str> =
            said.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::trim).collect();
        assert_eq!(data, AS_PLANTED[..7]);
    }
}

#[test]
fn curl_polls_what_was_planted_on_one_connection() {
    let _machine = beside();
    let server = Planted::start(Script { swaps: 2, ..faulty() });
    // The second is held until something comes.
    let url = format!("http://{}/poll?number=0&since=planted", server.address);
    publish(&server, 5);
    server.until("all is published", |tally| tally.published == 5);
    let guest = curl(&[&format!("{url}-0"), &format!("{url}-5")]);
    server.until("both are answered or held", |tally| tally.sum(|seen| seen.delivered) == 5);
    server.publish(To::All, b"6".to_vec());
    server.publish(To::All, b"7".to_vec());
    let (status, said) = guest.ended();
    assert_eq!(status, 0);
    let mut answers = serde_json::Deserializer::from_str(&said).into_iter::<Value>().map(Result::unwrap);
    let data = |answer: &Value| {
        let messages = answer["messages"].as_array().unwrap().iter();
        messages.map(|message| message["data"].as_str().unwrap().trim().to_owned()).collect::<Vec<_>>()
    };
    // 2 is overtaken by 4, because 3 is dropped, and so is 6.
    let (first, second) = (answers.next().unwrap(), answers.next().unwrap());
    assert_eq!(data(&first), ["1", "4", "2", "5", "5"]);
    assert_eq!((&first["next"], data(&second)), (&"planted-5".into(), vec!["7".to_owned()]));
    assert_eq!(server.tally().connections.len(), 1);
}

#[test]
fn curl_publishes_and_reads_each_framing() {
    let _machine = beside();
    for framing in [Framing::Length, Framing::Chunks, Framing::UntilClose] {
        let answers = vec![(2, Answer::Status(500)), (3, Answer::WrongJson)];
        let server = Planted::start(Script { framing, answers, ..Script::default() });
        let url = format!("http://{}/", server.address);
        let (status, said) = curl(&["--write-out", " %{http_code}\n", &url, &url, &url]).ended();
        assert_eq!(status, 0, "{said}");
        let lines: Vec<(&str, &str)> = said.lines().map(|line| line.rsplit_once(' ').unwrap()).collect();
        let ok = |body: &str| serde_json::from_str::<Value>(body).unwrap()["ok"].as_bool().unwrap();
        let seen: Vec<_> = lines.iter().map(|(body, status)| (ok(body), *status)).collect();
        assert_eq!(seen, [(true, "200"), (true, "500"), (false, "200")], "{framing:?}");
    }
    let server = Planted::start(Script::default());
    let (status, said) = curl(&["-d", "hello", &server.publish_url()]).ended();
    assert_eq!((status, &*said, server.tally().published), (0, r#"{"accepted":true}"#, 1));
}

/// Prints each message, at the end the close code.
const LISTENER: &str = r#"
import asyncio, sys, websockets

async def main(url):
    async with websockets.connect(url) as socket:
        try:
            while True:
                print((await socket.recv()).strip())
        except websockets.ConnectionClosed:
            print(socket.close_code)

asyncio.run(asyncio.wait_for(main(sys.argv[1]), 15))
"#;

#[test]
fn python_websockets_gets_the_messages_that_were_planted_however_they_are_cut() {
    let _machine = beside();
    for (writing, pings) in [
        (Writing::Whole, true),
        (Writing::Octets, false),
        (Writing::Fragments(1), true),
        (Writing::Fragments(7), false),
    ] {
        let server = Planted::start(Script { writing, pings, ..faulty() });
        let url = format!("ws://{}/ws", server.address);
        let mut command = Command::new(python());
        command.args(["-c", LISTENER, &url]);
        let guest = Guest::start(&mut command, tempfile::tempdir().unwrap());
        server.until("it is open", |tally| tally.open() == 1);
        publish(&server, 10);
        server.until("all is delivered", |tally| tally.sum(|seen| seen.delivered) == 9);
        server.end_all(End::Close(4000, "as planted"));
        let (status, said) = guest.ended();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!((status, &lines[..lines.len() - 1]), (0, &AS_PLANTED[..]), "{said}");
        assert_eq!(lines.last(), Some(&"4000"), "{said}");
        let tally = server.tally();
        assert_eq!(tally.connections[0].close_from_client, Some(4000));
        assert_eq!(
            (tally.connections[0].pings, tally.connections[0].breach),
            (tally.connections[0].pongs, None)
        );
    }
}

#[test]
fn curl_sees_each_bad_end_for_what_it_is() {
    let _machine = beside();
    // curl's own exit statuses: no HTTP (1 or 8), empty reply (52), receive error (56).
    for (answer, expected) in
        [(Answer::Garbage, [1, 8]), (Answer::Ended, [52, 52]), (Answer::Reset, [56, 56])]
    {
        let server = Planted::start(Script { answers: vec![(1, answer)], ..Script::default() });
        let (status, _) = curl(&[&format!("http://{}/", server.address)]).ended();
        assert!(expected.contains(&status), "{answer:?}: {status}");
    }
}
