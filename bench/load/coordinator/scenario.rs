//! From arguments to plans: targets resolved, work divided among workers, everything checked.
//!
//! What a worker would stumble over (a template, a CSV, a path of JSON) is tried here first, so that it is
//! said once, before anything is started.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use crate::arguments::{Opening, Where};
use crate::failure::{Unreachable, Usage};
use crate::plan::{BackOff, Plan, Ramp, Target, Transport, Work};
use crate::request::targets::{self, Scheme, Url};
use crate::request::template::Template;
use crate::request::values::is_known;
use crate::request::variables::Variables;
use crate::request::verify::Checks;
use crate::{Failure, cpu};

use super::crew::Shape;

/// Descriptors of a worker process that are no connections.
const DESCRIPTORS_RESERVED: u64 = 64;
/// Connections from one loopback address: beyond half of its 28,232 ports the kernel's search for a free
/// one gets slow.
const PER_LOOPBACK_SOURCE: u64 = 12_000;

/// A run as it will be.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How many workers.
    pub shape: Shape,
    /// What is common to all plans; `first`, `count`, the ramp and the work are of the whole.
    pub plan: Plan,
}

impl Scenario {
    /// Connections that hold. Errors: `Usage`, or `Unreachable` for a name that is none.
    pub fn new(place: &Where, opening: &Opening) -> Result<Self, Failure> {
        let targets = targets_of(place)?;
        Self::with_targets(targets, place, opening)
    }

    /// The same with targets that were made elsewhere.
    pub fn with_targets(targets: Vec<Target>, place: &Where, opening: &Opening) -> Result<Self, Failure> {
        let count = u32::try_from(opening.connections.0).ok().filter(|&count| count > 0);
        let count = count.ok_or_else(|| usage("--connections must be 1 to 4,294,967,295"))?;
        let shares: u32 = opening.behaviours.iter().map(|(_, share)| share).sum();
        if shares > 1000 {
            return Err(usage("the shares of --behaviour add up to more than 100 %"));
        }
        let variables = place.csv.as_deref().map(Variables::open).transpose();
        let variables = variables.map_err(|error| usage(&error.to_string()))?;
        for text in targets.iter().flat_map(texts) {
            known(text, variables.as_ref())?;
        }
        let ramp = match (opening.ramp, opening.step, opening.every) {
            (Some(rate), ..) => Ramp::PerSecond(rate.0),
            (None, Some(count), Some(every)) => Ramp::Steps {
                count: u32::try_from(count.0).unwrap_or(u32::MAX),
                every_ns: every.as_nanos() as u64,
            },
            _ => Ramp::AtOnce,
        };
        let plan = Plan {
            first: 0,
            count,
            ramp,
            connecting_max: opening.connecting.max(1),
            sources: sources(opening, &targets),
            targets,
            timeout_ns: opening.timeout.as_nanos() as u64,
            variables: place.csv.clone(),
            behaviours: opening.behaviours.clone(),
            verify: false,
            checks: Vec::new(),
            back_off: BackOff::Never,
            polls_again: true,
            work: Work::Hold,
            seed: opening.seed,
        };
        Ok(Self { shape: shape(opening, count)?, plan })
    }

    /// The part of worker `worker` of `workers`.
    pub fn part(&self, worker: u16, workers: u16) -> Plan {
        let bound = |worker: u16| {
            (u64::from(self.plan.count) * u64::from(worker) / u64::from(workers)) as u32 + self.plan.first
        };
        let (first, next) = (bound(worker), bound(worker + 1));
        let share = f64::from(next - first) / f64::from(self.plan.count);
        let divided = |count: u64| {
            let (workers, worker) = (u64::from(workers), u64::from(worker));
            count * (worker + 1) / workers - count * worker / workers
        };
        let ramp = match self.plan.ramp {
            Ramp::AtOnce => Ramp::AtOnce,
            Ramp::PerSecond(rate) => Ramp::PerSecond(rate * share),
            Ramp::Steps { count, every_ns } => {
                Ramp::Steps { count: (divided(u64::from(count)) as u32).max(1), every_ns }
            }
        };
        let work = match self.plan.work.clone() {
            Work::Request { message, payload_bytes, binary, pace } => {
                let pace = pace.part(share, divided);
                Work::Request { message, payload_bytes, binary, pace }
            }
            Work::Chat { message, routes, groups, per_second, messages, payload_bytes } => {
                let own = |sender: u32| (first..next).contains(&sender);
                let routes = routes.into_iter().filter(|route| own(route.sender)).collect();
                Work::Chat { message, routes, groups, per_second, messages, payload_bytes }
            }
            Work::Hold => Work::Hold,
        };
        let connecting_max = (divided(u64::from(self.plan.connecting_max)) as u32).max(1);
        Plan { first, count: next - first, ramp, work, connecting_max, ..self.plan.clone() }
    }

    /// Tries what the workers will have to parse. Errors: `Usage`.
    pub fn check(&self, place: &Where) -> Result<(), Failure> {
        let variables = place.csv.as_deref().map(Variables::open).transpose()?;
        Checks::compile(&self.plan.checks).map_err(|error| usage(&error.to_string()))?;
        match &self.plan.work {
            Work::Hold => Ok(()),
            Work::Request { message, .. } | Work::Chat { message, .. } => known(message, variables.as_ref()),
        }
    }

    /// How the tool names what it runs against.
    pub fn transports(&self) -> Vec<Transport> {
        let mut transports: Vec<_> = self.plan.targets.iter().map(|target| target.transport).collect();
        transports.sort_unstable();
        transports.dedup();
        transports
    }

    /// Whether the server is on this host.
    pub fn is_loopback(&self) -> bool {
        self.plan.targets.iter().all(|target| target.address.ip().is_loopback())
    }
}

