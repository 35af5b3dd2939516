//! What stands where. Plain ASCII but for names of clients: a screen reads the same over any line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Clear, Paragraph, Row, Table};

use super::asking::Reading;
use super::consumers::{Consumers, SORTS};
use super::figures::{bytes, printable, rate, scaled, short_age};
use super::head::{self, HEAD_ROWS};
use crate::cli::span::Span;
use crate::cli::table::counted;
use crate::connections::{Row as Consumer, Sort};
use crate::control::command::Stats;
use crate::stats::ShardStats;

/// Longest filter.
const FILTER_CHARS_MAX: usize = 64;
/// Consumers and topics have at least so many rows, heads included.
const LISTS_ROWS_MIN: u16 = 8;
/// Wide enough for both lists side by side.
const SIDE_BY_SIDE_COLUMNS: u16 = 76;
/// Marks of a bar.
const BAR_COLUMNS: usize = 24;

const HELP: [&str; 12] = [
    "q, Ctrl-C  leave",
    "s          consumers by lag, by idle time, by age",
    "/          only those whose names hold a text: Enter keeps it, Esc forgets it",
    "p          pause: the screen stays as it is, the gateway does not",
    "?          this help; Esc closes it",
    "",
    "BAR        clients, beside those of the fullest shard",
    "LAG        messages that a consumer is behind, and their bytes",
    "PUSH/s     pushes to a topic in the last 5 s, however many were subscribed",
    "latency    push to socket, for half of the messages, for 99 % and for 99.9 %",
    "refused    requests that got 4xx or 503 before they were clients",
    "           see also: corecast stats, corecast who, corecast kick",
];

/// What is shown, and how.
#[derive(Debug)]
pub(super) struct Screen {
    every: Duration,
    /// The newest reading, or the one at which it was paused.
    shown: Option<Reading>,
    paused: bool,
    helps: bool,
    sort: Sort,
    filter: String,
    /// The filter is being typed.
    typing: bool,
}

impl Screen {
    /// Before the first reading.
    pub(super) fn new(every: Duration) -> Self {
        let (sort, filter) = (SORTS[0], String::new());
        Self { every, shown: None, paused: false, helps: false, sort, filter, typing: false }
    }

    /// Shows this one from now on, unless paused.
    pub(super) fn take(&mut self, reading: Reading) {
        if !self.paused || self.shown.is_none() {
            self.shown = Some(reading);
        }
    }

    /// Whether readings change nothing.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether keys are letters of the filter.
    pub(super) fn is_typing(&self) -> bool {
        self.typing
    }

    pub(super) fn pause(&mut self) {
        self.paused = !self.paused;
    }

    pub(super) fn toggle_help(&mut self) {
        self.helps = !self.helps;
    }

    /// Closes the help, else forgets the filter.
    pub(super) fn dismiss(&mut self) {
        if !std::mem::take(&mut self.helps) {
            self.filter.clear();
        }
    }

    /// The next order of consumers, which is to be asked for.
    pub(super) fn next_sort(&mut self) -> Sort {
        let at = SORTS.iter().position(|sort| *sort == self.sort).unwrap_or(0);
        self.sort = SORTS[(at + 1) % SORTS.len()];
        self.sort
    }

    pub(super) fn begin_filter(&mut self) {
        self.filter.clear();
        self.typing = true;
    }

