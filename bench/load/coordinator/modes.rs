//! What each mode does, phase by phase.

use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::Duration;

use super::publisher::{self, Job, PUBLISHER, Published, Way};
use super::scenario::{Scenario, usage};
use super::session::{Session, latency_of};
use crate::arguments::{
    Chat, ChatShape, Echo, Fanout, Hold, Output, Publishing, Rate, RequestMode, Requests, Storm, Unicast,
};
use crate::plan::{BackOff, Behaviour, ChatRoute, Cut, News, Order, Pace, Target, Transport, Work};
use crate::record::Timed;
use crate::report::Publisher;
use crate::report::progress::Goal;
use crate::request::curl;
use crate::request::template::Template;
use crate::request::values::Values;
use crate::wire::stamp;
use crate::{Failure, cpu};

/// What came right behind the last message (a duplicate of it) is still heard.
const AFTERMATH: Duration = Duration::from_millis(250);
/// A closed loop without an end of its own is given up when nothing is answered for so long, beyond the
/// time limit of a request.
const STALLED: Duration = Duration::from_secs(5);

/// `hold`
pub fn hold(arguments: &Hold) -> Result<u8, Failure> {
    let scenario = Scenario::new(&arguments.place, &arguments.opening)?;
    let latency = latency_of(&scenario.transports());
    let seconds = Goal::Seconds(arguments.duration.as_secs());
    let phases = [("connect", Goal::Connections(arguments.opening.connections.0)), ("hold", seconds)];
    let mut session = Session::start("hold", scenario, &arguments.output, latency, &phases)?;
    session.open()?;
    session.phase("hold", seconds);
    let (began_ns, before) = (session.begin_work()?, session.ledger().totals.messages);
    session.go_on(arguments.duration)?;
    session.catch_up(false)?;
    let messages = session.ledger().totals.messages - before;
    session.end_work(elapsed_s(began_ns), messages)?;
    session.finish(None)
}

/// `fanout`
pub fn fanout(arguments: &Fanout) -> Result<u8, Failure> {
    let scenario = Scenario::new(&arguments.place, &arguments.opening)?;
    let job = job(&arguments.publishing, None, "", arguments.opening.seed)?;
    publish("fanout", scenario, &arguments.publishing, job, &arguments.output)
}

/// `unicast`
pub fn unicast(arguments: &Unicast) -> Result<u8, Failure> {
    let scenario = Scenario::new(&arguments.place, &arguments.opening)?;
    let users = Some(scenario.plan.count);
    let job = job(&arguments.publishing, users, &arguments.user, arguments.opening.seed)?;
    publish("unicast", scenario, &arguments.publishing, job, &arguments.output)
}

/// What is published: to all, or to single ones of `users`, whose names `user` makes.
fn job(publishing: &Publishing, users: Option<u32>, user: &str, seed: u64) -> Result<Job, Failure> {
    Ok(Job {
        messages: publishing.messages.0,
        payload_bytes: payload_bytes(publishing)?,
        rate: publishing.rate,
        stamped: !publishing.unstamped,
        users,
        user: Template::parse(user).map_err(|error| usage(&error.to_string()))?,
        seed,
    })
}

fn payload_bytes(publishing: &Publishing) -> Result<usize, Failure> {
    let bytes = publishing.size.0 as usize;
    if !publishing.unstamped && bytes < stamp::LENGTH {
        return Err(usage(&format!("--size must be at least {}: a stamp is that long", stamp::LENGTH)));
    }
    if publishing.messages.0 >= u64::from(u32::MAX) {
        return Err(usage("--messages must be below 4,294,967,295"));
    }
    Ok(bytes)
}

