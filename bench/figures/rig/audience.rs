//! A gateway with subscribers, and the broadcasts to all of them.

use std::time::Duration;

use bytes::Bytes;
use corecast::client::Client;
use corecast::message::{Name, Target};

use super::process::{Gateway, Settings};
use super::pusher::{name, push};
use super::receiver::{Receiver, Role, TOPIC};
use super::{Outcome, PAYLOAD_BYTES};
use crate::failure;

const RECEIVER_CORE: usize = 1;
/// Longest wait for one broadcast.
const ARRIVAL: Duration = Duration::from_secs(60);

/// One shard, and one receiver with all subscribers of `TOPIC`.
pub struct Audience {
    pub gateway: Gateway,
    pub receiver: Receiver,
    pub client: Client,
    pub topic: Name,
    pub payload: Bytes,
    pub subscribers: u32,
    /// Deliveries that were due so far.
    pub messages: u64,
}

impl Audience {
    /// Starts it with as many subscribers of each role.
    pub fn start(subscribers: u32, roles: &[Role]) -> Outcome<Self> {
        let gateway = Gateway::start(Settings { shards: 1, heartbeat_s: 600 })?;
        let mut receiver = Receiver::start(RECEIVER_CORE)?;
        for role in roles {
            receiver.connect(gateway.address, subscribers / roles.len() as u32, role)?;
        }
        let client = gateway.client()?;
        let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
        Ok(Self { gateway, receiver, client, topic: name(TOPIC)?, payload, subscribers, messages: 0 })
    }

    /// One broadcast, received by all when this returns.
    pub fn broadcast(&mut self) -> Outcome<()> {
        self.messages += u64::from(self.subscribers);
        self.receiver.expect(self.messages)?;
        let broadcast = push(Target::Topic(self.topic.clone()), &self.payload);
        let pushed = self.client.push(broadcast).map_err(|error| failure!("{error:?}"))?;
        if pushed.connections != u64::from(self.subscribers) {
            return Err(failure!("a broadcast was handed to {} connections", pushed.connections));
        }
        self.receiver.received(ARRIVAL)?;
        Ok(())
    }

    /// Ends both.
    pub fn stop(self) -> Outcome<()> {
        self.receiver.stop()?;
        self.gateway.stop()
    }
}
