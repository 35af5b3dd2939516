//! The configuration: where values come from, what is refused and who is blamed (contract section 5).

mod bounds;
mod keys;
mod reload;
mod shipped;

use std::path::{Path, PathBuf};
use std::time::Duration;

use corecast::config::{self, AuthMode, ByteSize, Config, ConfigError, LogFormat};
use tempfile::TempDir;
use toml::Table;

/// A file with this text, gone with the directory.
fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("corecast.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

fn load(text: &str, env: &[(&str, &str)], set: &[&str]) -> Result<Config, ConfigError> {
    let (_directory, path) = file(text);
    load_path(Some(&path), env, set)
}

fn load_path(path: Option<&Path>, env: &[(&str, &str)], set: &[&str]) -> Result<Config, ConfigError> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut overrides = Table::new();
    for assignment in set {
        config::assign(&mut overrides, assignment)?;
    }
    config::load(path, env, overrides)
}

fn refusal(text: &str, env: &[(&str, &str)], set: &[&str]) -> String {
    load(text, env, set).expect_err("must be refused").to_string()
}

#[test]
fn contract_5_without_any_source_everything_is_at_its_default() {
    assert_eq!(load_path(None, &[("PATH", "/bin"), ("HOME", "/root")], &[]).unwrap(), Config::default());
    assert_eq!(load("", &[], &[]).unwrap(), Config::default());
}

#[test]
fn contract_5_flags_beat_variables_beat_the_file_key_by_key() {
    let text = "[limits]\nmessage_bytes = \"1KiB\"\nfragments = 1\nheader_lines = 1\n";
    let env = [("CORECAST_LIMITS_FRAGMENTS", "2"), ("CORECAST_LIMITS_HEADER_LINES", "2")];
    let limits = load(text, &env, &["limits.header_lines=3"]).unwrap().limits;
    assert_eq!((limits.message_bytes, limits.fragments, limits.header_lines), (ByteSize(1024), 2, 3));
}

