//! A gateway with control as it is and shards that only answer: what control promises can be seen
//! without a single WebSocket.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use corecast::client::Client;
use corecast::config::{Config, LogFilter};
use corecast::connections::{Found, Key, ListingStep, Place, Row, Sort, Transport};
use corecast::control::{self, Parts, Shards, Signal};
use corecast::message::{ConnId, Name, Target};
use corecast::shard::mailbox::{
    Event, Gate, Happening, Inbox, Letter, Owner, Presence, Reply, Report, Request, TopicCount, TopicsFound,
    mailbox,
};
use corecast::stats::{CloseReason, ShardStats};
use glommio::{LocalExecutorBuilder, Placement};

/// Connections of each shard, anonymous, for lists and dumps.
pub const CONNECTIONS: u32 = 3_000;

/// Two shards; on one of them lives the user `a` with the connection `0-1-2`.
pub const SHARDS: u16 = 2;

/// A running control thread with its shards.
pub struct Gateway {
    dir: tempfile::TempDir,
    pub gate: Arc<Gate>,
    /// Steps of lists and dumps that the shards took.
    pub looks: Arc<AtomicUsize>,
    pub signals: flume::Sender<Signal>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts with `config`.
    pub fn start(config: Config) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let gate = Arc::new(Gate::default());
        let looks = Arc::new(AtomicUsize::new(0));
        let (report, reports) = flume::unbounded();
        let (signals, signals_in) = flume::unbounded();
        let letters_max = config.control.mailbox_messages as usize;
        let mut mailboxes = Vec::new();
        let mut threads = Vec::new();
        for number in 0..SHARDS {
            let (mailbox, inbox) =
                mailbox(letters_max, config.control.mailbox_bytes.bytes()).expect("an eventfd");
            mailboxes.push(mailbox);
            let (report, gate, looks) = (report.clone(), gate.clone(), looks.clone());
            let shard = Shard { number, inbox, report, gate, looks, clients: 0, pushes: 0 };
            threads.push(std::thread::spawn(move || shard.run()));
        }
        let shards = Shards { mailboxes, owner: Owner::new(SHARDS) };
        let socket = control::bind(&config, &dir.path().join("control.sock"), None).expect("binds");
        let (config, shared) = (Arc::new(config), gate.clone());
        let parts = Parts {
            socket,
            admin: None,
            config,
            log_filter: LogFilter::new(|_| {}),
            epoch: 0xa1,
            shards,
            gate: shared,
            reports,
            signals: signals_in,
            manager: None,
        };
        threads.push(std::thread::spawn(move || {
            let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10).ring_depth(64);
            executor.make().expect("an executor").run(async {
                let poller = control::Poller::new().expect("descriptors to wait on");
                control::run(poller, parts).await;
            });
        }));
        Self { dir, gate, looks, signals, threads }
    }

    /// With the defaults.
    pub fn default() -> Self {
        Self::start(Config::default())
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.path()).expect("answers")
    }

    /// Waits until every thread has returned.
    pub fn join(&mut self) {
        for thread in self.threads.drain(..) {
            thread.join().expect("ends well");
        }
    }

    /// What curl prints for `arguments` and a path: the body, then the status.
    pub fn curl(&self, arguments: &[&str], path: &str) -> (u16, String) {
        curl(&self.path(), arguments, path)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.signals.send(Signal::Drain);
        self.join();
    }
}

fn curl(socket: &Path, arguments: &[&str], path: &str) -> (u16, String) {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--write-out",
            "\n%{http_code}",
            "--unix-socket",
        ])
        .arg(socket)
        .args(arguments)
        .arg(format!("http://corecast{path}"))
        .output()
        .expect("curl is installed");
    let text = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr);
    let (body, status) = text.rsplit_once('\n').expect("the status was asked for");
    assert!(output.status.success(), "curl failed: {errors}{text}");
    (status.parse().expect("a status"), body.to_owned())
}

/// A shard that answers every letter at once.
struct Shard {
    number: u16,
    inbox: Inbox,
    report: flume::Sender<Report>,
    gate: Arc<Gate>,
    looks: Arc<AtomicUsize>,
    clients: u64,
    pushes: u64,
}

impl Shard {
    fn run(mut self) {
        loop {
            while let Some(letter) = self.inbox.letter() {
                if self.take(letter) {
                    let _ = self.report.send(Report::Stopped);
                    return;
                }
            }
            self.inbox.fall_asleep();
            if self.inbox.is_empty() {
                let _ = rustix::io::read(self.inbox.eventfd(), &mut [0; 8]);
            }
            self.inbox.stay_awake();
        }
    }