    /// A key of the filter.
    pub(super) fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.chars().count() < FILTER_CHARS_MAX => self.filter.push(c),
            _ => {}
        }
    }

    /// Draws all of it.
    pub(super) fn draw(&self, frame: &mut Frame) {
        let area = frame.area();
        let Some(reading) = &self.shown else {
            return frame.render_widget(Line::raw("corecast top: waiting for the gateway"), area);
        };
        let span = reading.before.as_deref().and_then(|before| Span::new(before, &reading.stats));
        let shards = reading.stats.shards.len() as u16 + 1;
        let shards_max = area.height.saturating_sub(HEAD_ROWS + 3 + LISTS_ROWS_MIN).max(2);
        let rows = [
            Constraint::Length(HEAD_ROWS),
            Constraint::Length(1),
            Constraint::Length(shards.min(shards_max)),
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
        ];
        let [head, _, shards, _, lists, foot] = Layout::vertical(rows).areas(area);
        draw_head(frame, head, reading, span);
        draw_shards(frame, shards, &reading.stats, span);
        self.draw_lists(frame, lists, reading);
        frame.render_widget(self.foot(), foot);
        if self.helps {
            draw_help(frame);
        }
    }

    fn draw_lists(&self, frame: &mut Frame, area: Rect, reading: &Reading) {
        let parts = [Constraint::Fill(7), Constraint::Fill(6)];
        let [consumers, topics] = if area.width >= SIDE_BY_SIDE_COLUMNS {
            Layout::horizontal(parts).spacing(2).areas(area)
        } else {
            Layout::vertical(parts).spacing(1).areas(area)
        };
        self.draw_consumers(frame, consumers, &reading.consumers);
        self.draw_topics(frame, topics, reading);
    }

    fn draw_consumers(&self, frame: &mut Frame, area: Rect, consumers: &Consumers) {
        let listed = match consumers {
            Consumers::Listed(listed) => listed,
            Consumers::Unknown(why) => {
                let lines = vec![heading("SLOWEST CONSUMERS"), Line::raw(why.clone())];
                return frame.render_widget(Paragraph::new(lines), area);
            }
        };
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let name = match self.sort {
            Sort::Id | Sort::Lag => "SLOWEST CONSUMERS",
            Sort::Idle => "IDLEST CONSUMERS",
            Sort::Age => "OLDEST CONSUMERS",
        };
        let rows = listed.iter().filter(|consumer| self.wants(consumer)).map(|consumer| {
            let user = consumer.user.as_ref().map_or_else(|| consumer.id.to_string(), ToString::to_string);
            let age_ms = now_ms.saturating_sub(consumer.connected_at);
            let ms = if self.sort == Sort::Age { age_ms } else { consumer.idle_ms };
            [
                printable(&user),
                consumer.transport.to_string(),
                scaled(consumer.lag_messages),
                bytes(consumer.lag_bytes),
                short_age(Duration::from_millis(ms)),
            ]
        });
        let last = if self.sort == Sort::Age { "AGE" } else { "IDLE" };
        let widths =
            [Constraint::Fill(1), Constraint::Length(4), Constraint::Length(6), Constraint::Length(6)];
        let widths = widths.into_iter().chain([Constraint::Length(5)]);
        let table = table(rows, [name, "BY", "LAG", "BYTES", last], 2);
        frame.render_widget(table.widths(widths), area);
    }

    fn wants(&self, consumer: &Consumer) -> bool {
        let user = consumer.user.as_ref().map_or("", |user| user.as_str());
        [user, &consumer.id.to_string(), &consumer.remote].into_iter().any(|text| self.matches(text))
            || consumer.topics.iter().any(|topic| self.matches(topic.as_str()))
    }

    /// Whether the filter is a part of it, without case.
    fn matches(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.filter.to_lowercase())
    }

    fn draw_topics(&self, frame: &mut Frame, area: Rect, reading: &Reading) {
        let Some(topics) = &reading.topics else {
            let lines = vec![heading("HOTTEST TOPICS"), Line::raw("too many to ask for")];
            return frame.render_widget(Paragraph::new(lines), area);
        };
        let rows = topics.iter().filter(|topic| self.matches(topic.topic.as_str()));
        let rows = rows.take(usize::from(area.height));
        let rows = rows.map(|topic| {
            let pushes = topic.pushes_per_second.map_or("-".to_owned(), rate);
            [printable(topic.topic.as_str()), pushes, scaled(topic.connections)]
        });
        let table = table(rows, ["HOTTEST TOPICS", "PUSH/s", "CLIENTS"], 1);
        let widths = [Constraint::Fill(1), Constraint::Length(6), Constraint::Length(7)];
        frame.render_widget(table.widths(widths), area);
    }

    fn foot(&self) -> Line<'static> {
        let every = humantime::format_duration(self.every);
        let paused = if self.paused { "PAUSED " } else { "" };
        let filter = printable(&self.filter);
        Line::raw(match (self.typing, filter.is_empty()) {
            (true, _) => format!("filter: {filter}_   Enter keeps it, Esc forgets it"),
            (false, true) => format!("{paused}every {every}; q leave  s sort  / filter  p pause  ? help"),
            (false, false) => {
                format!("{paused}every {every}, only \"{filter}\"; Esc all  q leave  s sort  p pause  ? help")
            }
        })
        .style(Modifier::REVERSED)
    }
}

fn heading(text: &'static str) -> Line<'static> {
    Line::raw(text).style(Modifier::BOLD)
}

/// Cells from number `right_from` on stand to the right.
fn table<'a, const N: usize>(
    rows: impl Iterator<Item = [String; N]>,
    heads: [&'static str; N],
    right_from: usize,
) -> Table<'a> {
    let row = move |cells: [String; N]| {
        let mut number = 0;
        Row::new(cells.map(|cell| {
            number += 1;
            let line = Line::raw(cell);
            Cell::new(if number > right_from { line.right_aligned() } else { line })
        }))
    };
    let head = row(heads.map(str::to_owned)).style(Style::new().add_modifier(Modifier::BOLD));
    Table::default().rows(rows.map(row)).header(head)
}