fn publish(
    mode: &'static str,
    mut scenario: Scenario,
    publishing: &Publishing,
    job: Job,
    output: &Output,
) -> Result<u8, Failure> {
    scenario.plan.verify = job.stamped;
    let connections = u64::from(scenario.plan.count);
    let deliveries = if job.users.is_some() { job.messages } else { job.messages * connections };
    let goal = Goal::Messages(deliveries);
    let phases = [("connect", Goal::Connections(connections)), ("publish", goal)];
    let way = publisher::way(publishing, job.users.is_some())?;
    let mut session = Session::start(mode, scenario, output, Timed::Delivery, &phases)?;
    session.open()?;
    session.phase("publish", goal);
    let began_ns = session.begin_work()?;
    let before = session.ledger().totals.messages;
    let Some(way) = way else {
        session.go_on(publishing.linger)?;
        session.catch_up(false)?;
        let messages = session.ledger().totals.messages - before;
        session.end_work(elapsed_s(began_ns), messages)?;
        let publisher = Publisher { by: "none".to_owned(), ..Publisher::default() };
        return session.finish(Some(publisher));
    };
    let by = publishing.by;
    let (unicast, stamped) = (job.users.is_some(), job.stamped);
    let receivers = if unicast { 1 } else { session.ledger().open() };
    let published = drive(&mut session, job, way, publishing.linger)?;
    let publisher = Publisher { by: format!("{by:?}").to_lowercase(), ..published.publisher };
    let last = published.sent;
    receive_the_rest(&mut session, unicast.then_some(&published.per_user), last, publishing.linger)?;
    session.catch_up(false)?;
    let ledger = session.ledger();
    let (messages, last_ns) = (ledger.totals.messages - before, ledger.last_message_ns);
    let took_s = last_ns.saturating_sub(published.started_ns) as f64 / 1e9;
    session.end_work(took_s, messages)?;
    session.rate("published/s", publisher.accepted as f64 / publisher.took_s.max(1e-9));
    session.rate("deliveries/s", messages as f64 / took_s.max(1e-9));
    if stamped {
        session.expect(PUBLISHER, last, &published.per_user)?;
    } else {
        session.expect_deliveries(u64::from(last) * receivers, move |totals| totals.messages - before);
    }
    session.finish(Some(publisher))
}

/// Runs the publisher in a thread of its own while news is handled here.
fn drive(
    session: &mut Session,
    job: Job,
    mut way: Box<dyn Way>,
    linger: Duration,
) -> Result<Published, Failure> {
    let lockstep = job.rate == Rate::Lockstep;
    let (go, going) = mpsc::channel();
    let (done, ended) = mpsc::channel();
    let interrupted = session.interrupted();
    std::thread::spawn(move || {
        let outcome = publisher::run(&job, way.as_mut(), &going, &interrupted);
        // Nobody waits any more only when the run has failed.
        let _ = done.send(outcome);
    });
    if lockstep {
        return in_lockstep(session, &go, &ended, linger);
    }
    loop {
        match ended.try_recv() {
            Ok(outcome) => return outcome,
            Err(TryRecvError::Empty) => session.go_on(Duration::from_millis(20))?,
            Err(TryRecvError::Disconnected) => return Err("the publisher has ended without a word".into()),
        }
    }
}

/// Every round is awaited before the next: the publisher goes on at our word.
fn in_lockstep(
    session: &mut Session,
    go: &Sender<()>,
    ended: &Receiver<Result<Published, Failure>>,
    linger: Duration,
) -> Result<Published, Failure> {
    let workers = session.workers();
    let open: Vec<u64> = (0..workers).map(|worker| session.ledger().open_of(worker)).collect();
    for round in 1.. {
        session.await_messages(|worker| open[usize::from(worker)] * round)?;
        let mut left = workers;
        let received = |_: &_, news: Option<(u16, &News)>| {
            left -= u16::from(matches!(news, Some((_, News::Received { .. }))));
            (left == 0).then_some(())
        };
        // What is lost never comes: the next round goes out all the same.
        session.wait(linger, received)?;
        if go.send(()).is_err() {
            break;
        }
        if let Ok(outcome) = ended.recv_timeout(Duration::from_micros(200)) {
            return outcome;
        }
    }
    ended.recv()?
}

/// Waits until everything that was published has arrived, or `linger` is over.
fn receive_the_rest(
    session: &mut Session,
    per_user: Option<&Vec<u32>>,
    last: u32,
    linger: Duration,
) -> Result<(), Failure> {
    let workers = session.workers();
    let due: Vec<u64> = (0..workers)
        .map(|worker| match per_user {
            None => session.ledger().open_of(worker) * u64::from(last),
            Some(per_user) => {
                let part = session.scenario().part(worker, workers);
                let own = &per_user[part.first as usize..(part.first + part.count) as usize];
                own.iter().map(|&count| u64::from(count)).sum()
            }
        })
        .collect();
    session.await_messages(|worker| due[usize::from(worker)])?;
    let mut missing = usize::from(workers);
    let received = |_: &_, news: Option<(u16, &News)>| {
        missing -= usize::from(matches!(news, Some((_, News::Received { .. }))));
        (missing == 0).then_some(())
    };
    // Even of a run that was interrupted: what is on its way is not lost.
    session.wait_out(linger, received)?;
    session.wait_out(AFTERMATH, |_, _| None::<()>).map(drop)
}

