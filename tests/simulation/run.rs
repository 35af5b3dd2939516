//! A run: something happens, some shards turn, and after each turn everything is checked.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use corecast::config::{ByteSize, Config};
use corecast::connections::{Budget, ListingStep, Query};
use corecast::control::command::{Answer, Push};
use corecast::control::inquiries::{ClientId, Waiter};
use corecast::control::sequencer::{Outcome, Sequencer, Shards};
use corecast::message::{self, Kind, Name, Position};
use corecast::ring::simulated::{self, Dice, below};
use corecast::shard::listener::{Listener, SocketOptions};
use corecast::shard::mailbox::{Gate, Owner, Report, Request, mailbox};
use corecast::shard::{Parts, Room, Settings, Shard};
use corecast::stats::ShardStats;

use crate::client::{Client, Transport};

pub const EPOCH: u32 = 0xa1;
const USERS: usize = 6;
pub const TOPICS: usize = 4;
const STEPS: u32 = 150;
/// Clients that are there at once, at most.
const CLIENTS_MAX: usize = 12;
/// What a client's kernel and the gateway's take together, at most.
const ROOM_MAX: usize = 8 << 10;
/// Turns in which nothing happens, before it is believed that nothing more does.
const QUIET_TURNS: usize = 4;

/// Whom a push was for.
#[derive(Clone, Debug)]
pub enum Target {
    All,
    Topic(usize),
    Users(BTreeSet<usize>),
    Connection(String),
}

