//! Another configuration while the gateway runs: to the shards by letter, and to control itself.

use std::sync::Arc;

use super::inquiries::Waiter;
use super::peer::PeerLimits;
use super::{Control, http};
use crate::config::Config;
use crate::shard::mailbox::Request;
use crate::wire::request::HeadLimits;

/// Longest body on the admin listener.
const ADMIN_BODY_BYTES_MAX: usize = 1 << 20;

/// What a reload has come to, from the signal thread, which reads the file.
#[derive(Debug)]
pub enum Reload {
    /// Reading begins; one of the others follows.
    Begins,
    /// A good configuration.
    Good {
        /// It.
        config: Arc<Config>,
        /// The same for the shards: `Request::Adopt`.
        adopt: Request,
    },
    /// A bad one: the old one stays.
    Bad {
        /// What is wrong, in one line.
        why: String,
    },
}

/// Reloads so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reloads {
    /// Taken over.
    pub taken: u64,
    /// Refused.
    pub refused: u64,
}

/// Limits of a client of the control socket that connects under `config`.
pub(super) fn peer_limits(config: &Config) -> PeerLimits {
    let (control, limits) = (&config.control, &config.limits);
    let head = HeadLimits {
        head_bytes_max: limits.head_bytes.bytes(),
        header_lines_max: limits.header_lines as usize,
        target_bytes_max: limits.target_bytes.bytes(),
    };
    PeerLimits {
        http: http::Limits { head, body_bytes_max: control.body_bytes.bytes() },
        reply_bytes_max: control.reply_bytes.bytes(),
        request_timeout: control.request_timeout,
    }
}

/// The same for a client of the admin listener: a body is read before it is known whether it may be sent.
pub(super) fn admin_limits(limits: PeerLimits) -> PeerLimits {
    let body_bytes_max = limits.http.body_bytes_max.min(ADMIN_BODY_BYTES_MAX);
    PeerLimits { http: http::Limits { body_bytes_max, ..limits.http }, ..limits }
}

impl Control {
    pub(super) fn take_reload(&mut self, reload: Reload) {
        match reload {
            Reload::Begins => {
                if let Some(supervision) = &mut self.supervision {
                    supervision.begin_reload();
                }
            }
            Reload::Good { config, adopt } => {
                if self.adopting.replace((config, adopt)).is_some() {
                    // The shards have not been asked yet, and the newer one is all that counts.
                    self.end_reload(None);
                }
            }
            Reload::Bad { why } => {
                self.desk.reloads.refused += 1;
                self.end_reload(Some(why));
            }
        }
    }

    /// Takes over what waits, as soon as every shard has room for the letter: what is pushed from then on is
    /// judged by the new limits everywhere.
    pub(super) fn adopt(&mut self) {
        let Some((config, adopt)) = self.adopting.take() else { return };
        if self.desk.sequencer.ask_all(adopt.clone(), Waiter::Reload).is_err() {
            self.adopting = Some((config, adopt));
            return;
        }
        self.limits = peer_limits(&config);
        self.socket.allow(&config.control);
        self.desk.sequencer.limit_messages(config.limits.message_bytes.bytes());
        self.desk.log_levels.rebase(&config.log.level);
        self.desk.gatekeeper.adopt(&config.admin);
        self.desk.config = config;
    }

    /// All shards have taken it over.
    pub(super) fn adopted(&mut self) {
        self.desk.reloads.taken += 1;
        self.end_reload(None);
    }

    fn end_reload(&mut self, refused: Option<String>) {
        if let Some(supervision) = &mut self.supervision {
            supervision.end_reload(refused);
        }
    }
}
