//! `request::curl`: what browsers paste, and what curl makes of it.

use proptest::prelude::*;

use crate::request::curl::{BadCurl, CurlRequest, parse};

/// As Chrome writes it ("Copy as cURL (bash)"), with its `$'...'` for a body with quotes and `!`.
const CHROME: &str = r#"curl 'http://localhost:8080/api/items?limit=10' \
  -X 'PUT' \
  -H 'Accept: application/json, text/plain, */*' \
  -H 'Accept-Language: en-US,en;q=0.9' \
  -b 'session=abc; theme=dark' \
  -H 'Connection: keep-alive' \
  -H 'Content-Type: application/json' \
  -H 'sec-ch-ua: "Not)A;Brand";v="8", "Chromium";v="138"' \
  --data-raw $'{"text":"it\'s done\u0021","smile":"\ud83d\ude00","tab":"a\\tb"}' \
  --compressed"#;

/// As Firefox writes it.
const FIREFOX: &str = r#"curl 'http://localhost:8080/login' \
  --compressed \
  -X POST \
  -H 'User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0' \
  -H 'Accept-Encoding: gzip, deflate, br, zstd' \
  -H 'Content-Type: application/x-www-form-urlencoded' \
  -H 'Connection: keep-alive' \
  --data-raw 'user=jo%40example.org&password=a%26b'"#;

/// As Safari writes it.
const SAFARI: &str = r#"curl 'http://localhost:8080/poll' \
-X 'POST' \
-H 'Content-Type: text/plain;charset=UTF-8' \
-H 'Content-Length: 2' \
--data-binary 'hi'"#;

#[track_caller]
fn taken(command: &str) -> CurlRequest {
    parse(command).unwrap_or_else(|bad| panic!("{bad}"))
}

#[track_caller]
fn refused(command: &str) -> String {
    parse(command).unwrap_err().to_string()
}

fn header<'a>(request: &'a CurlRequest, name: &str) -> Vec<&'a str> {
    let named = request.headers.iter().filter(|(found, _)| found == name);
    named.map(|(_, value)| &**value).collect()
}

fn shown(command: &str) -> (String, String, Option<String>) {
    let request = taken(command);
    (request.method, request.url, request.body)
}

fn expected(method: &str, url: &str, body: Option<&str>) -> (String, String, Option<String>) {
    (method.to_owned(), url.to_owned(), body.map(str::to_owned))
}

#[test]
fn what_chrome_pastes() {
    let request = taken(CHROME);
    assert_eq!((&*request.method, &*request.url), ("PUT", "http://localhost:8080/api/items?limit=10"));
    let body = r#"{"text":"it's done!","smile":"😀","tab":"a\tb"}"#;
    assert_eq!(request.body.as_deref(), Some(body));
    let names: Vec<_> = request.headers.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["Accept", "Accept-Language", "Content-Type", "sec-ch-ua", "Cookie"]);
    assert_eq!(header(&request, "sec-ch-ua"), [r#""Not)A;Brand";v="8", "Chromium";v="138""#]);
    assert_eq!(header(&request, "Cookie"), ["session=abc; theme=dark"]);
    assert_eq!(request.warnings.len(), 1, "{:?}", request.warnings);
    assert!(request.warnings[0].starts_with("--compressed is left out: "), "{:?}", request.warnings);
}

#[test]
fn several_requests_of_chrome_are_refused() {
    // "Copy all as cURL" puts ` ;` between them.
    let ends = format!("the ; at byte {} ends the command in a shell", CHROME.len() + 1);
    assert!(refused(&format!("{CHROME} ;\n{CHROME}")).starts_with(&ends));
}

#[test]
fn what_firefox_pastes() {
    let request = taken(FIREFOX);
    assert_eq!((&*request.method, &*request.url), ("POST", "http://localhost:8080/login"));
    assert_eq!(request.body.as_deref(), Some("user=jo%40example.org&password=a%26b"));
    let names: Vec<_> = request.headers.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["User-Agent", "Accept-Encoding", "Content-Type"]);
}

#[test]
fn what_safari_pastes_without_the_length_which_is_ours() {
    let request = taken(SAFARI);
    assert_eq!((&*request.method, request.body.as_deref()), ("POST", Some("hi")));
    let content_type = ("Content-Type".to_owned(), "text/plain;charset=UTF-8".to_owned());
    assert_eq!(request.headers, [content_type]);
}

#[test]
fn a_method_follows_from_the_data_unless_it_is_given() {
    assert_eq!(shown("curl http://h/"), expected("GET", "http://h/", None));
    assert_eq!(shown("curl -d a http://h/"), expected("POST", "http://h/", Some("a")));
    assert_eq!(shown("curl -d a -X DELETE http://h/"), expected("DELETE", "http://h/", Some("a")));
    assert_eq!(shown("curl -I http://h/"), expected("HEAD", "http://h/", None));
    assert_eq!(parse("curl -X 'GET /x' http://h/"), Err(BadCurl::Method("GET /x".to_owned())));
    assert_eq!(shown("curl -XPATCH --url h:81/x"), expected("PATCH", "http://h:81/x", None));
}