fn draw_head(frame: &mut Frame, area: Rect, reading: &Reading, span: Option<Span<'_>>) {
    let mut lines = head::lines(reading, span, usize::from(area.width)).map(Line::raw);
    lines[0].style = Modifier::BOLD.into();
    frame.render_widget(Paragraph::new(Vec::from(lines)), area);
}

fn draw_shards(frame: &mut Frame, area: Rect, stats: &Stats, span: Option<Span<'_>>) {
    let rates = |count: fn(&ShardStats) -> u64| span.map_or(Vec::new(), |span| span.by_shard(count));
    let (messages, sent, turns) =
        (rates(|shard| shard.delivered), rates(|shard| shard.sent_bytes), rates(|shard| shard.turns));
    let most = stats.shards.iter().map(|shard| shard.connections).max().unwrap_or(0).max(1);
    let cell = |values: &[u64], at: usize, text: fn(u64) -> String| {
        values.get(at).map_or("-".to_owned(), |&n| text(n))
    };
    let mut shards: Vec<&ShardStats> = stats.shards.iter().collect();
    shards.sort_by_key(|shard| shard.shard);
    let mut rows: Vec<[String; 7]> = shards
        .iter()
        .map(|shard| {
            let at = usize::from(shard.shard);
            let marks = (shard.connections * BAR_COLUMNS as u64).div_ceil(most) as usize;
            [
                shard.shard.to_string(),
                format!("[{}{}]", "|".repeat(marks), " ".repeat(BAR_COLUMNS - marks)),
                scaled(shard.connections),
                scaled(shard.blocked),
                cell(&messages, at, scaled),
                cell(&sent, at, bytes),
                cell(&turns, at, scaled),
            ]
        })
        .collect();
    let room = usize::from(area.height.saturating_sub(1));
    if rows.len() > room {
        rows.truncate(room.saturating_sub(1));
        let more = counted((shards.len() - rows.len()) as u64, "shard");
        let mut row = <[String; 7]>::default();
        row[1] = format!("and {more} more");
        rows.push(row);
    }
    let widths = [5, BAR_COLUMNS as u16 + 2, 8, 8, 10, 8, 8].map(Constraint::Length);
    let heads = ["SHARD", "", "CLIENTS", "BLOCKED", "MESSAGES/s", "SENT/s", "TURNS/s"];
    frame.render_widget(table(rows.into_iter(), heads, 2).widths(widths), area);
}

