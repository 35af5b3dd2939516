//! Each bound reached and just missed.

use super::load_path;

/// What is accepted, and what is refused with this part of a message.
fn bound(key: &str, accepted: &[&str], refused: &[&str]) {
    bound_beside(&[], key, accepted, refused);
}

fn bound_beside(others: &[&str], key: &str, accepted: &[&str], refused: &[&str]) {
    let load = |value: &str| {
        let assignment = format!("{key}={value}");
        let set: Vec<&str> = others.iter().copied().chain([assignment.as_str()]).collect();
        load_path(None, &[], &set)
    };
    for value in accepted {
        if let Err(error) = load(value) {
            panic!("{key}={value}: {error}");
        }
    }
    for value in refused {
        let message = load(value).expect_err(value).to_string();
        assert!(message.contains(&format!("command line: {key}: ")), "{message}");
    }
}

#[test]
fn listen_names_at_least_one_address_and_none_twice() {
    bound(
        "listen",
        &["127.0.0.1:1", "127.0.0.1:1,127.0.0.2:1", "127.0.0.1:0,127.0.0.1:0"],
        &["", "127.0.0.1:1,127.0.0.1:1"],
    );
}

#[test]
fn issue_6_networks_are_cidr_or_addresses_and_at_most_65536() {
    let good = ["", "10.0.0.0/8", "10.1.2.3/8", "192.0.2.1", "2001:db8::1,fd00::/8", "0.0.0.0/0,::/0"];
    let bad = ["10.0.0.0/33", "10.0.0", "example.org", "::1/129", "10.0.0.0/8;::1", "fe80::1%eth0"];
    for key in ["limits.trusted", "network.trusted_proxies", "network.allow", "network.deny"] {
        bound(key, &good, &bad);
    }
    let many = |count| vec!["::1"; count].join(",");
    bound("network.deny", &[&many(65_536)], &[&many(65_537)]);
}

#[test]
fn issue_6_only_an_address_of_listen_speaks_the_proxy_protocol_and_only_to_trusted_proxies() {
    let beside = ["listen=127.0.0.1:1,127.0.0.2:1", "network.trusted_proxies=10.0.0.1"];
    let good = ["", "127.0.0.2:1", "127.0.0.1:1,127.0.0.2:1"];
    bound_beside(&beside, "network.proxy_protocol", &good, &["127.0.0.1:2", "127.0.0.1"]);
    bound_beside(&beside[..1], "network.proxy_protocol", &[""], &["127.0.0.2:1"]);
}

#[test]
fn issue_7_the_admin_listener_has_an_address_of_its_own() {
    bound(
        "admin.listen",
        &["", "127.0.0.1:0", "[::1]:9090"],
        &["localhost:9090", "127.0.0.1", "127.0.0.1:8080"],
    );
    bound("admin.clients", &["1", "1024"], &["0", "1025"]);
}

#[test]
fn issue_7_the_admin_token_is_a_bearer_token_or_in_a_file_of_absolute_path() {
    let good = ["", "0123456789abcdef", "Zm9vYmFyYmF6cXV4Zm9v+/=="];
    bound("admin.token", &good, &["0123456789abcde", "0123456789 abcdef", "<hidden>", &"x".repeat(513)]);
    bound("admin.token_file", &["", "/run/secrets/token"], &["token"]);
    bound_beside(&["admin.token=0123456789abcdef"], "admin.token_file", &[""], &["/run/secrets/token"]);
}

#[test]
fn shards_are_at_most_1024() {
    bound("shards", &["0", "1", "1024"], &["1025"]);
}

#[test]
fn the_socket_path_is_at_most_107_bytes() {
    let path = |length: usize| format!("/{}", "x".repeat(length - 1));
    bound("control.socket", &[&path(107)], &[&path(108), "/a\0b"]);
}

#[test]
fn messages_hold_at_least_a_byte_and_at_most_1_gib() {
    bound_beside(
        &["limits.send_backlog_bytes=1GiB"],
        "limits.message_bytes",
        &["1", "1GiB"],
        &["0", "1073741825"],
    );
}

#[test]
fn the_send_backlog_holds_at_least_one_message() {
    bound("limits.send_backlog_bytes", &["64KiB", "1GiB"], &["65535", "1073741825"]);
}

#[test]
fn origins_are_written_as_browsers_send_them() {
    let good = [
        "",
        "https://example.org",
        "http://localhost:3000",
        "http://127.0.0.1:8080,https://a-b.example",
        "http://[::1]:5173",
        "https://[2001:db8::1]",
        "chrome-extension://abcdefghijklmnop",
        "https://xn--bcher-kva.example:8443",
    ];
    let bad = [
        "*",
        "null",
        "example.org",
        "https://",
        "://example.org",
        "https://example.org/",
        "https://example.org/path",
        "https://Example.org",
        "HTTPS://example.org",
        "https://example.org:443",
        "http://example.org:80",
        "https://example.org:",
        "https://example.org:0",
        "https://example.org:065",
        "https://example.org:65536",
        "https://a:b:1",
        "https://user@example.org",
        "https://b\u{fc}cher.example",
        "https://*.example.org",
        "https://ok.example,https://bad.example/",
    ];
    bound("web.origins", &good, &bad);
    let many = |count: usize| (0..count).map(|n| format!("https://o{n}")).collect::<Vec<_>>().join(",");
    bound("web.origins", &[&many(1024)], &[&many(1025)]);
}