/// `echo`
pub fn echo(arguments: &Echo) -> Result<u8, Failure> {
    let mut scenario = Scenario::new(&arguments.place, &arguments.opening)?;
    if scenario.transports() != [Transport::WebSocket] {
        return Err(usage("echo speaks WebSocket: a ws:// URL; `request` is for HTTP"));
    }
    scenario.plan.work = Work::Request {
        message: arguments.message.clone(),
        payload_bytes: arguments.size.0 as usize,
        binary: arguments.binary,
        pace: pace(&arguments.requests),
    };
    scenario.plan.checks = arguments.requests.checks.clone();
    scenario.check(&arguments.place)?;
    requests("echo", scenario, &arguments.requests, &arguments.output)
}

/// `request`
pub fn request(arguments: &RequestMode) -> Result<u8, Failure> {
    let mut scenario = match &arguments.curl {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| usage(&format!("--curl {}: {error}", path.display())))?;
            let target = curl_target(&text, arguments)?;
            Scenario::with_targets(vec![target], &arguments.place, &arguments.opening)?
        }
        None => Scenario::new(&arguments.place, &arguments.opening)?,
    };
    let body = arguments.body.as_deref().map(body_text).transpose()?;
    for target in &mut scenario.plan.targets {
        target.transport = Transport::Http;
        target.close = arguments.no_keep_alive;
        if body.is_some() {
            target.body.clone_from(&body);
            if target.method == "GET" {
                "POST".clone_into(&mut target.method);
            }
        }
        if let Some(method) = &arguments.method {
            target.method.clone_from(method);
        }
    }
    scenario.plan.work = Work::Request {
        message: String::new(),
        payload_bytes: 0,
        binary: false,
        pace: pace(&arguments.requests),
    };
    scenario.plan.checks = arguments.requests.checks.clone();
    scenario.check(&arguments.place)?;
    requests("request", scenario, &arguments.requests, &arguments.output)
}

fn curl_target(text: &str, arguments: &RequestMode) -> Result<Target, Failure> {
    let pasted = curl::parse(text).map_err(|error| usage(&format!("--curl: {error}")))?;
    for warning in &pasted.warnings {
        eprintln!("corecast-bench: --curl: {warning}");
    }
    let url = super::scenario::url(&pasted.url)?;
    let mut target =
        super::scenario::target(url, Some(Transport::Http), &pasted.method, 1, &arguments.place)?;
    target.headers = pasted.headers.into_iter().chain(target.headers).collect();
    target.body = pasted.body;
    Ok(target)
}

fn body_text(body: &str) -> Result<String, Failure> {
    match body.strip_prefix('@') {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| usage(&format!("--body {path}: {error}")))
        }
        None => Ok(body.to_owned()),
    }
}

fn pace(requests: &Requests) -> Pace {
    let count = Some(requests.requests.0).filter(|&count| count > 0);
    match requests.rate {
        None => Pace::Closed { requests: count },
        Some(rate) => Pace::Open { per_second: rate.0, requests: count },
    }
}

