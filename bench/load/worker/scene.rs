//! A plan made ready: templates parsed, checks compiled, variables read.

use std::net::{IpAddr, SocketAddr};

use crate::Failure;
use crate::plan::{BackOff, Behaviour, Plan, Target, Transport, Work};
use crate::request::targets;
use crate::request::template::Template;
use crate::request::variables::Variables;
use crate::request::verify::Checks;

/// A target with its texts parsed.
#[derive(Debug)]
pub struct Aim {
    pub transport: Transport,
    pub address: SocketAddr,
    pub host: String,
    pub path: Template,
    pub method: String,
    pub headers: Vec<(String, Template)>,
    pub body: Option<Template>,
    pub subprotocol: Option<String>,
    pub greeting: Vec<Template>,
    pub close: bool,
}

/// The plan in force, and what changes with it.
#[derive(Debug)]
pub struct Scene {
    pub aims: Vec<Aim>,
    /// Number of the worker's first connection.
    pub first: u32,
    pub connecting_max: u32,
    /// Handshakes under way.
    pub under_way: u32,
    pub sources: Vec<IpAddr>,
    /// The source of the next connect.
    pub next_source: usize,
    pub timeout_ns: u64,
    pub variables: Option<Variables>,
    pub behaviours: Vec<(Behaviour, u32)>,
    pub verify: bool,
    pub checks: Checks,
    pub back_off: BackOff,
    pub polls_again: bool,
    pub work: Work,
    /// Connections are meant to stay: one that ends has been dropped.
    pub holds: bool,
    /// The message of `Work::Request` or `Work::Chat`.
    pub message: Option<Template>,
}

impl Default for Scene {
    /// Before the first plan.
    fn default() -> Self {
        Self {
            aims: Vec::new(),
            first: 0,
            connecting_max: 0,
            under_way: 0,
            sources: Vec::new(),
            next_source: 0,
            timeout_ns: 0,
            variables: None,
            behaviours: Vec::new(),
            verify: false,
            checks: Checks::default(),
            back_off: BackOff::Never,
            polls_again: true,
            work: Work::Hold,
            holds: true,
            message: None,
        }
    }
}

impl Scene {
    /// Errors: a text that is no template, a CSV that cannot be read. The coordinator has tried both.
    pub fn new(plan: &Plan) -> Result<Self, Failure> {
        let message = match &plan.work {
            Work::Hold => None,
            Work::Request { message, .. } | Work::Chat { message, .. } => Some(Template::parse(message)?),
        };
        Ok(Self {
            aims: plan.targets.iter().map(aim).collect::<Result<_, Failure>>()?,
            first: plan.first,
            connecting_max: plan.connecting_max,
            under_way: 0,
            sources: plan.sources.clone(),
            next_source: plan.first as usize,
            timeout_ns: plan.timeout_ns,
            variables: plan.variables.as_deref().map(Variables::open).transpose()?,
            behaviours: plan.behaviours.clone(),
            verify: plan.verify,
            checks: Checks::compile(&plan.checks)?,
            back_off: plan.back_off,
            polls_again: plan.polls_again,
            holds: plan.targets.iter().all(|target| target.transport != Transport::Http),
            work: plan.work.clone(),
            message,
        })
    }

    /// `{{group}}` of connection `number`.
    pub fn group(&self, number: u32) -> u32 {
        match self.work {
            Work::Chat { groups, .. } => number % groups.max(1),
            _ => 0,
        }
    }

    /// How connection `number` behaves: the same in every run, and in each cycle of the shares as often as
    /// they say.
    pub fn behaviour(&self, number: u32) -> Behaviour {
        if self.behaviours.is_empty() {
            return Behaviour::Well;
        }
        let misbehaving: u32 = self.behaviours.iter().map(|(_, share)| share).sum();
        let mut weights: Vec<u32> = self.behaviours.iter().map(|(_, share)| *share).collect();
        weights.push(1000 - misbehaving);
        let picked = targets::pick(&weights, number);
        self.behaviours.get(picked).map_or(Behaviour::Well, |(behaviour, _)| *behaviour)
    }
}

fn aim(target: &Target) -> Result<Aim, Failure> {
    let parse = |text: &String| Template::parse(text);
    let headers = target.headers.iter().map(|(name, value)| Ok((name.clone(), parse(value)?)));
    Ok(Aim {
        transport: target.transport,
        address: target.address,
        host: target.host.clone(),
        path: parse(&target.path)?,
        method: target.method.clone(),
        headers: headers.collect::<Result<_, Failure>>()?,
        body: target.body.as_ref().map(parse).transpose()?,
        subprotocol: target.subprotocol.clone(),
        greeting: target.greeting.iter().map(parse).collect::<Result<_, _>>()?,
        close: target.close,
    })
}

/// SplitMix64 (Steele, Lea, Flood 2014): reproducible, and good enough for jitter.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between 0 and `bound`, without it; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}
