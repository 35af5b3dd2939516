//! Chromium at a page, told what to do through a pipe (Chrome DevTools Protocol).
//!
//! Messages are JSON, each ended by a NUL; the browser reads descriptor 3 and writes 4.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::DEADLINE;
use super::guest::{Guest, chromium_arguments};

/// A browser takes its time to start, and shares the machine with the tests beside it.
const BROWSER_DEADLINE: Duration = DEADLINE.saturating_mul(3);

pub struct Browser {
    to: ChildStdin,
    from: Receiver<Value>,
    /// Of the page.
    session: Option<String>,
    calls: u64,
    /// What the browser found wrong: scripts refused, exceptions, requests refused.
    pub complaints: Vec<String>,
    // Ended before its directory goes.
    _guest: Guest,
    _directory: TempDir,
}

impl Browser {
    /// Opens `url` and waits until it has loaded.
    #[track_caller]
    pub fn open(url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null"#, "sh"])
            .args(chromium_arguments(directory.path()))
            .args(["--remote-debugging-pipe", "about:blank"])
            .env("TMPDIR", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut guest = Guest::spawn(&mut command);
        let mut pipe = BufReader::new(guest.0.stdout.take().unwrap());
        let (tell, from) = mpsc::channel();
        // Ends with the browser.
        std::thread::spawn(move || {
            loop {
                let mut octets = Vec::new();
                let read = pipe.read_until(0, &mut octets);
                let Some(0) = octets.pop().filter(|_| read.is_ok()) else { return };
                let _ = tell.send(serde_json::from_slice(&octets).unwrap());
            }
        });
        let to = guest.0.stdin.take().unwrap();
        let mut browser = Self {
            to,
            from,
            session: None,
            calls: 0,
            complaints: Vec::new(),
            _guest: guest,
            _directory: directory,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}));
        }
        browser.call("Page.navigate", json!({"url": url}));
        while browser.hear()["method"] != "Page.loadEventFired" {}
        browser
    }

    /// The next message, kept where it is a complaint.
    #[track_caller]
    fn hear(&mut self) -> Value {
        let heard = self.from.recv_timeout(BROWSER_DEADLINE);
        let heard = heard.unwrap_or_else(|error| panic!("{error}; complaints: {:?}", self.complaints));
        let said = match heard["method"].as_str() {
            Some("Log.entryAdded") => &heard["params"]["entry"],
            Some("Runtime.exceptionThrown") => &heard["params"]["exceptionDetails"],
            _ => return heard,
        };
        self.complaints.push(said.to_string());
        heard
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        write!(self.to, "{message}\0").unwrap();
        loop {
            let heard = self.hear();
            if heard["id"] == self.calls {
                assert!(heard["error"].is_null(), "{method}: {heard}");
                return heard["result"].clone();
            }
        }
    }

    /// What `script` comes to in the page, awaited where it is a promise.
    #[track_caller]
    pub fn run(&mut self, script: &str) -> Value {
        let params = json!({"expression": script, "awaitPromise": true, "returnByValue": true});
        let done = self.call("Runtime.evaluate", params);
        assert!(done["exceptionDetails"].is_null(), "{script}: {done}");
        done["result"]["value"].clone()
    }

    /// Shows the page in light or dark, in a window of this size in CSS pixels.
    #[track_caller]
    pub fn appear(&mut self, scheme: &str, width: u32, height: u32) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.call("Emulation.setEmulatedMedia", json!({"features": [feature]}));
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// A picture of the whole page, as PNG, for whoever wants to look: below target/tmp.
    #[track_caller]
    pub fn picture(&mut self, name: &str) {
        let taken = self.call("Page.captureScreenshot", json!({"captureBeyondViewport": true}));
        let png = base64::engine::general_purpose::STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        std::fs::write(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), png).unwrap();
    }

    /// Presses a key and lets it go.
    #[track_caller]
    pub fn press(&mut self, key: &str, code: u32, text: &str) {
        let event = |kind: &str, text: &str| json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", event("keyDown", text));
        self.call("Input.dispatchKeyEvent", event("keyUp", ""));
    }

    /// Waits until `expression` comes to something true, looking whenever the page changes; gives it.
    #[track_caller]
    pub fn until(&mut self, expression: &str) -> Value {
        // A little less, so that the page can still say what it shows instead.
        let wait_ms = BROWSER_DEADLINE.as_millis() * 9 / 10;
        let found = self.run(&format!(
            "new Promise((done) => {{
               const look = () => {{
                 const found = {expression};
                 if (found) {{ clearTimeout(late); observer.disconnect(); done({{ found }}); }}
               }};
               const observer = new MutationObserver(look);
               const late = setTimeout(() => done({{ page: document.body.innerText }}), {wait_ms});
               observer.observe(document, {{ subtree: true, childList: true, attributes: true }});
               look();
             }})"
        ));
        let page = found["page"].as_str().unwrap_or_default();
        assert!(
            !found["found"].is_null(),
            "not within {BROWSER_DEADLINE:?}: {expression}; the page:\n{page}"
        );
        found["found"].clone()
    }
}