fn requests(
    mode: &'static str,
    scenario: Scenario,
    requests: &Requests,
    output: &Output,
) -> Result<u8, Failure> {
    let connections = u64::from(scenario.plan.count);
    let timeout = Duration::from_nanos(scenario.plan.timeout_ns);
    let goal = match requests.requests.0 {
        0 => Goal::Seconds(requests.duration.as_secs()),
        count => Goal::Messages(count),
    };
    let phases = [("connect", Goal::Connections(connections)), ("request", goal)];
    let mut session = Session::start(mode, scenario, output, Timed::Response, &phases)?;
    session.open()?;
    session.phase("request", goal);
    let began_ns = session.begin_work()?;
    let before = session.ledger().totals;
    let mut left = session.workers();
    let (mut ended_ns, mut progress) = (0, (0, cpu::now_ns()));
    let endless = requests.requests.0 == 0;
    let within = if endless { requests.duration } else { Duration::MAX };
    let stalled_ns = (timeout + STALLED).as_nanos() as u64;
    session.wait(within, |ledger, news| {
        if let Some((_, News::WorkDone { at_ns })) = news {
            ended_ns = ended_ns.max(*at_ns);
            left -= 1;
        }
        let done = ledger.totals.succeeded + ledger.totals.unsuccessful;
        if done > progress.0 {
            progress = (done, cpu::now_ns());
        }
        let stalled = !endless && cpu::now_ns() - progress.1 > stalled_ns;
        (left == 0 || stalled).then_some(())
    })?;
    session.catch_up(true)?;
    let took_s = if left == 0 { ended_ns.saturating_sub(began_ns) as f64 / 1e9 } else { elapsed_s(began_ns) };
    let counts = session.ledger().totals.since(&before);
    let done = counts.succeeded + counts.unsuccessful;
    session.end_work(took_s, done)?;
    session.rate("requests/s", done as f64 / took_s.max(1e-9));
    session.finish(None)
}

/// `chat`
pub fn chat(arguments: &Chat) -> Result<u8, Failure> {
    let mut scenario = Scenario::new(&arguments.place, &arguments.opening)?;
    let (senders, messages) = (arguments.senders.0, arguments.messages.0);
    let connections = u64::from(scenario.plan.count);
    if senders == 0 || senders > connections || senders >= u64::from(u16::MAX) {
        return Err(usage("--senders must be 1 to the number of connections, and below 65,535"));
    }
    if arguments.shape == ChatShape::Pairs && senders * 2 > connections {
        return Err(usage("--shape pairs needs a receiver for each sender: twice as many connections"));
    }
    if (arguments.size.0 as usize) < stamp::LENGTH {
        return Err(usage(&format!("--size must be at least {}: a stamp is that long", stamp::LENGTH)));
    }
    let routes = routes(arguments, senders as u32, connections as u32)?;
    let deliveries = expected_deliveries(arguments, &routes, connections as u32);
    scenario.plan.verify = true;
    scenario.plan.work = Work::Chat {
        message: arguments.message.clone(),
        routes,
        groups: arguments.groups,
        per_second: arguments.rate.0,
        messages,
        payload_bytes: arguments.size.0 as usize,
    };
    scenario.check(&arguments.place)?;
    let goal = Goal::Messages(deliveries);
    let phases = [("connect", Goal::Connections(connections)), ("chat", goal)];
    let mut session = Session::start("chat", scenario, &arguments.output, Timed::Delivery, &phases)?;
    session.open()?;
    session.phase("chat", goal);
    let (began_ns, before) = (session.begin_work()?, session.ledger().totals);
    let mut left = session.workers();
    session.wait(Duration::MAX, |_, news| {
        left -= u16::from(matches!(news, Some((_, News::WorkDone { .. }))));
        (left == 0).then_some(())
    })?;
    let heard = move |counts: &crate::record::Counts| {
        let counts = counts.since(&before);
        counts.messages - counts.unstamped - counts.duplicated
    };
    session.wait(arguments.linger, |ledger, _| (heard(&ledger.totals) >= deliveries).then_some(()))?;
    session.go_on(AFTERMATH)?;
    session.catch_up(false)?;
    let ledger = session.ledger();
    let (totals, last_ns) = (ledger.totals, ledger.last_message_ns);
    let took_s = last_ns.saturating_sub(began_ns) as f64 / 1e9;
    session.end_work(took_s, totals.since(&before).messages)?;
    session.rate("deliveries/s", heard(&totals) as f64 / took_s.max(1e-9));
    session.expect_deliveries(deliveries, heard);
    session.finish(None)
}

