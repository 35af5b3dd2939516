//! `corecast top`: what the gateway does, on one screen, until `q`.
//!
//! A thread asks (`asking`), this one draws what came (`screen`) and hears keys. It sleeps in between: a frame
//! is drawn when there is something new to see. Whatever ends it, the terminal is as it was before. `figures`
//! makes numbers of two readings, `head` lines of those, `consumers` knows those who are behind, `topics` those that are hot.

mod asking;
mod consumers;
mod figures;
mod head;
mod screen;
mod topics;

use std::io::{self, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::{cursor, execute};
use rustix::event::{PollFd, PollFlags, Timespec};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};

use super::Gateway;
use super::failure::Failure;
use asking::Asker;
use screen::Screen;

/// How long a key may wait to be heard, a reading to be shown, and a signal to be obeyed, at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What `--once` prints: the size that every terminal has.
const ONCE: (u16, u16) = (80, 24);

/// `corecast top`
#[derive(Debug, Args)]
pub(super) struct TopFlags {
    /// How often to look; 100ms to 1h
    #[arg(long, value_name = "INTERVAL", value_parser = humantime::parse_duration, default_value = "1s")]
    every: Duration,
    /// Print one frame of 80 columns as plain text, after one interval, and end
    #[arg(long)]
    once: bool,
}

/// Shows the screen until it is told to end, or the gateway goes.
pub(super) fn top(flags: &TopFlags, gateway: Gateway, out: &mut dyn Write) -> Result<(), Failure> {
    let at_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !flags.once && !at_terminal {
        let message = "top needs a terminal: --once prints one frame, and stats --every a line each interval";
        return Err(Failure::Usage(message.to_owned()));
    }
    let asker = Asker::begin(gateway, flags.every)?;
    let screen = Screen::new(flags.every);
    if flags.once { once(&asker, screen, out) } else { live(&asker, screen) }
}

/// Prints the first frame that has rates.
fn once(asker: &Asker, mut screen: Screen, out: &mut dyn Write) -> Result<(), Failure> {
    loop {
        let reading = asker.next()?;
        let whole = reading.before.is_some();
        screen.take(reading);
        if whole {
            break;
        }
    }
    write!(out, "{}", frame(&screen, ONCE)).map_err(Failure::Output)
}

/// One frame of this many columns and rows as text without escapes, no line ending in spaces.
fn frame(screen: &Screen, (columns, rows): (u16, u16)) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, rows));
    let Ok(_) = terminal.draw(|frame| screen.draw(frame));
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..rows {
        let mut line = String::new();
        let mut skip = 0;
        for x in 0..columns {
            // A wide character has two cells, the second of them empty.
            if skip == 0 {
                let symbol = buffer[(x, y)].symbol();
                line.push_str(symbol);
                skip = ratatui::text::Span::raw(symbol).width().max(1);
            }
            skip -= 1;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// The terminal, taken; given back when this goes, and by ratatui's panic hook.
struct Taken;

impl Drop for Taken {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = ratatui::try_restore();
        let _ = execute!(io::stdout(), cursor::Show);
    }
}

fn live(asker: &Asker, mut screen: Screen) -> Result<(), Failure> {
    let told = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, told.clone()).map_err(Failure::Output)?;
    }
    let _taken = Taken;
    // Not dropped: it would complain on standard error, which is the terminal, and panic where that is gone.
    let mut terminal = ManuallyDrop::new(ratatui::try_init().map_err(Failure::Output)?);
    let mut drawn = false;
    while !told.load(Ordering::Relaxed) {
        if !drawn {
            terminal.draw(|frame| screen.draw(frame)).map_err(Failure::Output)?;
            drawn = true;
        }
        if !wait_for_key() {
            return Ok(());
        }
        // Keys that come together are one change of the screen, and so is another size.
        while event::poll(Duration::ZERO).map_err(Failure::Output)? {
            drawn = false;
            if let Event::Key(key) = event::read().map_err(Failure::Output)?
                && key.kind == KeyEventKind::Press
                && !hear(&mut screen, asker, key)
            {
                return Ok(());
            }
        }
        loop {
            match asker.try_next() {
                Ok(reading) => {
                    drawn &= screen.is_paused();
                    screen.take(reading?);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }
    Ok(())
}

/// Waits for a key, at most `LOOK_EVERY`; false when the terminal is gone. SIGHUP tells that only to the processes of
/// its session, and crossterm would look for keys in a busy loop from then on.
fn wait_for_key() -> bool {
    let stdin = io::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()) };
    let looked = rustix::event::poll(&mut polled, Some(&wait));
    looked.is_err() || !polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}

/// Does what a key asks; false when it asks for the end.
fn hear(screen: &mut Screen, asker: &Asker, key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c' | 'd') if control => return false,
        code if screen.is_typing() => screen.type_filter(code),
        KeyCode::Char('q') => return false,
        KeyCode::Char('s') => asker.sort(screen.next_sort()),
        KeyCode::Char('/') => screen.begin_filter(),
        KeyCode::Char('p') => screen.pause(),
        KeyCode::Char('?' | 'h') => screen.toggle_help(),
        KeyCode::Esc => screen.dismiss(),
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    #[test]
    fn issue_7_q_and_control_c_end_and_while_a_filter_is_typed_q_is_a_letter() {
        let (mut screen, asker) = (Screen::new(Duration::from_secs(1)), Asker::of_nobody());
        assert!(!hear(&mut screen, &asker, key(KeyCode::Char('q'))));
        assert!(hear(&mut screen, &asker, key(KeyCode::Char('/'))));
        assert!(hear(&mut screen, &asker, key(KeyCode::Char('q'))));
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(!hear(&mut screen, &asker, control_c));
        assert!(hear(&mut screen, &asker, key(KeyCode::Enter)));
        assert!(!hear(&mut screen, &asker, key(KeyCode::Char('q'))));
    }
}
