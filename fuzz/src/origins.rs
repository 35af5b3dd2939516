//! `web.origins`: an origin is admitted exactly when the list that the configuration accepted holds it, octet
//! by octet; and the answer names that origin and nothing else (RFC 6454 7).
//!
//! The input is the `Origin` that a browser sends, and lines of a list.

use corecast::config::load;
use corecast::wire::origin::Origins;
use corecast::wire::request::Request;
use toml::{Table, Value};

use super::draw::Draw;

/// See the top of this file.
pub fn check(input: &[u8]) {
    let mut draw = Draw(input);
    let sent = draw.line();
    let mut list = Vec::new();
    while !draw.is_over() {
        list.push(String::from_utf8_lossy(draw.line()).into_owned());
    }
    let mut web = Table::new();
    web.insert("origins".to_owned(), Value::try_from(&list).expect("strings"));
    let overrides = Table::from_iter([("web".to_owned(), Value::Table(web))]);
    let Ok(config) = load(None, std::iter::empty(), overrides) else { return };
    assert!(list.iter().all(|origin| is_origin(origin)), "{list:?}");

    let origins = Origins::new(&config.web.origins);
    let headers = vec![("origin", sent)];
    let request = Request { method: "GET", path: "/ws", query: "", http_1_1: true, headers };
    let listed = list.iter().position(|origin| origin.as_bytes() == sent);
    match origins.admit(&request) {
        Ok(None) => assert!(list.is_empty()),
        Ok(Some(at)) => {
            assert!(list[usize::from(at)].as_bytes() == sent);
            let expected =
                format!("Access-Control-Allow-Origin: {}\r\nVary: Origin\r\n", list[usize::from(at)]);
            assert_eq!(origins.fields(Some(at)), expected);
        }
        Err(refusal) => {
            assert_eq!((refusal.status, refusal.code), (403, "forbidden_origin"));
            assert!(listed.is_none() && !list.is_empty());
        }
    }
}

/// What no browser's origin can be without (RFC 6454 6.2): a scheme, a host, no path, no space, no upper case.
fn is_origin(text: &str) -> bool {
    let after = text.split_once("://").filter(|(scheme, _)| !scheme.is_empty());
    let plain = text.bytes().all(|octet| octet.is_ascii_graphic() && !octet.is_ascii_uppercase());
    plain && after.is_some_and(|(_, host)| !host.is_empty() && !host.contains(['/', '?', '#', '@', ',']))
}
