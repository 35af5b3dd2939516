//! Who is behind: the first of the list of connections, in the order that is chosen.

use crate::cli::Gateway;
use crate::cli::failure::Failure;
use crate::connections::{Query, Row, Sort};
use crate::control::command::{Answer, Command};

/// Those asked for: more than any terminal has rows.
const CONSUMERS_MAX: u32 = 100;
/// The orders of the screen, round and round; the first one is where it begins.
pub(super) const SORTS: [Sort; 3] = [Sort::Lag, Sort::Idle, Sort::Age];

/// The list, or why there is none.
#[derive(Clone, Debug)]
pub(super) enum Consumers {
    /// In the order that was asked for.
    Listed(Vec<Row>),
    /// In a few words.
    Unknown(String),
}

/// Asks for the first in this order.
pub(super) fn ask(gateway: &Gateway, sort: Sort) -> Consumers {
    let query = Query { sort, limit: Some(CONSUMERS_MAX), ..Query::default() };
    match gateway.ask(&Command::Connections(query)) {
        Ok(Answer::Connections(listing)) => Consumers::Listed(listing.connections),
        Ok(_) => Consumers::Unknown("the gateway gave an answer to something else".to_owned()),
        Err(Failure::Refused(refused)) => Consumers::Unknown(format!("refused: {}", refused.message)),
        // What has ended ends the screen at the next reading, with its reason.
        Err(_) => Consumers::Unknown("the gateway does not answer".to_owned()),
    }
}
