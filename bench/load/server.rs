//! What a run costs the server's process, where it is on this host: read from /proc at the phases' ends.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::report::{Machine, ServerCost};
use crate::{Failure, cpu, failure, memory};

/// The server's process under observation.
pub struct Server {
    pid: u32,
    name: String,
    rss_before: u64,
    pss_before: u64,
    slab_before: Option<u64>,
    cpu_before_ns: u64,
    cost: ServerCost,
}

impl Server {
    /// Reads what it costs before the first connection. Errors: no such process, or not ours to read.
    pub fn watch(pid: u32) -> Result<Self, Failure> {
        let system_pid = Pid::from_u32(pid);
        let mut system = System::new()?;
        let kind = ProcessRefreshKind::nothing();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[system_pid]), true, kind);
        let process = system.process(system_pid);
        let name = process.ok_or_else(|| failure!("--pid {pid}: no such process"))?.name();
        let name = name.to_string_lossy().into_owned();
        let resident = memory::resident(pid)
            .map_err(|error| failure!("--pid {pid}: its memory cannot be read: {error}; try as root"))?;
        Ok(Self {
            pid,
            rss_before: resident.rss,
            pss_before: resident.pss,
            slab_before: slab_bytes(),
            cpu_before_ns: cpu::used_ns(pid)?,
            cost: ServerCost {
                pid,
                name: name.clone(),
                rss_before_bytes: resident.rss,
                ..Default::default()
            },
            name,
        })
    }

    /// Reads it again with all connections open.
    pub fn connections_are_open(&mut self, open: u64) -> Result<(), Failure> {
        let resident = memory::resident(self.pid).map_err(|error| self.gone(&error))?;
        let used_ns = cpu::used_ns(self.pid)?;
        let grown = |now: u64, before: u64| (now as f64 - before as f64) / open.max(1) as f64;
        self.cost.rss_open_bytes = resident.rss;
        self.cost.rss_per_connection = grown(resident.rss, self.rss_before);
        self.cost.pss_per_connection = grown(resident.pss, self.pss_before);
        self.cost.kernel_per_connection =
            self.slab_before.zip(slab_bytes()).map(|(before, now)| grown(now, before));
        self.cost.connect_cpu_s = (used_ns - self.cpu_before_ns) as f64 / 1e9;
        self.cpu_before_ns = used_ns;
        Ok(())
    }

    /// The work begins: CPU counts from here.
    pub fn work_begins(&mut self) -> Result<(), Failure> {
        self.cpu_before_ns = cpu::used_ns(self.pid).map_err(|error| self.gone(&error))?;
        Ok(())
    }

    /// The work has ended after `took_s` seconds and `messages`.
    pub fn work_ends(&mut self, took_s: f64, messages: u64) -> Result<(), Failure> {
        let used_ns = cpu::used_ns(self.pid).map_err(|error| self.gone(&error))? - self.cpu_before_ns;
        self.cost.work_cpu_s = used_ns as f64 / 1e9;
        self.cost.work_cores = self.cost.work_cpu_s / took_s.max(1e-9);
        self.cost.cpu_s_per_million = (messages > 0).then(|| self.cost.work_cpu_s * 1e6 / messages as f64);
        Ok(())
    }

    /// What it has cost so far.
    pub fn cost(&self) -> ServerCost {
        self.cost.clone()
    }

    fn gone(&self, error: &Failure) -> Failure {
        failure!("the server's process {} ({}) can no longer be read: {error}", self.pid, self.name)
    }
}

/// Live objects of the kernel's caches that connections fill; none without the right to read them.
fn slab_bytes() -> Option<u64> {
    memory::slab().ok().map(|slab| slab.live.values().sum())
}

/// The machine that this is.
pub fn machine() -> Result<Machine, Failure> {
    let mut system = System::new()?;
    system.refresh_memory();
    system.refresh_cpu_all();
    let processor = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
    Ok(Machine {
        kernel: System::kernel_version().unwrap_or_default(),
        processor: processor.unwrap_or_default(),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        memory_bytes: system.total_memory(),
    })
}
