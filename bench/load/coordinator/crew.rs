//! The workers as the coordinator sees them: processes it starts, orders to them, news from them.
//!
//! Each thread of each process opens a Unix socket to us; JSON lines go both ways. Dropping the crew ends
//! every process that it has started.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::plan::{News, Order};
use crate::{Failure, failure};

/// How long a process may take to report for duty.
const START: Duration = Duration::from_secs(20);

/// How long they may take to close what they have: 700,000 sockets took User Mode Linux half a minute.
const END: Duration = Duration::from_secs(180);

/// How many workers, and where.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Processes.
    pub processes: u16,
    /// Threads of each: every one is a worker.
    pub threads: u16,
    /// Cores, in turn; empty is unpinned.
    pub pin: Vec<usize>,
}

/// All workers.
pub struct Crew {
    children: Vec<Child>,
    links: Vec<Link>,
    _directory: TempDir,
}

struct Link {
    stream: UnixStream,
    pid: u32,
    input: Vec<u8>,
    ended: bool,
    /// It has said `Done`: its end is no accident.
    done: bool,
}

impl Crew {
    /// Starts `program` as often as `shape` says and waits until every worker has said hello.
    pub fn start(program: &Path, shape: &Shape) -> Result<Self, Failure> {
        let directory = TempDir::with_prefix("corecast-bench-")?;
        let path = directory.path().join("crew.sock");
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        let mut crew = Self { children: Vec::new(), links: Vec::new(), _directory: directory };
        let mut pins = shape.pin.iter().cycle();
        for process in 0..shape.processes {
            let mut command = Command::new(program);
            command.arg("worker").arg(&path);
            command.args(["--first", &(process * shape.threads).to_string()]);
            command.args(["--threads", &shape.threads.to_string()]);
            let cores = pins.by_ref().take(usize::from(shape.threads));
            let cores: Vec<String> = cores.map(usize::to_string).collect();
            if !cores.is_empty() {
                command.args(["--pin", &cores.join(",")]);
            }
            // Out of our process group: Ctrl-C is for us, and the report comes from them.
            let child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            crew.children.push(child.map_err(|error| failure!("{}: {error}", program.display()))?);
        }
        crew.meet(&listener, usize::from(shape.processes * shape.threads))?;
        Ok(crew)
    }

    /// How many workers there are.
    pub fn size(&self) -> u16 {
        self.links.len() as u16
    }

    /// The processes' ids.
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    fn meet(&mut self, listener: &UnixListener, workers: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + START;
        let mut links: Vec<Option<Link>> = (0..workers).map(|_| None).collect();
        while links.iter().any(Option::is_none) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let mut link = Link { stream, pid: 0, input: Vec::new(), ended: false, done: false };
                    link.stream.set_read_timeout(Some(START))?;
                    let hello = loop {
                        match link.line() {
                            Some(line) => break serde_json::from_slice(&line)?,
                            None if link.ended => return Err(failure!("a worker has ended at its start")),
                            None => link.read()?,
                        }
                    };
                    let News::Hello { worker, pid } = hello else {
                        return Err(failure!("a worker begins with {hello:?}"));
                    };
                    link.pid = pid;
                    link.stream.set_nonblocking(true)?;
                    links[usize::from(worker)] = Some(link);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.check_alive()?;
                    if Instant::now() > deadline {
                        return Err(failure!("not all workers are there after {START:?}"));
                    }
                    wait_readable(listener, Duration::from_millis(20))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.links = links.into_iter().flatten().collect();
        Ok(())
    }

    fn check_alive(&mut self) -> Result<(), Failure> {
        for child in &mut self.children {
            if let Some(status) = child.try_wait()? {
                return Err(failure!("a worker process has ended with {status}"));
            }
        }
        Ok(())
    }

    /// Gives one worker an order; does not wait for what comes of it.
    pub fn order(&mut self, worker: u16, order: &Order) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let link = &mut self.links[usize::from(worker)];
        // A worker always reads, however much it has to tell: what it tells waits in its own memory.
        let mut rest = &line[..];
        while !rest.is_empty() {
            match link.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait_for(&link.stream, PollFlags::OUT, Duration::from_secs(1))?;
                }
                Err(error) => return Err(failure!("worker {worker} takes no orders: {error}")),
            }
        }
        Ok(())
    }

    /// Gives all workers the same order.
    pub fn order_all(&mut self, order: &Order) -> Result<(), Failure> {
        (0..self.size()).try_for_each(|worker| self.order(worker, order))
    }

    /// The next piece of news, and whose it is; `None` when there is none in time.
    ///
    /// Errors: a worker has failed, or has ended before it was told to.
    pub fn news(&mut self, within: Duration) -> Result<Option<(u16, News)>, Failure> {
        let deadline = Instant::now() + within;
        loop {
            for worker in 0..self.links.len() {
                if let Some(line) = self.links[worker].line() {
                    let news = serde_json::from_slice(&line)?;
                    match &news {
                        News::Failed { why } => return Err(failure!("worker {worker}: {why}")),
                        News::Done => self.links[worker].done = true,
                        _ => {}
                    }
                    return Ok(Some((worker as u16, news)));
                }
                if self.links[worker].ended && !self.links[worker].done {
                    let pid = self.links[worker].pid;
                    return Err(failure!("worker {worker} (process {pid}) has ended before its time"));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.wait(left)? && left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// Waits for readable links and reads them; false when there were none.
    fn wait(&mut self, within: Duration) -> Result<bool, Failure> {
        let open: Vec<usize> = (0..self.links.len()).filter(|&link| !self.links[link].ended).collect();
        let mut ready: Vec<PollFd<'_>> =
            open.iter().map(|&link| PollFd::new(&self.links[link].stream, PollFlags::IN)).collect();
        poll(&mut ready, within)?;
        let ready: Vec<usize> = open
            .iter()
            .zip(&ready)
            .filter(|(_, poll)| !poll.revents().is_empty())
            .map(|(&link, _)| link)
            .collect();
        for &link in &ready {
            self.links[link].read()?;
        }
        Ok(!ready.is_empty())
    }

    /// Ends all processes and waits until they have.
    pub fn stop(mut self) -> Result<(), Failure> {
        // Without its coordinator a worker ends.
        self.links.clear();
        let deadline = Instant::now() + END;
        for child in &mut self.children {
            while child.try_wait()?.is_none() {
                if Instant::now() > deadline {
                    return Err(failure!("a worker process does not end"));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Link {
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = memchr::memchr(b'\n', &self.input)?;
        Some(self.input.drain(..=end).collect())
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(read) => self.input.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The worker has gone with something unread in its socket.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.ended = true,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Waits; a signal may end the wait early, and its handler has done the rest.
fn poll(polls: &mut [PollFd<'_>], within: Duration) -> Result<(), Failure> {
    let within = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: i64::from(within.subsec_nanos()) };
    match rustix::event::poll(polls, Some(&within)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn wait_readable(listener: &UnixListener, within: Duration) -> Result<(), Failure> {
    poll(&mut [PollFd::new(listener, PollFlags::IN)], within)
}

fn wait_for(stream: &UnixStream, flags: PollFlags, within: Duration) -> Result<(), Failure> {
    poll(&mut [PollFd::new(stream, flags)], within)
}