    /// Answers one letter; true for the last one.
    fn take(&mut self, letter: Letter) -> bool {
        let (inquiry, reply, last) = match letter {
            Letter::Push { inquiry, message } => {
                self.pushes += 1;
                // A push to `uplink` makes the user `a` send what was pushed.
                if message.topic().is_some_and(|topic| topic.as_str() == "uplink") && self.number == 0 {
                    self.uplink(message.payload());
                }
                let reached = match &message.target {
                    Target::User(user) if user.as_str() == "nobody" => 0,
                    _ => 1,
                };
                (inquiry, Reply::Delivered(reached), false)
            }
            Letter::Ask { inquiry, request } => {
                let last = matches!(request, Request::Stop);
                (inquiry, self.answer(request), last)
            }
        };
        let _ = self.report.send(Report::Reply { inquiry, reply });
        last
    }

    fn answer(&mut self, request: Request) -> Reply {
        let is_a = |user: &Name| user.as_str() == "a";
        match request {
            Request::Presence(user) => Reply::Presence(is_a(&user).then(presence).into_iter().collect()),
            Request::KickUser { user, code, .. } => {
                self.event(Happening::Disconnect { reason: CloseReason::Kicked, code: Some(code) });
                Reply::Closed(u32::from(is_a(&user)))
            }
            Request::KickConnection { connection, .. } => {
                Reply::Closed(u32::from(connection == presence().id))
            }
            Request::Bind { user, .. } | Request::Unbind { user, .. } => Reply::Bound(u32::from(is_a(&user))),
            Request::Topics(_) => {
                Reply::TopicsFound(TopicsFound { topics: vec![self.topic("t")], next: None })
            }
            Request::Topic(topic) if topic.as_str() == "t" => Reply::Topic(Some(self.topic("t"))),
            Request::Topic(_) => Reply::Topic(None),
            Request::Stats => Reply::Stats(Box::new(ShardStats {
                shard: self.number,
                connections: self.clients,
                pushes: self.pushes,
                ..ShardStats::default()
            })),
            Request::Trace { .. } => Reply::Traced(Vec::new()),
            Request::Drain { .. } | Request::Adopt(_) | Request::Stop | Request::EndTrace(_) => Reply::Done,
            Request::Look(step) => self.look(&step),
            Request::Detail(_) => Reply::Detail(None),
        }
    }

    fn topic(&self, name: &str) -> TopicCount {
        let topic = Name::new(name).expect("valid");
        TopicCount { topic, connections: 3, seq: u64::from(self.number) + 4, pushes: 8 }
    }

    /// `CONNECTIONS` of them, one by one where it may find as few.
    fn look(&self, step: &ListingStep) -> Reply {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let end = step.place.map_or(CONNECTIONS, |place| place.end);
        let after =
            step.query.after.filter(|after| after.sort == Sort::Id && after.key.id.shard == self.number);
        let begin = step.place.map_or(after.map_or(0, |after| after.key.id.index), |place| place.next);
        let until = end.min(begin.saturating_add(step.budget.rows as u32));
        let id = |index| ConnId { shard: self.number, index, generation: 0 };
        let keys = (begin..until).map(|index| Key::new(step.query.sort, 0, id(index)));
        let rows = keys.filter(|key| step.wants(*key)).map(|key| (key, row(key.id))).collect();
        let next = (until < end).then_some(Place { next: until, end });
        let in_id_order = step.query.filter.topic.is_none();
        Reply::Found(Found { shard: self.number, rows, next, in_id_order })
    }

    fn uplink(&self, payload: &[u8]) {
        let data = bytes::Bytes::copy_from_slice(payload);
        self.event(Happening::Uplink { topic: None, kind: corecast::message::Kind::Json, data });
    }

    fn event(&self, what: Happening) {
        if self.gate.events_wanted.load(Ordering::SeqCst) != 0 {
            let user = Name::new("a").ok();
            let event = Event { connection: Some(presence().id), user, at_ms: 1, what };
            let _ = self.report.send(Report::Event(event));
        }
    }
}

fn row(id: ConnId) -> Row {
    Row {
        id,
        user: None,
        transport: Transport::WebSocket,
        remote: "127.0.0.1:9".to_owned(),
        connected_at: 5,
        // Many bytes, so that few of them fill what a reader who stops leaves unread.
        topics: vec![Name::new(&"t".repeat(128)).expect("valid"); 8],
        lag_messages: 0,
        lag_bytes: 0,
        idle_ms: 0,
        reason: None,
    }
}

fn presence() -> Presence {
    Presence {
        id: ConnId { shard: 0, index: 1, generation: 2 },
        transport: "ws".to_owned(),
        remote: "127.0.0.1:9".to_owned(),
        connected_at: 5,
        topics: vec![Name::new("t").expect("valid")],
    }
}
