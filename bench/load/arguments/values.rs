//! Values of the command line: amounts, rates, shares, checks, sources.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use crate::plan::{BackOff, Behaviour, Check, Transport};

/// A count, as `10000`, `10k`, `1.5m` or `1_000_000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub u64);

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no count: write 10000, 10k or 1.5m");
        let plain = text.replace('_', "").to_lowercase();
        let (digits, unit) = match plain.strip_suffix(['k', 'm']) {
            Some(digits) if plain.ends_with('k') => (digits, 1e3),
            Some(digits) => (digits, 1e6),
            None => (plain.as_str(), 1.0),
        };
        let count = digits.parse::<f64>().map_err(|_| wrong())? * unit;
        let whole = count >= 0.0 && count.fract() == 0.0 && count <= 1e15;
        if whole { Ok(Self(count as u64)) } else { Err(wrong()) }
    }
}

/// A rate, as `1000/s`, `1k/s`, `30/m` or plain `1000` (a second).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerSecond(pub f64);

impl FromStr for PerSecond {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (count, seconds) = match text.rsplit_once('/') {
            None => (text, 1.0),
            Some((count, "s")) => (count, 1.0),
            Some((count, "m" | "min")) => (count, 60.0),
            Some((count, "h")) => (count, 3600.0),
            Some(_) => return Err(format!("{text:?} is no rate: write 1000/s or 30/m")),
        };
        let plain = count.replace('_', "").to_lowercase();
        let (digits, unit) = match plain.strip_suffix('k') {
            Some(digits) => (digits, 1e3),
            None => (plain.as_str(), 1.0),
        };
        let rate = digits.parse::<f64>().unwrap_or(f64::NAN) * unit / seconds;
        if rate.is_finite() && rate > 0.0 {
            Ok(Self(rate))
        } else {
            Err(format!("{text:?} is no rate: write 1000/s or 30/m"))
        }
    }
}

/// When the next message is published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// By the clock.
    PerSecond(f64),
    /// As fast as they are accepted.
    Max,
    /// When all have the one before.
    Lockstep,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Rate::Max),
            "lockstep" => Ok(Rate::Lockstep),
            rate => rate.parse().map(|PerSecond(rate)| Rate::PerSecond(rate)),
        }
    }
}

/// `ws=60,sse=30,poll=10`: transports with their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(pub Vec<(Transport, u32)>);

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            let (name, weight) = part.split_once('=')?;
            Some((Transport::from_str(name, true).ok()?, weight.trim_end_matches('%').parse().ok()?))
        };
        let parts: Option<Vec<_>> = text.split(',').map(part).collect();
        match parts {
            Some(parts) if parts.iter().any(|(_, weight)| *weight > 0) => Ok(Self(parts)),
            _ => Err(format!("{text:?} is no mix: write ws=60,sse=30,poll=10")),
        }
    }
}

/// Local addresses to connect from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(pub Vec<IpAddr>);

impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut addresses = Vec::new();
        for part in text.split(',') {
            let wrong = || format!("{part:?} is no address or range: write 127.0.0.2-127.0.0.60");
            match part.split_once('-') {
                None => addresses.push(part.parse().map_err(|_| wrong())?),
                Some((first, last)) => {
                    let number = |text: &str| text.parse::<Ipv4Addr>().map(u32::from).map_err(|_| wrong());
                    let (first, last) = (number(first)?, number(last)?);
                    if first > last || last - first > 65_535 {
                        return Err(wrong());
                    }
                    addresses.extend((first..=last).map(|number| IpAddr::V4(number.into())));
                }
            }
        }
        Ok(Self(addresses))
    }
}

/// `0.1%` or `0.001`: a share between 0 and 1.
pub fn share(text: &str) -> Result<f64, String> {
    let (digits, unit) = match text.strip_suffix('%') {
        Some(digits) => (digits, 100.0),
        None => (text, 1.0),
    };
    let share = digits.parse::<f64>().unwrap_or(f64::NAN) / unit;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(format!("{text:?} is no share: write 0.1%")) }
}

/// `slow-reader=5%`: a behaviour with its share in thousandths.
pub fn behaviour(text: &str) -> Result<(Behaviour, u32), String> {
    let names = || {
        let variants = Behaviour::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        variants.map(|value| value.get_name().to_owned()).collect::<Vec<_>>().join(", ")
    };
    let wrong = || format!("{text:?} is no behaviour: write slow-reader=5%, one of {}", names());
    let (name, part) = text.split_once('=').ok_or_else(wrong)?;
    let behaviour = Behaviour::from_str(name, true).map_err(|_| wrong())?;
    Ok((behaviour, (share(part)? * 1000.0).round() as u32))
}

/// `status=200`, `json:$.ok=true`, `contains=text`.
pub fn check(text: &str) -> Result<Check, String> {
    let wrong = || format!("{text:?} is no check: write status=200, json:$.ok=true or contains=text");
    if let Some(status) = text.strip_prefix("status=") {
        return status.parse().map(Check::Status).map_err(|_| wrong());
    }
    if let Some(part) = text.strip_prefix("contains=") {
        return Ok(Check::Contains(part.to_owned()));
    }
    let (path, value) =
        text.strip_prefix("json:").and_then(|rest| rest.rsplit_once('=')).ok_or_else(wrong)?;
    serde_json_path::JsonPath::parse(path).map_err(|error| format!("{path}: {error}"))?;
    // A word that is no JSON is meant as text.
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok(Check::JsonEquals(path.to_owned(), value))
}

/// `none`, `fixed:1s`, `exponential:500ms..30s`, `as-told`.
pub fn back_off(text: &str) -> Result<BackOff, String> {
    let wrong =
        || format!("{text:?} is no back-off: write none, fixed:1s, exponential:500ms..30s or as-told");
    let ns = |text: &str| {
        let parsed: Result<Duration, _> = humantime::parse_duration(text);
        parsed.map(|duration| duration.as_nanos() as u64).map_err(|_| wrong())
    };
    match text.split_once(':') {
        None if text == "none" => Ok(BackOff::None),
        None if text == "as-told" => Ok(BackOff::AsTold),
        Some(("fixed", wait)) => Ok(BackOff::Fixed { wait_ns: ns(wait)? }),
        Some(("exponential", range)) => {
            let (base, cap) = range.split_once("..").ok_or_else(wrong)?;
            Ok(BackOff::Exponential { base_ns: ns(base)?, cap_ns: ns(cap)? })
        }
        _ => Err(wrong()),
    }
}
