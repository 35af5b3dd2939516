//! `corecast-bench`: a load generator for push gateways, ours and others'.
//!
//! ```text
//!  arguments ──► coordinator ── Order ──► worker   (one thread, one epoll, thousands of connections)
//!                │    ▲  └── publisher    │  worker
//!                │    └────── News ◄──────┘  worker   ... in as many processes as are needed
//!                ▼
//!              report ──► table, --json, --html, compare
//! ```
//!
//! | room | does |
//! |---|---|
//! | `arguments` | the command line |
//! | `plan` | the words between coordinator and workers |
//! | `coordinator` | starts workers, runs the phases, publishes, adds up |
//! | `worker` | the connections: no task and no buffer for one that waits |
//! | `wire` | protocols from the client's side, without I/O |
//! | `request` | what is sent: templates, variables, targets, cURL; and what a response must be |
//! | `record` | counters, outcomes, distributions |
//! | `report` | what is printed and written |
//! | `server` | what the run costs the server's process |

mod arguments;
mod plan;
mod record;
mod report;
mod request;
mod wire;

fn main() {}