#[test]
fn data_is_put_together_as_curl_does() {
    // Bodies as curl 7.88 sent them for the same options.
    let body = |options: &str| taken(&format!("curl http://h/ {options}")).body.unwrap();
    assert_eq!(body("-d a=1 --data b=2 --data-raw @c --data-ascii d"), "a=1&b=2&@c&d");
    let encoded = "--data-urlencode 'a=b c&d/é' --data-urlencode '=x y' --data-urlencode 'plain text'";
    assert_eq!(body(encoded), "a=b+c%26d%2F%C3%A9&x+y&plain+text");
    assert_eq!(body(r#"-d a=1 -d b=2 --json '{"x":1}' --json '{"y":2}'"#), r#"a=1&b=2{"x":1}{"y":2}"#);
    assert_eq!(body("-d $'a\\nb'"), "a\nb");
    assert_eq!(body("-d ''"), "");
}

#[test]
fn data_with_get_goes_into_the_query() {
    let url = "http://h/c?q=1&a=1&b=c+d";
    assert_eq!(shown("curl 'http://h/c?q=1' -G -d a=1 --data-urlencode 'b=c d'"), expected("GET", url, None));
    assert_eq!(shown("curl 'http://h/c#top' -d a=1 --get"), expected("GET", "http://h/c?a=1#top", None));
    assert_eq!(header(&taken("curl http://h/ -G -d a=1"), "Content-Type"), [""; 0]);
}

#[test]
fn options_that_are_headers() {
    let request = taken("curl http://h/ -b a=1 --cookie 'b=2' -A agent -e http://ref/ -u me:pw -d x");
    assert_eq!(header(&request, "Cookie"), ["a=1; b=2"]);
    assert_eq!(header(&request, "User-Agent"), ["agent"]);
    assert_eq!(header(&request, "Referer"), ["http://ref/"]);
    assert_eq!(header(&request, "Authorization"), ["Basic bWU6cHc="]);
    assert_eq!(header(&request, "Content-Type"), ["application/x-www-form-urlencoded"]);
    let request = taken("curl http://h/ --json '{}'");
    assert_eq!(header(&request, "Content-Type"), ["application/json"]);
    assert_eq!(header(&request, "Accept"), ["application/json"]);
    assert_eq!(request.method, "POST");
}

#[test]
fn a_header_of_the_users_own_goes_before_that_of_an_option() {
    let request = taken(
        "curl http://h/ -A foo -b a=1 -d x -H 'user-agent:' -H 'cookie: c=3' -H 'content-type: text/plain'",
    );
    let own = [("cookie", "c=3"), ("content-type", "text/plain")];
    assert_eq!(request.headers, own.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn headers_as_curl_reads_them() {
    let request = taken("curl http://h/ -H 'X-Empty;' -H 'X-Two:  a: b ' -H 'X-Two: c' --header 'Accept:'");
    let all = [("X-Empty", ""), ("X-Two", "a: b"), ("X-Two", "c")];
    assert_eq!(request.headers, all.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let request = taken("curl http://h/ -H ':authority: h'");
    assert_eq!(request.headers, []);
    assert_eq!(request.warnings, ["the header :authority is left out: HTTP/1.1 has it elsewhere"]);
    for bad in ["nothing", "a b: c", ": x", "a b;", ";", "x: a\nb: c"] {
        let command = format!("curl http://h/ -H '{bad}'");
        assert_eq!(parse(&command), Err(BadCurl::Header(bad.to_owned())));
    }
}

#[test]
fn short_options_stand_in_one_word() {
    let request = taken("curl -sSkiXPOST -dbody -HA:1 http://h/");
    assert_eq!((&*request.method, request.body.as_deref()), ("POST", Some("body")));
    assert_eq!(header(&request, "A"), ["1"]);
    assert_eq!(request.warnings, [""; 0]);
    assert_eq!(refused("curl -sZ http://h/"), "-Z is not understood: take it out, or write it as ours");
    assert_eq!(refused("curl http://h/ -sX"), "-X has no value");
}

#[test]
fn what_cannot_be_honoured_is_told() {
    let request = taken("curl -L --http2 -x proxy:3128 --connect-timeout 5 -m 7 -o /dev/null http://h/");
    let expected = [
        "-L is left out: redirects are not followed",
        "--http2 is left out: HTTP/1.1 is spoken",
        "-x is left out: the target is asked directly",
        "--connect-timeout is left out: write --timeout",
        "-m is left out: write --timeout",
    ];
    assert_eq!(request.warnings, expected);
}

#[test]
fn an_option_that_would_change_the_request_is_refused_by_name() {
    for option in ["--form", "-F", "-T", "--unix-socket", "--next"] {
        let said = refused(&format!("curl {option} x http://h/"));
        assert_eq!(said, format!("{option} is not understood: take it out, or write it as ours"));
    }
    let files = [("-d", "@f"), ("--data-binary", "@f"), ("--json", "@f"), ("-H", "@f")];
    for (option, value) in files {
        let bad = BadCurl::File(option.to_owned(), "f".to_owned());
        assert_eq!(parse(&format!("curl http://h/ {option} {value}")), Err(bad));
    }
    assert!(matches!(parse("curl http://h/ -b jar.txt"), Err(BadCurl::File(..))));
    assert!(matches!(parse("curl http://h/ --data-urlencode name@f"), Err(BadCurl::File(..))));
}

#[test]
fn a_command_is_curl_with_one_url() {
    assert_eq!(taken("$ /usr/bin/curl\thttp://h/\n").url, "http://h/");
    assert_eq!(parse(""), Err(BadCurl::NoCurl));
    assert_eq!(parse("wget http://h/"), Err(BadCurl::NoCurl));
    assert_eq!(parse("curl -s"), Err(BadCurl::NoUrl));
    assert_eq!(parse("curl ''"), Err(BadCurl::NoUrl));
    assert_eq!(parse("curl http://a/ http://b/"), Err(BadCurl::SecondUrl("http://b/".to_owned())));
}

#[track_caller]
fn body(quoted: &str) -> String {
    taken(&format!("curl http://h/ --data-raw {quoted}")).body.unwrap()
}

#[test]
fn posix_2_2_quotes_are_read_as_a_shell_does() {
    assert_eq!(body(r#"'a"\b$c'"#), r#"a"\b$c"#);
    assert_eq!(body(r#""a\"b\\c\$d\e\`f'g""#), r#"a"b\c$d\e`f'g"#);
    assert_eq!(body(r"a\ b\'c"), "a b'c");
    assert_eq!(body(r#"'it'\''s '"one"$' word'"#), "it's one word");
    assert_eq!(body("\"a\\\nb\""), "ab");
    assert_eq!(body("a\\\nb"), "ab");
    assert_eq!(body("a\\\r\nb"), "ab");
    assert_eq!(body("'a\nb'"), "a\nb");
    assert_eq!(body(r#"$"tr""#), "tr");
    assert_eq!(body("'5 $ & more; {{user}}'"), "5 $ & more; {{user}}");
    assert_eq!(body("\"5 $\""), "5 $");
}

#[test]
fn bash_ansi_c_quoting() {
    assert_eq!(body(r"$'\a\b\e\E\f\n\r\t\v\\\'\x22\?'"), "\x07\x08\x1b\x1b\x0c\n\r\t\x0b\\'\"?");
    assert_eq!(body(r"$'\101\1012\x41\x4a\x4ag\u41\u0041b\U0001F600'"), "AA2AJJgAAb\u{1f600}");
    assert_eq!(body(r"$'\xc3\xa9\303\251'"), "éé");
    assert_eq!(body(r"$'\q\ud83d\ude00'"), "\\q\u{1f600}");
    for broken in [r"$'\ud83d'", r"$'\ud83d\u0041'", r"$'\ude00'", r"$'\uxyz'", r"$'\xg'", r"$'\Uffffffff'"] {
        let said = refused(&format!("curl {broken}"));
        assert_eq!(said, "the escape at byte 7 is no character", "{broken}");
    }
    assert_eq!(refused(r"curl $'\xff'"), "\"\u{fffd}\" is not UTF-8");
}

#[test]
fn what_needs_a_shell_is_refused_with_its_place() {
    assert_eq!(refused("curl 'http://h/"), "nothing closes the ' at byte 5");
    assert_eq!(refused("curl \"http://h/"), "nothing closes the \" at byte 5");
    assert_eq!(refused(r"curl $'a\'"), "nothing closes the ' at byte 5");
    let ends = "the & at byte 17 ends the command in a shell: quote it, or give one command only";
    assert_eq!(refused("curl http://h/?a=&b=1"), ends);
    for unknown in ["$HOME", "\"$HOME\"", "$(date)", "`date`", "\"a `date`\"", "${x}"] {
        assert!(refused(&format!("curl {unknown}")).contains("is not known here"), "{unknown}");
    }
    for windows in ["curl ^\"http://h/^\" ^\r\n  -H ^\"A: 1^\"", "curl -s ^\nhttp://h/"] {
        assert!(refused(windows).contains("choose \"Copy as cURL (bash)\""), "{windows}");
    }
}

proptest! {
    #[test]
    fn any_word_comes_out_of_single_quotes_as_it_went_in(word in "\\PC{0,40}") {
        let quoted = format!("'{}'", word.replace('\'', r"'\''"));
        prop_assert_eq!(body(&quoted), word);
    }

    #[test]
    fn any_text_comes_out_of_ansi_c_quotes_as_a_browser_writes_it(word in "(?s).{0,20}") {
        let unit = |unit: u16| format!("\\u{unit:04x}");
        let escaped: String = word.encode_utf16().map(unit).collect();
        prop_assert_eq!(body(&format!("$'{escaped}'")), word);
    }

    #[test]
    fn any_text_is_a_command_or_refused(text in "(?s).{0,60}", options in "[-$'\"\\\\a-zA-Z@=:; ]{0,40}") {
        let _ = parse(&text);
        let _ = parse(&format!("curl {options}"));
    }
}
