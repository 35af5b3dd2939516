//! The configuration's file, and assignments as `--set` takes them: what is accepted prints as a file that is
//! accepted and prints the same, and a refusal is text that no terminal takes for a command (contract section 5).
//!
//! The input is a file to its first NUL; an assignment follows each.

use std::fs;

use corecast::config::{ConfigError, assign, load};
use toml::Table;

/// See the top of this file.
pub fn check(input: &[u8]) {
    let mut parts = input.split(|&octet| octet == 0);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), parts.next().unwrap_or_default()).expect("room for it");
    let mut overrides = Table::new();
    for part in parts {
        if let Err(refused) = assign(&mut overrides, &String::from_utf8_lossy(part)) {
            is_printable(&refused);
        }
    }
    let config = match load(Some(file.path()), std::iter::empty(), overrides) {
        Ok(config) => config,
        Err(refused) => return is_printable(&refused),
    };
    let printed = config.to_toml();
    fs::write(file.path(), &printed).expect("room for it");
    match load(Some(file.path()), std::iter::empty(), Table::new()) {
        Ok(config) => assert_eq!(config.to_toml(), printed),
        Err(refused) => panic!("what was accepted is refused: {refused}\n{printed}"),
    }
}

fn is_printable(refused: &ConfigError) {
    let text = refused.to_string();
    let control = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "{text:?}");
}
