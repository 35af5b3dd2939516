//! The dashboard (`GET /` of the admin listener): one file, self-contained, served as it is.
//!
//! It asks nothing but the listener that served it, and holds nothing of this gateway's: what it shows, its
//! script fetches, with the token where one is needed.

/// The page, whole.
const PAGE: &str = include_str!("dashboard.html");

/// SHA-256 of the text between `<script>` and `</script>`, in base64 (CSP Level 3, 6.7.3.3).
///
/// A browser refuses to run another one and tells its hash in the console; tests/gateway/dashboard.rs shows that.
const SCRIPT: &str = "HImAUnbcPMbwbMxffSfEzvrEclqIRrGW9n66tcbHLZ4=";

/// Appends the page as a whole response, which is the last on its connection.
///
/// The policy (CSP Level 3) lets the page run its own script and ask its own origin. `data:` is the empty icon,
/// without which a browser would ask for `/favicon.ico`.
pub fn encode(head_only: bool, output: &mut Vec<u8>) {
    let length = PAGE.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html; charset=utf-8\r\n\
         Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
         Content-Security-Policy: default-src 'none'; script-src 'sha256-{SCRIPT}'; \
         style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'\r\nContent-Length: {length}\r\n\r\n"
    );
    output.extend_from_slice(head.as_bytes());
    if !head_only {
        output.extend_from_slice(PAGE.as_bytes());
    }
}