/// Who sends to whom: the first `senders` connections send, spread evenly over all.
fn routes(arguments: &Chat, senders: u32, connections: u32) -> Result<Vec<ChatRoute>, Failure> {
    let to = Template::parse(&arguments.to).map_err(|error| usage(&error.to_string()))?;
    let of = |number: u32, group: u32| Values { number, group, ..Values::default() }.render(&to);
    let groups = arguments.groups.max(1);
    let route = |publisher: u32| {
        let sender = (u64::from(publisher) * u64::from(connections) / u64::from(senders)) as u32;
        let to = match arguments.shape {
            // Its neighbour: with at least twice as many connections as senders that is no sender.
            ChatShape::Pairs => vec![of(sender + 1, (sender + 1) % groups)],
            ChatShape::Group => vec![of(0, 0)],
            ChatShape::Groups => (0..groups).map(|group| of(group, group)).collect(),
        };
        ChatRoute { sender, publisher: publisher as u16, to }
    };
    Ok((0..senders).map(route).collect())
}

/// Messages that have to arrive when everybody in a group but the sender hears what is sent to it.
fn expected_deliveries(arguments: &Chat, routes: &[ChatRoute], connections: u32) -> u64 {
    let (messages, connections) = (arguments.messages.0, u64::from(connections));
    let groups = u64::from(arguments.groups.max(1));
    let of_sender = |route: &ChatRoute| match arguments.shape {
        ChatShape::Pairs => messages,
        ChatShape::Group => messages * (connections - 1),
        ChatShape::Groups => {
            let members = |group: u64| connections / groups + u64::from(connections % groups > group);
            let own = u64::from(route.sender) % groups;
            let sent = |group: u64| messages / groups + u64::from(messages % groups > group);
            (0..groups).map(|group| sent(group) * (members(group) - u64::from(group == own))).sum()
        }
    };
    routes.iter().map(of_sender).sum()
}

/// `storm`
pub fn storm(arguments: &Storm) -> Result<u8, Failure> {
    let mut scenario = Scenario::new(&arguments.place, &arguments.opening)?;
    if scenario.transports().iter().any(|transport| matches!(transport, Transport::Http)) {
        return Err(usage("storm is for connections that stay: WebSocket, event streams, polls"));
    }
    scenario.plan.back_off = arguments.back_off;
    if arguments.back_off == BackOff::Never {
        return Err(usage("--back-off never is no storm"));
    }
    let well = scenario.plan.behaviours.iter().all(|(behaviour, _)| *behaviour == Behaviour::Well);
    if !well {
        return Err(usage("storm takes no --behaviour"));
    }
    let connections = u64::from(scenario.plan.count);
    let goal = Goal::Connections(connections);
    let mut session =
        Session::start("storm", scenario, &arguments.output, Timed::Reconnect, &[("connect", goal)])?;
    session.open()?;
    let cut = match (arguments.by_server, arguments.reset) {
        (Some(_), _) => Cut::ByServer,
        (None, true) => Cut::Reset,
        (None, false) => Cut::Fin,
    };
    let mut back_s = Vec::new();
    for round in 1..=arguments.rounds {
        session.phase(&format!("hold {round}"), Goal::Seconds(arguments.duration.as_secs()));
        session.go_on(arguments.duration)?;
        session.phase(&format!("storm {round}"), goal);
        back_s.push(one_storm(&mut session, cut, arguments)?);
    }
    let took_s: f64 = back_s.iter().sum();
    session.end_work(took_s, 0)?;
    session.rate("reconnects/s", connections as f64 * back_s.len() as f64 / took_s.max(1e-9));
    session.finish(None)
}

/// Seconds until everybody was back, or what was waited for it.
fn one_storm(session: &mut Session, cut: Cut, arguments: &Storm) -> Result<f64, Failure> {
    let limit = arguments.by_server.unwrap_or(Duration::ZERO) + arguments.opening.timeout * 10;
    let began_ns = session.begin_work()?;
    session.order_all(&Order::Storm(cut))?;
    let mut left = session.workers();
    let (mut first_ns, mut last_ns) = (u64::MAX, 0);
    let back = session.wait(limit, |_, news| {
        if let Some((_, News::Back { started_ns, ended_ns, .. })) = news {
            first_ns = first_ns.min(*started_ns);
            last_ns = last_ns.max(*ended_ns);
            left -= 1;
        }
        (left == 0).then_some(())
    })?;
    if back.is_none() {
        session.note(&format!("not everybody is back after {limit:?}"));
        return Ok(elapsed_s(began_ns));
    }
    Ok((last_ns - first_ns) as f64 / 1e9)
}

fn elapsed_s(from_ns: u64) -> f64 {
    (cpu::now_ns() - from_ns) as f64 / 1e9
}