#[test]
fn contract_5_every_type_of_key_can_be_set_by_variable_and_by_flag() {
    let pairs = [
        ("listen", "127.0.0.1:1, [::1]:2"),
        ("shards", "3"),
        ("limits.message_bytes", "2KiB"),
        ("limits.trusted", "10.0.0.0/8,fd00::/8"),
        ("network.deny", "192.0.2.7, 2001:db8::1, 198.51.100.0/24"),
        ("control.allow_uids", "0,1000"),
        ("timeouts.pong", "500ms"),
        ("web.echo", "true"),
        ("auth.mode", "open"),
        ("log.format", "json"),
    ];
    let env: Vec<(String, &str)> = pairs
        .iter()
        .map(|(key, value)| (format!("CORECAST_{}", key.replace('.', "_").to_uppercase()), *value))
        .collect();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let set: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    for config in [load_path(None, &env, &[]).unwrap(), load_path(None, &[], &set).unwrap()] {
        assert_eq!(config.listen, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
        assert_eq!(config.shards, 3);
        assert_eq!(config.limits.message_bytes, ByteSize(2048));
        assert_eq!(config.limits.trusted.len(), 2);
        let denied: Vec<String> = config.network.deny.iter().map(ToString::to_string).collect();
        assert_eq!(denied, ["192.0.2.7/32", "2001:db8::1/128", "198.51.100.0/24"]);
        assert_eq!(config.control.allow_uids, [0, 1000]);
        assert_eq!(config.timeouts.pong, Duration::from_millis(500));
        assert!(config.web.echo);
        assert_eq!(config.auth.mode, Some(AuthMode::Open));
        assert_eq!(config.log.format, LogFormat::Json);
    }
}

#[test]
fn contract_5_a_list_set_empty_is_empty() {
    let text = "[control]\nallow_uids = [1, 2]\n";
    assert!(load(text, &[("CORECAST_CONTROL_ALLOW_UIDS", "")], &[]).unwrap().control.allow_uids.is_empty());
}

#[test]
fn contract_3_corecast_socket_is_control_socket() {
    for name in ["CORECAST_SOCKET", "CORECAST_CONTROL_SOCKET"] {
        let config = load_path(None, &[(name, "/tmp/x.sock")], &[]).unwrap();
        assert_eq!(config.control.socket, Path::new("/tmp/x.sock"));
    }
    let both = [("CORECAST_SOCKET", "/a"), ("CORECAST_CONTROL_SOCKET", "/b")];
    let text = refusal("", &both, &[]);
    assert!(
        text.contains("CORECAST_CONTROL_SOCKET: control.socket: is set by CORECAST_SOCKET too"),
        "{text}"
    );
}

#[test]
fn contract_5_corecast_config_names_the_file_unless_a_flag_does() {
    let (_one, by_variable) = file("shards = 1\n");
    let (_two, by_flag) = file("shards = 2\n");
    let env = [("CORECAST_CONFIG", by_variable.to_str().unwrap())];
    assert_eq!(load_path(None, &env, &[]).unwrap().shards, 1);
    assert_eq!(load_path(Some(&by_flag), &env, &[]).unwrap().shards, 2);
    assert_eq!(load_path(None, &[("CORECAST_CONFIG", "")], &[]).unwrap(), Config::default());
}

#[test]
fn contract_5_an_unknown_key_is_refused_by_name_with_file_and_line() {
    let (_directory, path) = file("shards = 1\n\n[limits]\n# a comment\nmesage_bytes = \"1KiB\"\n");
    let text = load_path(Some(&path), &[], &[]).unwrap_err().to_string();
    let blamed = format!("{} line 5: limits.mesage_bytes: unknown key `mesage_bytes`", path.display());
    assert!(text.starts_with(&blamed), "{text}");
    assert!(text.contains("`message_bytes`"), "{text}");
}

#[test]
fn contract_5_an_unknown_section_dotted_or_inline_key_is_refused_by_name_with_its_line() {
    for (text, blamed) in [
        ("shards = 1\n[limit]\nfragments = 1\n", "line 2: limit: unknown key"),
        ("limits.fragment = 1\n", "line 1: limits.fragment: unknown key"),
        ("\nlimits = { fragment = 1 }\n", "line 2: limits.fragment: unknown key"),
        ("[admin]\nport = 1\n", "line 2: admin.port: unknown key"),
    ] {
        let message = refusal(text, &[], &[]);
        assert!(message.contains(blamed), "{message}");
    }
}

#[test]
fn contract_5_a_wrong_type_or_value_is_refused_with_key_and_line() {
    for (line, part) in [
        ("limits.message_bytes = \"64KB\"", "limits.message_bytes: \"64KB\" is not a size: the unit must be"),
        ("limits.message_bytes = -1", "limits.message_bytes: -1 bytes is below 0"),
        (
            "limits.message_bytes = true",
            "limits.message_bytes: invalid type: boolean `true`, expected a size",
        ),
        (
            "timeouts.send = 10",
            "timeouts.send: invalid type: integer `10`, expected a duration with its unit",
        ),
        ("timeouts.send = \"10\"", "timeouts.send: \"10\" is not a duration"),
        ("shards = 70000", "shards: invalid value: integer `70000`"),
        ("listen = [\"localhost\"]", "listen: \"localhost\" is not an address with its port such as"),
        ("admin.listen = \":9090\"", "admin.listen: \":9090\" is not an address with its port such as"),
        (
            "network.proxy_protocol = [\"::\"]",
            "network.proxy_protocol: \"::\" is not an address with its port",
        ),
        ("auth.mode = \"closed\"", "auth.mode: unknown variant `closed`"),
    ] {
        let message = refusal(&format!("\n\n{line}\n"), &[], &[]);
        assert!(message.contains("corecast.toml line 3: "), "{message}");
        assert!(message.contains(part), "{line}: {message}");
    }
}

#[test]
fn contract_5_what_is_not_toml_is_refused_with_its_line() {
    for (text, line) in
        [("shards = 1\nlisten = [\n", "line "), ("a\n", "line 1"), ("shards = 1\nshards = 2\n", "line 2")]
    {
        let message = refusal(text, &[], &[]);
        assert!(message.contains(&format!("corecast.toml {line}")), "{message}");
    }
}

#[test]
fn contract_5_a_file_that_cannot_be_read_is_refused_by_path() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.toml");
    for path in [missing.as_path(), directory.path(), Path::new("/dev/zero")] {
        let error = load_path(Some(path), &[], &[]).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn contract_5_an_unknown_variable_is_refused_by_name_and_a_foreign_one_ignored() {
    let error = load_path(None, &[("CORECAST_LIMITS_MESAGE_BYTES", "1")], &[]).unwrap_err();
    assert!(
        matches!(&error, ConfigError::UnknownVariable { name } if name == "CORECAST_LIMITS_MESAGE_BYTES")
    );
    assert!(load_path(None, &[("CORECASTLE", "1"), ("corecast_shards", "x")], &[]).is_ok());
}

#[test]
fn what_kubernetes_sets_for_a_service_of_our_name_is_no_key() {
    let of_services = [
        ("CORECAST_SERVICE_HOST", "10.96.0.7"),
        ("CORECAST_SERVICE_PORT", "8080"),
        ("CORECAST_SERVICE_PORT_WEB", "8080"),
        ("CORECAST_PORT", "tcp://10.96.0.7:8080"),
        ("CORECAST_PORT_8080_TCP", "tcp://10.96.0.7:8080"),
        ("CORECAST_PORT_8080_TCP_PROTO", "tcp"),
        ("CORECAST_STAGING_PORT_8080_UDP_ADDR", "10.96.0.7"),
    ];
    assert!(load_path(None, &of_services, &[]).is_ok());
    for name in ["CORECAST_PORTS", "CORECAST_PORT_TCP", "CORECAST_SERVICE", "CORECAST_PORT_X_TCP"] {
        let error = load_path(None, &[(name, "1")], &[]).unwrap_err();
        assert!(
            matches!(&error, ConfigError::UnknownVariable { name: refused } if refused == name),
            "{error}"
        );
    }
}

#[test]
fn contract_5_a_bad_variable_or_flag_is_blamed_by_name() {
    let message = refusal("", &[("CORECAST_LIMITS_FRAGMENTS", "many")], &[]);
    assert!(
        message.starts_with("CORECAST_LIMITS_FRAGMENTS: limits.fragments: invalid type: string \"many\""),
        "{message}"
    );
    let message = refusal("", &[], &["limits.fragments=-1"]);
    assert!(message.starts_with("command line: limits.fragments: invalid value: integer `-1`"), "{message}");
    assert!(refusal("", &[], &["limits.fragment=1"]).contains("limits.fragment: unknown key"));
    assert!(refusal("", &[], &["limits=1"]).contains("limits: unknown key"));
    assert!(refusal("", &[], &["limits.fragments"]).contains("must be section.key=value"));
}

#[test]
fn contract_5_a_bound_is_blamed_on_whoever_set_the_key() {
    let message = refusal("shards = 1025\n", &[], &[]);
    assert!(message.contains("corecast.toml line 1: shards: is 1025, must be 0 to 1024"), "{message}");
    let message = refusal("shards = 1\n", &[("CORECAST_SHARDS", "1025")], &[]);
    assert!(message.starts_with("CORECAST_SHARDS: shards: "), "{message}");
    let message = refusal("limits.message_bytes = \"2MiB\"\n", &[], &[]);
    assert!(
        message.starts_with("default: limits.send_backlog_bytes: is 1MiB, must be at least"),
        "{message}"
    );
}

#[test]
fn contract_5_mode_open_off_loopback_is_refused_unless_the_file_names_it() {
    let public = "listen = [\"127.0.0.1:1\", \"0.0.0.0:8080\"]\n";
    let variable = [("CORECAST_AUTH_MODE", "open")];
    for (env, set) in [(&[][..], &[][..]), (&variable[..], &[][..]), (&[][..], &["auth.mode=open"][..])] {
        let error = load(public, env, set).unwrap_err();
        assert!(matches!(error, ConfigError::OpenListener { .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.contains("0.0.0.0:8080") && message.contains("[auth]\n    mode = \"open\""),
            "{message}"
        );
    }
    assert!(load(&format!("{public}[auth]\nmode = \"open\"\n"), &[], &[]).is_ok());
    // Named by the file, listened on by a flag: the operator of the file has said so.
    assert!(load("auth.mode = \"open\"\n", &[], &["listen=[::]:8080"]).is_ok());
}

#[test]
fn contract_5_every_form_of_loopback_is_loopback() {
    for listen in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(load_path(None, &[("CORECAST_LISTEN", listen)], &[]).is_ok(), "{listen}");
    }
    for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
        assert!(load_path(None, &[("CORECAST_LISTEN", listen)], &[]).is_err(), "{listen}");
    }
}

#[test]
fn contract_4_what_config_prints_is_read_back_as_the_same() {
    let changed = [
        "listen=[::1]:9,127.0.0.1:0",
        "limits.message_bytes=1000",
        "limits.trusted=10.0.0.0/8",
        "timeouts.send=90s",
        "timeouts.pong=1500ms",
        "control.socket=/tmp/a \"b\".sock",
        "auth.mode=open",
        "log.level=corecast::shard=debug,info",
    ];
    for config in [Config::default(), load_path(None, &[], &changed).unwrap()] {
        assert_eq!(load(&config.to_toml(), &[], &[]).unwrap(), config);
    }
}

#[test]
fn a_message_holds_no_terminal_controls() {
    let message = refusal("\"\\u001b[31m\" = 1\n", &[], &[]);
    assert!(!message.contains('\u{1b}'), "{message:?}");
}