pub struct Run {
    shards: Vec<Shard>,
    config: Config,
    sequencer: Sequencer,
    owner: Owner,
    gate: Arc<Gate>,
    reports: flume::Receiver<Report>,
    users: Vec<Name>,
    /// What each user was bound to at any time.
    bound: Vec<BTreeSet<usize>>,
    now: Instant,
    clients: Vec<Client>,
    /// By seq, from 1.
    pushes: Vec<Target>,
    /// What the pushers were told: connections, over all pushes.
    told: u64,
    draining: bool,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Story {
    pub pushes: usize,
    pub clients: usize,
    pub shards: Vec<ShardStats>,
}

fn one_of<T: Copy>(values: &[T]) -> T {
    values[below(values.len() as u32) as usize]
}

fn configuration() -> Config {
    let mut config = Config::default();
    config.history.age = Duration::from_secs(one_of(&[5, 600]));
    config.timeouts.drain = Duration::from_secs(10);
    config.control.mailbox_messages = one_of(&[3, 32, 4096]);
    config.control.mailbox_bytes = ByteSize(one_of(&[2 << 10, 1 << 20]));
    config.limits.connections_per_address = one_of(&[0, 0, 2]);
    change(&mut config);
    config
}

/// What a reload may change.
fn change(config: &mut Config) {
    config.history.messages = one_of(&[1, 3, 1000]);
    config.history.bytes = ByteSize(one_of(&[1 << 10, 16 << 10, 1 << 20]));
    config.limits.send_backlog_bytes = ByteSize(one_of(&[1 << 10, 16 << 10, 1 << 20]));
    config.limits.poll_bytes = ByteSize(one_of(&[256, 4 << 10, 256 << 10]));
    config.limits.topics_per_connection = one_of(&[2, 128]);
    config.limits.connects_per_second = one_of(&[0, 2]);
    config.limits.uplinks_per_second = one_of(&[0, 20]);
    config.timeouts.send = Duration::from_secs(one_of(&[1, 10]));
    config.timeouts.close = Duration::from_secs(one_of(&[1, 5]));
}

fn settings(config: &Config) -> Settings {
    Settings::new(config, Room { clients_max: one_of(&[6, 1000]), sockets_max: one_of(&[8, 1000]) })
}

fn topic_name(topic: usize) -> Name {
    Name::new(&format!("t{topic}")).expect("valid")
}

impl Run {
    /// A gateway without clients.
    pub fn new(dice: Dice) -> Self {
        simulated::start(dice);
        let (count, config, now) = (1 + below(3) as u16, configuration(), Instant::now());
        let (gate, owner) = (Arc::new(Gate::default()), Owner::new(count));
        let (report, reports) = flume::unbounded();
        let (letters_max, bytes_max) =
            (config.control.mailbox_messages as usize, config.control.mailbox_bytes.bytes());
        let pairs = (0..count).map(|_| mailbox(letters_max, bytes_max).expect("an eventfd"));
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) = pairs.unzip();
        let shard = |(number, inbox)| {
            // Nobody connects to it: it stands for the one that the ring simulates.
            let options = SocketOptions { send_bytes: 4096, backlog: 1 };
            let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), options).expect("a port");
            let parts = Parts {
                number: number as u16,
                epoch: EPOCH,
                settings: settings(&config),
                listeners: vec![listener],
                inbox,
                peers: mailboxes.clone(),
                owner: owner.clone(),
                gate: gate.clone(),
                reports: report.clone(),
            };
            Shard::new_at(parts, now).expect("a simulated ring")
        };
        let shards = inboxes.into_iter().enumerate().map(shard).collect();
        // The hash is another in each process: names of one length, by the shard that they fall to.
        let users = (0..USERS).map(|user| {
            let mut names = (1000..9999).map(|n| Name::new(&format!("u{user}-{n}")).expect("valid"));
            names.find(|name| usize::from(owner.shard_of(name)) == user % usize::from(count)).expect("enough")
        });
        let users = users.collect();
        let mailboxes = Shards { mailboxes, owner: owner.clone() };
        let sequencer = Sequencer::new(EPOCH, 1 << 16, mailboxes, gate.clone());
        Self {
            shards,
            config,
            sequencer,
            owner,
            gate,
            reports,
            users,
            bound: vec![BTreeSet::new(); USERS],
            now,
            clients: Vec::new(),
            pushes: Vec::new(),
            told: 0,
            draining: false,
        }
    }

    /// All of it, to the end of the last client.
    pub fn perform(mut self) -> Story {
        for _ in 0..STEPS {
            self.happen();
            self.turn_some();
        }
        self.everybody_reads();
        self.everybody_goes();
        let shards = self.shards.iter().map(Shard::snapshot).collect();
        Story { pushes: self.pushes.len(), clients: self.clients.len(), shards }
    }

    fn happen(&mut self) {
        match below(32) {
            0..=5 => self.connect(),
            6..=13 => (0..=below(6)).for_each(|_| self.push()),
            14..=18 => self.speak(),
            19 | 20 => self.stall_or_read_on(),
            21 => self.leave(),
            22 | 23 => self.order(),
            24..=27 => self.now += Duration::from_millis(one_of(&[1, 10, 100, 400, 1200])),
            28 if below(8) == 7 => self.now += Duration::from_secs(70),
            29 if below(8) == 7 => self.adopt(),
            30 if below(64) == 63 => self.drain(),
            _ => {}
        }
    }

    fn connect(&mut self) {
        let present = self.clients.iter().filter(|client| client.present).count();
        if present >= CLIENTS_MAX {
            return;
        }
        let landing = below(self.shards.len() as u32) as usize;
        let transport = one_of(&[Transport::Raw, Transport::Json, Transport::EventStream, Transport::Poll]);
        let user = Some(below(USERS as u32 * 2) as usize).filter(|&user| user < USERS);
        let mut client = Client::new(landing, one_of(&[64, 1 << 10, ROOM_MAX]), transport, user);
        client.reads = below(4) != 3;
        client.topics = user.map(|user| self.bound[user].clone()).unwrap_or_default();
        let before = self.clients.len().checked_sub(1).map(|last| below(last as u32 + 1) as usize);
        let since = match below(4) {
            1 => before.map(|before| {
                client.succeed(&self.clients[before]);
                self.clients[before].newest
            }),
            2 => Some(u64::from(below(self.pushes.len() as u32 + 3))),
            _ => None,
        };
        let query = self.query(user, transport, &mut client.topics, since);
        let request = client.request(&query, since);
        let cut = below(request.len() as u32 * 4) as usize;
        // Some never finish, some in two pieces, most at once.
        client.far.write(&request.as_bytes()[..cut.min(request.len())]);
        self.clients.push(client);
        if cut < request.len() && below(4) != 3 {
            self.turn_some();
            self.clients.last().expect("pushed").far.write(&request.as_bytes()[cut..]);
        }
    }

    /// A query, and what it may subscribe to.
    fn query(
        &self,
        user: Option<usize>,
        transport: Transport,
        subscribed: &mut BTreeSet<usize>,
        since: Option<u64>,
    ) -> String {
        let topics: BTreeSet<usize> = (0..below(3)).map(|_| below(TOPICS as u32) as usize).collect();
        let user = user.map(|user| format!("user={}", self.users[user]));
        let names: Vec<String> = topics.iter().map(|&topic| topic_name(topic).to_string()).collect();
        subscribed.extend(topics);
        let named = (!names.is_empty()).then(|| format!("topics={}", names.join(",")));
        let since = since.map(|seq| format!("since={}", Position { epoch: EPOCH, seq }));
        let timeout = (transport == Transport::Poll).then(|| format!("timeout={}", one_of(&[0, 1, 25])));
        user.into_iter().chain(named).chain(since).chain(timeout).collect::<Vec<_>>().join("&")
    }

    fn push(&mut self) {
        let known = |client: &Client| client.connection.clone().filter(|_| client.present);
        let ids: Vec<String> = self.clients.iter().filter_map(known).collect();
        let target = match below(8) {
            0 => Target::All,
            1..=3 => Target::Topic(below(TOPICS as u32) as usize),
            4 | 5 => Target::Users([below(USERS as u32) as usize].into()),
            6 => Target::Users((0..3).map(|_| below(USERS as u32) as usize).collect()),
            _ if ids.is_empty() => Target::All,
            _ => Target::Connection(ids[below(ids.len() as u32) as usize].clone()),
        };
        self.push_to(
            target,
            one_of(&[0, 10, 300, 2000, 5000]),
            one_of(&[None, None, None, Some(0), Some(50)]),
        );
    }

    fn push_to(&mut self, target: Target, bytes: usize, ttl_ms: Option<u64>) {
        let user = |&user: &usize| self.users[user].clone();
        let named = match &target {
            Target::All => message::Target::All,
            Target::Topic(topic) => message::Target::Topic(topic_name(*topic)),
            Target::Users(users) if users.len() == 1 => {
                message::Target::User(users.iter().map(user).next().expect("one"))
            }
            Target::Users(users) => message::Target::Users(users.iter().map(user).collect()),
            Target::Connection(id) => message::Target::Connection(id.parse().expect("an id")),
        };
        let seq = self.pushes.len() + 1;
        let payload = format!("{{\"n\":{seq},\"x\":\"{}\"}}", "x".repeat(bytes)).into();
        let push = Push { target: named, kind: Kind::Json, payload, event: None, ttl_ms, id: None };
        let waiter = Waiter::Client { client: ClientId { index: 0, generation: 0 }, correlation: 0 };
        // Refused is refused whole: its number is the next one's.
        if self.sequencer.push(push, waiter, self.now).is_ok() {
            self.pushes.push(target);
        }
    }

    /// Somebody says something, or the next request.
    fn speak(&mut self) {
        let Some(who) = self.pick(|client| client.present && client.transport != Transport::EventStream)
        else {
            return;
        };
        match self.clients[who].transport {
            Transport::Poll => {
                let newest = self.clients[who].newest;
                // Now and then before the answer: it has to wait for it.
                if !self.clients[who].is_between_messages() && below(4) != 0 {
                    return;
                }
                let mut topics = std::mem::take(&mut self.clients[who].topics);
                let query = self.query(self.clients[who].user, Transport::Poll, &mut topics, Some(newest));
                let client = &mut self.clients[who];
                client.topics = topics;
                client.far.write(client.request(&query, Some(newest)).as_bytes());
            }
            Transport::Raw | Transport::Json if !self.clients[who].open => {}
            Transport::Json if below(2) == 0 => self.subscribe(who),
            _ => match below(8) {
                0..=3 => self.clients[who].frame(0x9, &[b'p'; 100]),
                4 | 5 => self.clients[who].frame(0x1, b"{\"type\":\"ping\"}"),
                6 => self.clients[who].frame(0x8, &1000u16.to_be_bytes()),
                _ => self.clients[who].far.write(&[0xff; 3]),
            },
        }
    }

    fn subscribe(&mut self, who: usize) {
        let topic = below(TOPICS as u32) as usize;
        let since = (below(2) == 1).then(|| u64::from(below(self.pushes.len() as u32 + 2)));
        let since = since.map(|seq| format!(",\"since\":\"{}\"", Position { epoch: EPOCH, seq }));
        let (kind, since) = match below(3) {
            0 => ("unsubscribe", String::new()),
            _ => ("subscribe", since.unwrap_or_default()),
        };
        self.clients[who].topics.insert(topic);
        let frame = format!("{{\"type\":\"{kind}\",\"topics\":[\"t{topic}\"]{since}}}");
        self.clients[who].frame(0x1, frame.as_bytes());
    }

    fn pick(&self, wanted: impl Fn(&Client) -> bool) -> Option<usize> {
        let found: Vec<usize> = (0..self.clients.len()).filter(|&at| wanted(&self.clients[at])).collect();
        (!found.is_empty()).then(|| found[below(found.len() as u32) as usize])
    }

    fn stall_or_read_on(&mut self) {
        if let Some(who) = self.pick(|client| client.present) {
            self.clients[who].reads ^= true;
        }
    }

    fn leave(&mut self) {
        let Some(who) = self.pick(|client| client.present) else { return };
        let client = &mut self.clients[who];
        client.present = false;
        match below(3) {
            0 => client.far.end(),
            1 => client.far.reset(),
            // Vanished without a word.
            _ => client.reads = false,
        }
    }

    /// A kick, a bind, an unbind.
    fn order(&mut self) {
        let number = below(USERS as u32) as usize;
        let (user, topic) = (self.users[number].clone(), below(TOPICS as u32) as usize);
        let code = one_of(&[1000, 4000, 4500]);
        let shard = self.owner.shard_of(&user);
        let request = match below(4) {
            0 => Request::KickUser { user, code, reason: "kicked".to_owned() },
            1 | 2 => {
                let of_user = self.clients.iter_mut().filter(|client| client.user == Some(number));
                for client in of_user {
                    client.topics.insert(topic);
                }
                // Who comes before the shard hears of it is bound, too.
                self.bound[number].insert(topic);
                Request::Bind { user, topic: topic_name(topic) }
            }
            _ => Request::Unbind { user, topic: topic_name(topic) },
        };
        // A full mailbox refuses it.
        let _ = self.sequencer.ask_one(shard, request, Waiter::Supervision);
    }

    fn adopt(&mut self) {
        let mut config = self.config.clone();
        change(&mut config);
        let request = Request::Adopt(Arc::new(settings(&config)));
        if self.sequencer.ask_all(request, Waiter::Reload).is_ok() {
            self.config = config;
        }
    }

    fn drain(&mut self) {
        let request = Request::Drain { within_ms: 10_000 };
        if self.sequencer.ask_all(request, Waiter::Drain).is_ok() {
            self.gate.draining.store(true, Ordering::SeqCst);
            self.draining = true;
        }
    }

    /// Some shards turn, in any order; some clients read.
    fn turn_some(&mut self) {
        for _ in 0..=below(self.shards.len() as u32 * 2) {
            let shard = below(self.shards.len() as u32) as usize;
            self.turn(shard);
        }
        for client in self.clients.iter().filter(|client| client.reads) {
            client.far.read(one_of(&[1, 100, 4000]), ROOM_MAX);
        }
    }

    fn turn(&mut self, shard: usize) {
        self.shards[shard].turn(self.now);
        for report in self.reports.drain() {
            if let Report::Reply { inquiry, reply } = report {
                self.sequencer.handle_reply(inquiry, reply);
            }
        }
        while let Some((_, outcome)) = self.sequencer.poll_answer() {
            if let Outcome::Answer(Answer::Pushed(pushed)) = outcome {
                self.told += pushed.connections;
            }
        }
        let Self { clients, pushes, .. } = self;
        clients.iter_mut().for_each(|client| client.hear(pushes));
        self.check();
    }

    /// What holds after every turn of any shard.
    fn check(&self) {
        let mut sum = ShardStats::default();
        for shard in &self.shards {
            let (stats, owed) = (shard.snapshot(), shard.owed());
            let came = stats.accepted + stats.moved_in;
            assert_eq!(came, stats.open + stats.closed_total() + stats.moved_out, "Rule 5: {stats:?}");
            assert_eq!(stats.pending, owed.messages, "Rule 10: {stats:?}");
            self.check_list(shard, &stats, owed.messages);
            // What a client may lag, in frames of its own, and again what was due when it was told to leave.
            assert!(owed.outbox_bytes_max <= (2 << 20) + (128 << 10), "Rule 3: {owed:?}");
            sum.open += stats.open;
            sum.connections += stats.connections;
            sum.handed += stats.handed;
            sum.delivered += stats.delivered;
            sum.moved_in += stats.moved_in;
            sum.moved_out += stats.moved_out;
        }
        let delivered: u64 = self.clients.iter().map(|client| client.delivered).sum();
        assert_eq!(sum.delivered, delivered, "what clients got whole is what counts as delivered");
        assert!(self.told <= sum.handed, "a pusher is told of no more than were handed it");
        let moving = sum.moved_out - sum.moved_in;
        assert_eq!(self.gate.sockets.load(Ordering::SeqCst), sum.open + moving);
        assert_eq!(self.gate.established.load(Ordering::SeqCst), sum.connections);
        assert!(simulated::held().0 as u64 == sum.open + moving, "a socket is kept, or lost");
    }

    /// A list has every established client, and no more waits for them than is owed.
    fn check_list(&self, shard: &Shard, stats: &ShardStats, owed_messages: u64) {
        let budget = Budget { looks: u32::MAX, rows: usize::MAX, time: Duration::MAX };
        let query = Arc::new(Query::default());
        let found = shard.look(&ListingStep { query, place: None, bound: None, ask_sockets: true, budget });
        assert_eq!((found.rows.len() as u64, found.next), (stats.connections, None));
        let lag: u64 = found.rows.iter().map(|(_, row)| row.lag_messages).sum();
        assert!(
            lag <= owed_messages,
            "{lag} messages listed as waiting of {owed_messages}: {:?}",
            found.rows
        );
        for (_, row) in &found.rows {
            assert!(row.reason.is_some() || row.lag_bytes == 0, "nobody is behind without a reason: {row:?}");
        }
    }

    /// Turns until nothing more happens.
    fn settle(&mut self) {
        let mut quiet = 0;
        let mut before = self.activity();
        while quiet < QUIET_TURNS {
            (0..self.shards.len()).for_each(|shard| self.turn(shard));
            self.clients
                .iter()
                .filter(|client| client.reads)
                .for_each(|client| client.far.read(ROOM_MAX, ROOM_MAX));
            let after = self.activity();
            quiet = if after == before { quiet + 1 } else { 0 };
            before = after;
        }
    }

    fn activity(&self) -> u64 {
        let of_shard = |stats: ShardStats| {
            stats.sent_bytes
                + stats.received_bytes
                + stats.closed_total()
                + stats.accepted
                + stats.pushes
                + stats.moved_in
        };
        self.shards.iter().map(|shard| of_shard(shard.snapshot())).sum()
    }

    /// Lets time pass in steps that no sweep misses.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(10);
            (0..self.shards.len()).for_each(|shard| self.shards[shard].turn(self.now));
        }
        self.settle();
    }

    /// Nothing goes wrong any more, and everybody who is there reads: nothing is pending, and a last message
    /// comes to all of them.
    fn everybody_reads(&mut self) {
        simulated::calm(true);
        self.clients.iter_mut().filter(|client| client.present).for_each(|client| client.reads = true);
        self.clients.iter().filter(|client| !client.present).for_each(|client| client.far.reset());
        self.settle();
        let sum = |of: fn(&ShardStats) -> u64| -> u64 {
            self.shards.iter().map(|shard| of(&shard.snapshot())).sum()
        };
        assert_eq!(sum(|stats| stats.pending), 0, "everybody reads, and something is still to be sent");
        assert_eq!(sum(|stats| stats.handed), self.told, "pushers are told how many there were");
        let before = self.pushes.len();
        self.push_to(Target::All, 8, None);
        assert_eq!(self.pushes.len(), before + 1, "the mailboxes are empty");
        let bytes_max = self.config.history.bytes.bytes() as u64;
        for shard in &self.shards {
            let stats = shard.snapshot();
            // What was encoded may take as much again.
            assert!(stats.tape_bytes <= 2 * bytes_max, "Rule 3: {stats:?}");
        }
        let there: Vec<usize> = (0..self.clients.len()).filter(|&at| self.clients[at].open).collect();
        self.settle();
        for at in there {
            let client = &self.clients[at];
            assert_eq!(client.newest, before as u64 + 1, "client {at} waits for the last message");
        }
    }

    /// The clients end, and everything that was held for them is given back.
    fn everybody_goes(&mut self) {
        for client in self.clients.iter_mut().filter(|client| client.present) {
            client.far.end();
            client.present = false;
        }
        self.settle();
        self.pass(Duration::from_secs(12));
        for shard in &self.shards {
            let stats = shard.snapshot();
            assert_eq!(
                (stats.open, stats.connections, stats.blocked, stats.pending),
                (0, 0, 0, 0),
                "{stats:?}"
            );
            assert_eq!((stats.users, stats.topics), (0, 0), "{stats:?}");
        }
        assert_eq!(simulated::held(), (0, 0), "sockets and polls");
        self.now += Duration::from_secs(700);
        self.pass(Duration::from_secs(2));
        for shard in &self.shards {
            let stats = shard.snapshot();
            assert_eq!((stats.tape_messages, stats.tape_bytes), (0, 0), "{stats:?}");
        }
    }
}