fn draw_help(frame: &mut Frame) {
    let area = frame.area();
    let (width, height) = (100.min(area.width), (HELP.len() as u16 + 2).min(area.height));
    let middle = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    frame.render_widget(Clear, middle);
    let lines = std::iter::once("").chain(HELP).chain([""]);
    let lines: Vec<Line> = lines.map(|line| Line::raw(format!(" {line:<99}"))).collect();
    frame.render_widget(Paragraph::new(lines).style(Modifier::REVERSED), middle);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::frame;
    use super::super::topics::HotTopic;
    use super::*;
    use crate::cli::span::tests::reading as stats;
    use crate::connections::Transport;
    use crate::stats::{CloseReason, RefusalReason};

    fn topic(name: &str, connections: u64, pushes_per_second: Option<f64>) -> HotTopic {
        HotTopic { topic: name.parse().unwrap(), connections, pushes_per_second }
    }

    fn consumer(user: Option<&str>, lag_messages: u64) -> Consumer {
        Consumer {
            id: "0-5-1".parse().unwrap(),
            user: user.map(|user| user.parse().unwrap()),
            transport: Transport::WebSocket,
            remote: "192.0.2.7:1".to_owned(),
            connected_at: 0,
            lag_messages,
            lag_bytes: lag_messages * 100,
            idle_ms: 12_000,
            topics: vec!["news".parse().unwrap()],
            reason: None,
        }
    }

    /// Two shards with 7,500 clients each; in the last second they delivered 60,000 messages each.
    fn shown() -> Screen {
        let mut shard =
            ShardStats { connections: 7500, websockets: 7500, delivered: 1_000_000, ..ShardStats::default() };
        let before = stats(10_000, &shard);
        shard.delivered += 60_000;
        shard.closed[CloseReason::SlowConsumer as usize] += 2;
        (0..9).for_each(|_| shard.count_refusal(RefusalReason::ConnectsPerSecond));
        let mut after = stats(11_000, &shard);
        after.shards[1].connections = 2500;
        let mut screen = Screen::new(Duration::from_secs(1));
        screen.take(Reading {
            stats: Box::new(after),
            before: Some(Box::new(before)),
            consumers: Consumers::Listed(vec![consumer(Some("slow\u{202e}x"), 700_000), consumer(None, 3)]),
            topics: Some(Arc::new(vec![topic("sport", 10, Some(250.0)), topic("news", 9000, None)])),
        });
        screen
    }

    #[test]
    fn issue_7_the_screen_shows_rates_shards_consumers_and_topics_in_80_by_24() {
        let text = frame(&shown(), (80, 24));
        for part in [
            "corecast 0.1.0, serving, up 11s, position 1a2b3c4d-17",
            "10,000 clients: 15,000 websockets, 0 event streams",
            "messages 120k/s",
            "latency: no data",
            "refused/s: connects_per_second 18; closed/s: slow_consumer 4",
            "\n0     [||||||||||||||||||||||||]",
            "\n1     [||||||||                ]",
            "slow\\u{202e}x",
            "700k  70 MB   12s",
            "HOTTEST TOPICS        PUSH/s CLIENTS",
            "sport                    250      10",
            "news                       -   9,000",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 24 && lines.iter().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!text.contains('\x1b'));
        assert!(lines.last().is_some_and(|line| line.contains("q leave")), "{text}");
    }

    #[test]
    fn issue_7_the_help_fits_into_80_columns() {
        assert!(HELP.iter().all(|line| line.len() < 80), "one column stays free to the left");
        let mut screen = shown();
        screen.toggle_help();
        let text = frame(&screen, (80, 24));
        assert!(HELP.iter().all(|line| text.contains(line)), "{text}");
        screen.dismiss();
        assert!(!frame(&screen, (80, 24)).contains(HELP[0]));
    }

    #[test]
    fn issue_7_every_size_of_terminal_is_drawn() {
        let mut screen = shown();
        for helps in [false, true] {
            screen.helps = helps;
            for size in [(1, 1), (20, 3), (40, 12), (80, 8), (80, 24), (200, 60)] {
                assert!(frame(&screen, size).lines().count() <= usize::from(size.1));
            }
        }
    }

    #[test]
    fn issue_7_a_filter_keeps_consumers_and_topics_whose_names_hold_it() {
        let mut screen = shown();
        screen.begin_filter();
        "SPOx".chars().for_each(|c| screen.type_filter(KeyCode::Char(c)));
        screen.type_filter(KeyCode::Backspace);
        screen.type_filter(KeyCode::Enter);
        let text = frame(&screen, (80, 24));
        assert!(text.contains("sport") && !text.contains("news") && !text.contains("slow\\u"), "{text}");
        assert!(text.contains("only \"SPO\""), "{text}");
        screen.dismiss();
        assert!(frame(&screen, (80, 24)).contains("news"));
    }

    #[test]
    fn issue_7_a_paused_screen_stays_as_it_is() {
        let mut screen = shown();
        screen.pause();
        let before = frame(&screen, (80, 24));
        screen.take(Reading {
            stats: Box::new(stats(12_000, &ShardStats::default())),
            before: None,
            consumers: Consumers::Unknown("later".to_owned()),
            topics: None,
        });
        assert_eq!(frame(&screen, (80, 24)), before);
        assert!(before.contains("PAUSED"));
    }

    #[test]
    fn issue_7_what_is_not_known_is_said() {
        let mut screen = Screen::new(Duration::from_secs(1));
        assert!(frame(&screen, (80, 24)).contains("waiting for the gateway"));
        screen.take(Reading {
            stats: Box::new(stats(1000, &ShardStats::default())),
            before: None,
            consumers: Consumers::Unknown("this gateway does not list connections".to_owned()),
            topics: None,
        });
        let text = frame(&screen, (80, 24));
        for part in ["rates: with the next reading", "does not list connections", "too many to ask for"] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn issue_7_more_shards_than_fit_are_counted() {
        let mut screen = shown();
        let reading = screen.shown.as_mut().unwrap();
        let shard = reading.stats.shards[0].clone();
        reading.stats.shards = (0..64).map(|number| ShardStats { shard: number, ..shard.clone() }).collect();
        let text = frame(&screen, (80, 24));
        assert!(text.contains("and 59 shards more"), "{text}");
        assert!(text.contains("CONSUMERS"), "{text}");
    }
}