/// A mistake in the arguments.
pub fn usage(text: &str) -> Failure {
    Box::new(Usage(text.to_owned()))
}

fn texts(target: &Target) -> impl Iterator<Item = &String> {
    let headers = target.headers.iter().map(|(_, value)| value);
    [&target.path].into_iter().chain(headers).chain(&target.body).chain(&target.greeting)
}

/// Whether `text` is a template of names that there are.
pub fn known(text: &str, variables: Option<&Variables>) -> Result<(), Failure> {
    let template = Template::parse(text).map_err(|error| usage(&error.to_string()))?;
    for name in template.names() {
        if !is_known(name, variables) {
            return Err(usage(&format!(
                "nothing is called {{{{{name}}}}} in {text:?}: it is no column of --csv"
            )));
        }
    }
    Ok(())
}

fn targets_of(place: &Where) -> Result<Vec<Target>, Failure> {
    if let Some(path) = &place.targets {
        let text =
            std::fs::read_to_string(path).map_err(|error| usage(&format!("{}: {error}", path.display())))?;
        let lines = targets::parse(&path.display().to_string(), &text);
        let lines = lines.map_err(|error| usage(&error.to_string()))?;
        let line = |line: targets::Line| {
            target(line.url, None, line.method.as_deref().unwrap_or("GET"), line.weight, place)
        };
        return lines.into_iter().map(line).collect();
    }
    let url = place.url.as_deref().ok_or_else(|| usage("where to? Give a URL, as ws://127.0.0.1:8080/ws"))?;
    let url = self::url(url)?;
    let Some(mix) = &place.mix else {
        return Ok(vec![target(url, place.transport, "GET", 1, place)?]);
    };
    let of_mix = |&(transport, weight): &(Transport, u32)| {
        let path = match transport {
            Transport::WebSocket => &place.ws_path,
            Transport::EventStream => &place.sse_path,
            Transport::LongPoll => &place.poll_path,
            Transport::Http | Transport::Tcp => return Err(usage("--mix takes ws, sse and poll")),
        };
        let mut target = target(url.clone(), Some(transport), "GET", weight, place)?;
        let query = target.path.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
        target.path = format!("{path}{query}");
        Ok(target)
    };
    mix.0.iter().filter(|(_, weight)| *weight > 0).map(of_mix).collect()
}

/// Errors: `Usage` for what is no URL.
pub fn url(text: &str) -> Result<Url, Failure> {
    targets::parse_url(text).map_err(|error| usage(&error.to_string()))
}

/// One target. Errors: `Usage` for what is no header, `Unreachable` for a host without an address.
pub fn target(
    url: Url,
    transport: Option<Transport>,
    method: &str,
    weight: u32,
    place: &Where,
) -> Result<Target, Failure> {
    let header = |header: &String| {
        let (name, value) =
            header.split_once(':').ok_or_else(|| usage(&format!("{header:?} is no header")))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    let transport = transport.unwrap_or_else(|| transport_of(&url));
    let address = resolve(&url.host, url.port)?;
    Ok(Target {
        transport,
        address,
        host: url.host_header(),
        path: url.path,
        method: method.to_owned(),
        headers: place.headers.iter().map(header).collect::<Result<_, Failure>>()?,
        body: None,
        subprotocol: place.subprotocol.clone(),
        greeting: place.greetings.clone(),
        weight,
        close: false,
    })
}

fn transport_of(url: &Url) -> Transport {
    let path = url.path.split('?').next().unwrap_or_default();
    match (url.scheme, path.rsplit('/').next()) {
        (Scheme::Ws, _) => Transport::WebSocket,
        (_, Some("sse")) => Transport::EventStream,
        (_, Some("poll")) => Transport::LongPoll,
        _ => Transport::Http,
    }
}

/// IPv4 first: source addresses are mostly of that kind.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let unreachable = |why: String| Box::new(Unreachable(format!("{host}:{port}: {why}")));
    let found: Vec<_> =
        (bare, port).to_socket_addrs().map_err(|error| unreachable(error.to_string()))?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| unreachable("the name has no address".to_owned()).into())
}

fn sources(opening: &Opening, targets: &[Target]) -> Vec<IpAddr> {
    if let Some(sources) = &opening.sources {
        return sources.0.clone();
    }
    let loopback = targets.iter().all(|target| target.address.ip().is_loopback() && target.address.is_ipv4());
    if !loopback || opening.connections.0 <= PER_LOOPBACK_SOURCE {
        return Vec::new();
    }
    // Others for every run, so that ports in TIME_WAIT are not in the way.
    let net = (std::process::id() % 250 + 1) as u8;
    let count = opening.connections.0.div_ceil(PER_LOOPBACK_SOURCE);
    (0..count)
        .map(|number| Ipv4Addr::new(127, 1 + (number / 250) as u8, net, (number % 250) as u8 + 1).into())
        .collect()
}

fn shape(opening: &Opening, connections: u32) -> Result<Shape, Failure> {
    let threads = opening.threads.max(1);
    let room = cpu::descriptor_limit().saturating_sub(DESCRIPTORS_RESERVED).max(1);
    let needed = u64::from(connections).div_ceil(room);
    let processes = if opening.processes == 0 { needed } else { u64::from(opening.processes) };
    let processes = u16::try_from(processes).unwrap_or(u16::MAX);
    if processes.checked_mul(threads).is_none_or(|workers| workers > 4096) {
        return Err(usage("more than 4,096 workers"));
    }
    // A worker without a connection has nothing to do.
    let processes = processes.min(u16::try_from(connections).unwrap_or(u16::MAX)).max(1);
    let threads = threads.min((connections / u32::from(processes)).max(1) as u16);
    Ok(Shape { processes, threads, pin: opening.pin.clone() })
}
