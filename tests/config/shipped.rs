//! systemd/corecast.toml says what the code does.

use corecast::config::{AuthMode, Config};
use toml::Table;

const SHIPPED: &str = include_str!("../../systemd/corecast.toml");

/// The one key whose default is to be absent.
const ABSENT: &str = "# mode = \"open\"";

fn keys(table: &Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (name, value) in table {
        match value.as_table() {
            Some(inner) => {
                keys.push(format!("[{name}]"));
                keys.extend(inner.keys().map(|key| format!("{name}.{key}")));
            }
            None => keys.push(name.clone()),
        }
    }
    keys.sort();
    keys
}

#[test]
fn contract_5_the_shipped_file_is_the_defaults() {
    assert_eq!(toml::from_str::<Config>(SHIPPED).unwrap(), Config::default());
}

#[test]
fn contract_5_the_shipped_file_holds_every_key_and_no_other() {
    let shipped: Table = toml::from_str(SHIPPED).unwrap();
    let code: Table = toml::from_str(&Config::default().to_toml()).unwrap();
    assert_eq!(keys(&shipped), keys(&code));
}

#[test]
fn contract_5_the_shipped_file_shows_the_key_that_is_absent_by_default() {
    assert!(SHIPPED.contains(ABSENT));
    let config: Config = toml::from_str(&SHIPPED.replace(ABSENT, &ABSENT[2..])).unwrap();
    assert_eq!(config.auth.mode, Some(AuthMode::Open));
    let mut expected: Table = toml::from_str(&Config::default().to_toml()).unwrap();
    expected["auth"].as_table_mut().unwrap().insert("mode".to_owned(), "open".into());
    let code: Table = toml::from_str(&config.to_toml()).unwrap();
    assert_eq!(keys(&code), keys(&expected));
}

#[test]
fn contract_5_every_key_of_the_shipped_file_has_a_comment() {
    let lines: Vec<&str> = SHIPPED.lines().collect();
    for pair in lines.windows(2) {
        let is_key = !pair[1].is_empty() && !pair[1].starts_with('#');
        assert!(!is_key || pair[0].starts_with("# "), "no comment above {:?}", pair[1]);
    }
}