#[test]
fn buffers_and_heads_have_sane_sizes() {
    bound("limits.head_bytes", &["64", "1MiB"], &["63", "1048577"]);
    bound("limits.target_bytes", &["1", "1MiB"], &["0", "1048577"]);
    bound("limits.socket_send_bytes", &["4KiB", "1073741823"], &["4095", "1GiB"]);
    bound("limits.poll_bytes", &["1", "1GiB"], &["0", "1073741825"]);
    bound("control.reply_bytes", &["1", "1GiB"], &["0", "1073741825"]);
    bound("control.body_bytes", &["1", "1GiB"], &["0", "1073741825"]);
    bound("control.mailbox_bytes", &["1", "8GiB"], &["0"]);
    bound("history.bytes", &["1", "8GiB"], &["0"]);
}

#[test]
fn counts_are_at_least_one() {
    bound("control.clients", &["1", "65536"], &["0", "65537"]);
    bound("control.mailbox_messages", &["1", "16777216"], &["0", "16777217"]);
    bound("limits.header_lines", &["1", "1024"], &["0", "1025"]);
    bound("limits.fragments", &["1"], &["0"]);
    bound("limits.topics_per_connection", &["1", "65535"], &["0", "65536"]);
    bound("history.messages", &["1"], &["0"]);
}

#[test]
fn counts_where_0_means_no_limit_take_0() {
    for key in [
        "connections",
        "connections_per_address",
        "connects_per_address",
        "connects_per_second",
        "uplinks_per_second",
    ] {
        bound(&format!("limits.{key}"), &["0", "1", "4294967295"], &["4294967296", "-1"]);
    }
}

#[test]
fn durations_are_1_ms_to_7_days() {
    for key in [
        "control.request_timeout",
        "timeouts.handshake",
        "timeouts.message",
        "timeouts.send",
        "timeouts.close",
        "timeouts.pong",
        "timeouts.drain",
        "history.age",
    ] {
        bound(key, &["1ms", "7days"], &["0s", "999us", "604801s"]);
    }
}

#[test]
fn heartbeats_are_whole_seconds_in_16_bits() {
    let wide = ["timeouts.heartbeat_min=1s", "timeouts.heartbeat_max=65535s"];
    bound_beside(&wide, "timeouts.heartbeat", &["1s", "65535s"], &["0s", "65536s", "1500ms"]);
    bound("timeouts.heartbeat_min", &["1s"], &["0s", "500ms"]);
    bound("timeouts.heartbeat_max", &["65535s"], &["65536s"]);
}

#[test]
fn heartbeat_bounds_are_in_order() {
    bound("timeouts.heartbeat", &["10s", "600s"], &["9s", "601s"]);
    bound_beside(&["timeouts.heartbeat=600s"], "timeouts.heartbeat_min", &["600s"], &["601s"]);
}

#[test]
fn the_log_level_is_a_filter_and_no_typing_error() {
    bound(
        "log.level",
        &["info", "OFF", "corecast::shard=debug,info", "warn,corecast=trace"],
        &["", "inof", "corecast", "warn, info", "info,", "=debug", "corecast=loud", "info,corecast::shard"],
    );
}

#[test]
fn a_key_is_an_algorithm_perhaps_a_kid_and_an_absolute_path() {
    let good = ["", "ES256:/a", "EdDSA:2026-11:/a.pem", "HS256:a:b:/c:/d", "RS256:/a,jwks:/b"];
    let bad =
        ["/a", "ES256", "ES256:", "ES256:a", "es256:/a", "ES384:/a", "none:/a", "jwks:kid:/a", "ES256::/a"];
    for keys in good {
        let config = load_path(None, &[], &[&format!("auth.keys={keys}")]).unwrap();
        let shown: Vec<String> = config.auth.keys.iter().map(ToString::to_string).collect();
        assert_eq!(shown.join(","), keys);
    }
    for key in bad {
        let message = load_path(None, &[], &[&format!("auth.keys={key}")]).unwrap_err().to_string();
        assert!(
            message.contains("command line: auth.keys: ") && message.contains("is not a key such as"),
            "{message}"
        );
    }
}

#[test]
fn auth_mode_jwt_needs_a_key() {
    bound_beside(&["auth.mode=jwt"], "auth.keys", &["ES256:/a"], &[""]);
    bound("auth.keys", &[""], &[]);
}

#[test]
fn the_leeway_is_small_and_a_ticket_short_lived() {
    bound("auth.leeway", &["0s", "300s"], &["301s"]);
    bound("auth.ticket_ttl", &["1ms", "3600s"], &["0s", "3601s"]);
    bound("auth.tickets", &["1", "16777216"], &["0", "16777217"]);
}
