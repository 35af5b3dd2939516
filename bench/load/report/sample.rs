//! A made-up report for the tests of this room: ten seconds of connecting, twenty of publishing.

use std::collections::BTreeMap;

use super::{FORMAT, Machine, Phase, Publisher, Quantiles, Report, Second, ServerCost, Times, ToolCost};
use crate::record::{Counts, Distribution, Error, Outcome, Timed};

const CONNECTIONS: u64 = 10_000;

/// A fan-out with 100 connections that failed, three losses, one stumble in second 20.
pub fn fanout() -> Report {
    slower(1.0)
}

/// The same with times `factor` times as long and rates as much lower.
pub fn slower(factor: f64) -> Report {
    let mut report = empty();
    let (mut connect, mut delivery) = (Distribution::default(), Distribution::default());
    for second in 1..=30_u64 {
        let (mut counts, mut times) = (Counts::default(), BTreeMap::new());
        let mut outcomes = BTreeMap::new();
        let distribution = if second <= 10 {
            counts.attempted = CONNECTIONS / 10;
            counts.opened = counts.attempted - 100 * u64::from(second == 10);
            counts.failed = counts.attempted - counts.opened;
            counts.bytes_in = counts.opened * 129;
            counts.bytes_out = counts.opened * 180;
            outcomes.insert(Outcome::Status(101), counts.opened);
            if counts.failed > 0 {
                outcomes.insert(Outcome::Error(Error::AddressNotAvailable), 60);
                outcomes.insert(Outcome::Status(503), 40);
            }
            (Timed::Connect, spread(900.0 * factor, counts.opened, second))
        } else {
            counts.messages = (99_000.0 / factor) as u64 + second * 37 % 1000;
            counts.payload_bytes = counts.messages * 256;
            counts.bytes_in = counts.messages * 260;
            counts.lost = 3 * u64::from(second == 20);
            counts.dropped = 2 * u64::from(second == 20);
            if second == 20 {
                outcomes.insert(Outcome::Close(4000), 2);
            }
            let stumble = if second == 20 { 20.0 } else { 1.0 };
            (Timed::Delivery, spread(400.0 * factor * stumble, counts.messages, second))
        };
        times.insert(distribution.0, Quantiles::from(&distribution.1));
        if distribution.0 == Timed::Connect { &mut connect } else { &mut delivery }.add(&distribution.1);
        report.totals.add(&counts);
        outcomes.iter().for_each(|(outcome, count)| *report.outcomes.entry(*outcome).or_default() += count);
        report.open = report.totals.opened - report.totals.dropped;
        report.seconds.push(Second {
            elapsed_s: second as f64,
            wall_s: 1.0,
            phase: if second <= 10 { "connect" } else { "publish" }.to_owned(),
            open: report.open,
            counts,
            outcomes,
            times,
        });
    }
    report.rates.insert("connects/s".to_owned(), report.totals.opened as f64 / 10.0);
    report.rates.insert("deliveries/s".to_owned(), report.totals.messages as f64 / 20.0);
    for (timed, distribution) in [(Timed::Connect, connect), (Timed::Delivery, delivery)] {
        let quantiles = Quantiles::from(&distribution);
        report.times.insert(timed, Times { quantiles, distribution });
    }
    report.verdict = super::verdict::judge(&report.totals, report.publisher.as_ref(), 0.0, false);
    report
}

/// Times about `median_us`, with a tail of one in a thousand thirty times as long.
fn spread(median_us: f64, count: u64, seed: u64) -> Distribution {
    let mut distribution = Distribution::default();
    let steps = 200_u64;
    for step in 0..steps {
        // The logistic distribution's quantile of the step: a bell on a log scale.
        let share = (step as f64 + 0.5) / steps as f64;
        let us = median_us * (share / (1.0 - share)).powf(0.25) * (1.0 + (seed * 7 % 5) as f64 / 50.0);
        distribution.record_many((us * 1000.0) as u64, count / steps);
    }
    distribution.record_many((median_us * 30_000.0) as u64, count / 1000);
    distribution
}

fn empty() -> Report {
    Report {
        format: FORMAT,
        tool: "corecast-bench 0.1.0".to_owned(),
        command: "corecast-bench fanout 'ws://127.0.0.1:8080/ws?topics=news' -c 10k --ramp 1000/s -m 200 \
                  --pid 4711"
            .to_owned(),
        mode: "fanout".to_owned(),
        started_unix_ms: 1_790_000_000_000,
        elapsed_s: 30.2,
        machine: Machine {
            kernel: "6.18.0".to_owned(),
            processor: "AMD EPYC 9B14".to_owned(),
            cores: 2,
            memory_bytes: 16 << 30,
        },
        phases: vec![
            Phase { name: "connect".to_owned(), from_s: 0.0, to_s: 10.0 },
            Phase { name: "publish".to_owned(), from_s: 10.0, to_s: 29.2 },
            Phase { name: "drain".to_owned(), from_s: 29.2, to_s: 30.2 },
        ],
        seconds: Vec::new(),
        totals: Counts::default(),
        outcomes: BTreeMap::new(),
        open: 0,
        times: BTreeMap::new(),
        rates: BTreeMap::new(),
        publisher: Some(Publisher {
            by: "corecast".to_owned(),
            accepted: 200,
            refused: 0,
            again: 3,
            took_s: 19.9,
            late_us_max: 1234.0,
            first_error: None,
        }),
        server: Some(ServerCost {
            pid: 4711,
            name: "corecast".to_owned(),
            rss_before_bytes: 9 << 20,
            rss_open_bytes: (9 << 20) + 1_280_000,
            rss_per_connection: 128.0,
            pss_per_connection: 126.5,
            kernel_per_connection: Some(7_890.0),
            connect_cpu_s: 0.61,
            work_cpu_s: 9.12,
            cpu_s_per_million: Some(4.56),
            work_cores: 0.456,
        }),
        tool_cost: ToolCost {
            workers: 2,
            bytes_per_connection: 143.2,
            cpu_max: 0.61,
            loop_lag: Quantiles {
                count: 30_000,
                min: 1.0,
                mean: 35.0,
                p50: 21.0,
                p90: 88.0,
                p95: 120.0,
                p99: 340.0,
                p99_9: 1_100.0,
                max: 2_400.0,
            },
            bottleneck: None,
        },
        verdict: super::Verdict::default(),
    }
}
