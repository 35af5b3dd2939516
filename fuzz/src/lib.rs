//! What is fuzzed: a function for each target, which panics where a rule is broken.
//!
//! One place for two users: `fuzz_targets` gives them what libFuzzer draws, `tests/fuzz` what `seeds` and
//! `corpus` keep. A new target is a file here, a line in `TARGETS`, a file in `fuzz_targets`, a `[[bin]]`, and
//! inputs in `seeds`; `fuzz/run` makes its corpus. What it finds becomes a seed with a name.

pub mod configuration;
pub mod control_binary;
pub mod control_http;
mod draw;
pub mod envelope;
pub mod event_stream;
pub mod forwarded;
pub mod frame_decoder;
pub mod frames_differential;
pub mod heads_differential;
pub mod long_poll;
pub mod origins;
pub mod proxy_header;
pub mod request_head;
pub mod session;
pub mod token;
pub mod utf8;
pub mod websocket_session;
#[path = "../../tests/spec/whatwg.rs"]
mod whatwg;

/// A target's name, which its binary and its corpus have too, and what it holds an input against.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, by name.
pub const TARGETS: [Target; 17] = [
    ("configuration", configuration::check),
    ("control_binary", control_binary::check),
    ("control_http", control_http::check),
    ("envelope", envelope::check),
    ("event_stream", event_stream::check),
    ("forwarded", forwarded::check),
    ("frame_decoder", frame_decoder::check),
    ("frames_differential", frames_differential::check),
    ("heads_differential", heads_differential::check),
    ("long_poll", long_poll::check),
    ("origins", origins::check),
    ("proxy_header", proxy_header::check),
    ("request_head", request_head::check),
    ("session", session::check),
    ("token", token::check),
    ("utf8", utf8::check),
    ("websocket_session", websocket_session::check),
];
