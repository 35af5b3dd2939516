//! The demo page (`GET /`): one file, self-contained, served as it is where `web.demo` is on.
//!
//! `demo.html` is example code for authors of clients, too. It fetches nothing but the gateway that served it.

use bytes::Bytes;

/// The page, whole. Part of the program's file: not read from it before somebody asks for the page.
pub const PAGE: &str = include_str!("demo.html");

/// SHA-256 of the text between `<script>` and `</script>`, in base64 (CSP Level 3, 6.7.3.3).
///
/// A browser refuses to run another one and tells its hash in the console; tests/gateway/demo.rs shows that.
const SCRIPT: &str = "d3FQfL6R3z7fORp6kInFv+8QS7g7LTW1VDScOp/oZzo=";

/// The head of the 200 that has `PAGE` as its body, whole.
///
/// The policy (CSP Level 3) lets the page run its own script and connect to its own origin, WebSocket included.
/// `data:` is the empty icon, without which a browser would ask for `/favicon.ico`.
pub fn head() -> Bytes {
    let length = PAGE.len();
    format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html; charset=utf-8\r\n\
         Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: default-src 'none'; script-src 'sha256-{SCRIPT}'; \
         style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'\r\nContent-Length: {length}\r\n\r\n"
    )
    .into()
}
