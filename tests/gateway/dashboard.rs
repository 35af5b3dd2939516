//! The dashboard (issue 7), driven and photographed in Chromium as an operator would: the pictures lie in
//! target/tmp, dashboard-*.png.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::admin::start;
use crate::harness::browser::Browser;
use crate::harness::{Gateway, eventually};

const TOKEN: &str = "a-token-of-32-characters-for-test";

/// The page, with what an operator does to it.
struct Dashboard(Browser);

impl Dashboard {
    #[track_caller]
    fn open(address: SocketAddr) -> Self {
        let browser = Browser::open(&format!("http://{address}/"));
        // The script asks while the page loads: beyond loopback the 401 to that is one, early or late.
        let refused =
            browser.complaints.iter().find(|complaint| complaint.contains("Content Security Policy"));
        assert_eq!(refused, None, "a script that was refused: the hash is in control/dashboard.rs");
        Self(browser)
    }

    #[track_caller]
    fn reaches(&mut self, state: &str) {
        self.0.until(&format!("field('state').dataset.state === {state:?}"));
    }

    /// Waits until a tile shows this.
    #[track_caller]
    fn tile(&mut self, name: &str, shows: &str) {
        self.0.until(&format!("document.querySelector('[data-tile={name}]').textContent === {shows:?}"));
    }

    #[track_caller]
    fn use_token(&mut self, token: &str) {
        self.0.run(&format!("field('auth').token.value = {token:?}; field('auth').requestSubmit()"));
    }

    /// The question that is asked.
    #[track_caller]
    fn question(&mut self) -> String {
        let asked = self.0.until("field('confirm').open && field('confirm').innerText");
        asked.as_str().unwrap().to_owned()
    }

    /// Answers it, and gives it.
    #[track_caller]
    fn answer(&mut self, yes: bool) -> String {
        let asked = self.question();
        self.0.run(if yes { "field('confirm-yes').click()" } else { "field('confirm-no').click()" });
        asked
    }

    /// Waits until the line of this id says something, and gives it.
    #[track_caller]
    fn said(&mut self, id: &str) -> String {
        self.0.until(&format!("field({id:?}).textContent")).as_str().unwrap().to_owned()
    }
}

#[test]
fn issue_7_the_dashboard_shows_what_happens_in_light_in_dark_and_on_a_phone() {
    let (gateway, admin) = start(&[]);
    let mut page = Dashboard::open(admin);
    page.reaches("live");
    page.tile("clients", "0");
    let mut clients: Vec<_> = (0..5).map(|n| gateway.raw(&format!("user=u{n}&topics=news"))).collect();
    let _streams: Vec<_> = (0..2).map(|n| gateway.stream(&format!("user=s{n}&topics=news"))).collect();
    page.tile("clients", "7");
    // Read by nobody: few enough to fit into the sockets' buffers.
    for n in 0..200 {
        gateway.push(json!({"topic": "news"}), json!({ "n": n, "text": "x".repeat(100) }));
    }
    clients.truncate(4);
    let reasons = "[...field('closed').tBodies[0].rows].map((row) => [row.cells[0].textContent, row.cells[1]?.textContent])";
    page.0.until(&format!("JSON.stringify({reasons}) === '[[\"peer_gone\",\"1\"]]'"));
    page.tile("clients", "6");
    gateway.ask("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    let reasons = reasons.replace("closed", "refused");
    page.0.until(&format!("JSON.stringify({reasons}) === '[[\"not_found\",\"1\"]]'"));
    let delivered = page.0.until("history.some((point) => point.messages > 0) && last.totals.delivered");
    assert!(delivered.as_u64() >= Some(1), "{delivered}");
    assert_eq!(page.0.run("field('shards').tBodies[0].rows.length"), 2);
    let points =
        "CHARTS.slice(0, 4).every((chart) => Number(chart.canvas.dataset.points) >= 2 * chart.series.length)";
    page.0.until(points);
    let legend = page.0.run("CHARTS[0].legend.textContent");
    assert_eq!(legend, "websockets 4event streams 2polls 0");
    // Something to see in the charts.
    page.0.until("history.length > 8");
    let mut grounds = Vec::new();
    for (scheme, width, name) in
        [("light", 1280, "light"), ("dark", 1280, "dark"), ("light", 360, "phone"), ("dark", 768, "tablet")]
    {
        page.0.appear(scheme, width, 800);
        page.0.until("history.length > 0 && CHARTS.every((chart) => chart.canvas.clientWidth > 200)");
        assert_eq!(
            page.0.run(&format!("document.documentElement.scrollWidth <= {width}")),
            true,
            "{name} scrolls sideways"
        );
        grounds.push(page.0.run("getComputedStyle(document.body).backgroundColor"));
        page.0.picture(&format!("dashboard-{name}.png"));
    }
    assert_ne!(grounds[0], grounds[1]);
    assert_eq!(page.0.complaints, [""; 0]);
}

/// Connections as `GET /v1/connections` tells of them, answered in place of the gateway.
fn plant_connections(page: &mut Dashboard, connections: &Value) {
    page.0.run(&format!(
        "globalThis.asked = [];
         globalThis.passed = globalThis.fetch;
         globalThis.fetch = (path, options) => {{
           if (!path.startsWith('/v1/connections?')) return passed(path, options);
           asked.push([path, options.headers.Authorization]);
           return Promise.resolve(new Response(JSON.stringify({connections})));
         }}; 0"
    ));
}

fn connection(id: &str, user: &str) -> Value {
    json!({
        "id": id, "user": user, "transport": "ws", "remote": "127.0.0.1:5000", "connected_at": 1_700_000_000_000_u64,
        "topics": ["news", "<i>t</i>"], "lag_messages": 1234, "lag_bytes": 56_789, "idle_ms": 61_000, "reason": null,
    })
}

#[test]
fn issue_7_connections_are_searched_and_kicked_after_a_question_and_names_are_text() {
    let (gateway, admin) = start(&[&format!("admin.token={TOKEN}")]);
    let (mut client, hello) = gateway.hello("user=<b>ann</b>");
    let id = hello["connection"].as_str().unwrap();
    let mut page = Dashboard::open(admin);
    page.use_token(TOKEN);
    let both =
        json!({"connections": [connection(id, "<b>ann</b>"), connection("0-9-9", "bob")], "next": "c1"});
    plant_connections(&mut page, &both);
    page.0.run("field('search').topic.value = 'a b'; field('search').lag_above.value = '7'; field('search').requestSubmit()");
    let cells = page.0.until(
        "field('list').querySelectorAll('tbody tr').length === 2
         && [...field('list').querySelector('tbody tr').cells].map((cell) => cell.textContent)",
    );
    let cells: Vec<&str> = cells.as_array().unwrap().iter().map(|cell| cell.as_str().unwrap()).collect();
    assert_eq!(
        cells[..7],
        [id, "<b>ann</b>", "ws", "127.0.0.1:5000", "news, <i>t</i>", "1,234 (57 kB)", "1m 1s"]
    );
    assert_eq!(page.0.run("field('list').querySelectorAll('b, i').length"), 0);
    let asked = page.0.run("asked[0]");
    assert_eq!(
        asked,
        json!(["/v1/connections?limit=100&topic=a+b&lag_above=7&sort=lag", format!("Bearer {TOKEN}")])
    );
    page.0.run("field('more').click()");
    page.0.until("field('list').querySelectorAll('tbody tr').length === 4");
    assert!(page.0.run("asked[1][0]").as_str().unwrap().ends_with("&after=c1"));
    for (scheme, width, name) in [("light", 1280, "connections"), ("dark", 360, "connections-phone")] {
        page.0.appear(scheme, width, 800);
        assert_eq!(
            page.0.run(&format!("document.documentElement.scrollWidth <= {width}")),
            true,
            "{name} scrolls sideways"
        );
        page.0.picture(&format!("dashboard-{name}.png"));
    }

    let kick = "field('list').querySelector('tbody tr button').click()";
    page.0.run(kick);
    let asked = page.question();
    assert!(asked.contains(&format!("{id}, of user <b>ann</b>, from 127.0.0.1:5000")), "{asked}");
    // A no, and asked again at once: the no is not the answer to that.
    page.0.run(&format!("field('confirm-no').click(); {kick}"));
    page.question();
    assert_eq!(gateway.totals()["connections"], 1);
    page.answer(true);
    assert_eq!(client.closed().0, 4500);
    assert_eq!(
        page.0.until("field('found').dataset.kind === 'good' && field('found').textContent"),
        format!("{id} is closed")
    );
    assert_eq!(page.0.complaints, [""; 0]);
}

#[test]
fn issue_7_a_search_finds_who_is_there_and_a_kick_closes_him_alone() {
    let (gateway, admin) = start(&[&format!("admin.token={TOKEN}")]);
    let (mut ann, hello) = gateway.hello("user=ann&topics=news");
    let (mut bob, _) = gateway.hello("user=bob&topics=news");
    let id = hello["connection"].as_str().unwrap();
    let mut page = Dashboard::open(admin);
    page.use_token(TOKEN);
    let names = "[...field('list').querySelectorAll('tbody tr')].map((row) => row.cells[1].textContent).sort().join()";
    page.0.run("field('search').topic.value = 'news'; field('search').requestSubmit()");
    page.0.until(&format!("{names} === 'ann,bob'"));
    page.0.run("field('search').user.value = 'ann'; field('search').requestSubmit()");
    page.0.until(&format!("{names} === 'ann'"));
    assert_eq!(page.0.run("field('list').querySelector('tbody td').textContent"), id);
    page.0.run("field('list').querySelector('tbody tr button').click()");
    page.answer(true);
    assert_eq!(ann.closed().0, 4500);
    gateway.push(json!({"topic": "news"}), json!("still there"));
    assert_eq!(bob.expect("message")["data"], "still there");
    assert_eq!(page.0.complaints, [""; 0]);
}

#[test]
fn issue_7_a_push_goes_out_after_a_question() {
    let (gateway, admin) = start(&[&format!("admin.token={TOKEN}")]);
    let (mut client, _) = gateway.hello("user=ann");
    let mut page = Dashboard::open(admin);
    page.use_token(TOKEN);
    let submit = |kind: &str, data: &str| {
        format!(
            "say('pushed', ''); field('push').name.value = 'ann'; field('push').kind.value = {kind:?};
             field('push').data.value = {data:?}; field('push').requestSubmit()"
        )
    };
    page.0.run(&submit("text", "hello"));
    assert!(page.answer(false).contains("Push to user ann?"));
    page.0.run(&submit("json", "{\"n\":1"));
    assert!(page.said("pushed").starts_with("not JSON: "));
    page.0.run(&submit("json", "{\"n\":1}"));
    assert!(page.answer(true).contains("{\"n\":1}"));
    assert_eq!(client.expect("message")["data"], json!({"n": 1}));
    assert!(page.said("pushed").ends_with("-1, 1 connection"));
}

#[test]
fn issue_7_without_the_right_token_the_page_says_so_and_keeps_one_for_its_tab_alone() {
    let (_gateway, admin) = start(&[&format!("admin.token={TOKEN}")]);
    let mut page = Dashboard::open(admin);
    page.reaches("live");
    page.0.run("field('search').requestSubmit()");
    assert!(page.said("found").starts_with("401 unauthorized: no token"));
    page.use_token("another-token-of-32-characters-x");
    page.0.run("say('found', ''); field('search').requestSubmit()");
    assert!(page.said("found").starts_with("401 unauthorized: this is not admin.token"));
    page.use_token(TOKEN);
    assert_eq!(
        page.0
            .run("[sessionStorage.length, localStorage.length, document.cookie, field('auth').token.value]"),
        json!([1, 0, "", ""])
    );
    page.0.run("field('forget').click()");
    assert_eq!(page.0.run("sessionStorage.length"), 0);
}

#[test]
fn issue_7_beyond_loopback_the_page_waits_for_the_token() {
    let mut gateway = Gateway::start(&["admin.listen=0.0.0.0:0", &format!("admin.token={TOKEN}")]);
    let port = crate::admin::address(&mut gateway).port();
    let mut page = Dashboard::open(SocketAddr::from(([127, 0, 0, 1], port)));
    page.reaches("token");
    page.use_token(TOKEN);
    page.reaches("live");
    page.tile("clients", "0");
}

#[test]
fn issue_7_the_page_says_that_the_gateway_has_gone() {
    let (mut gateway, admin) = start(&[]);
    let mut page = Dashboard::open(admin);
    page.reaches("live");
    gateway.signal(Signal::KILL);
    gateway.ended();
    page.reaches("lost");
    assert!(page.said("state").starts_with("no gateway: "));
}

#[test]
fn issue_7_a_page_that_is_left_gives_its_place_back() {
    let (gateway, admin) = start(&[]);
    let mut page = Dashboard::open(admin);
    page.reaches("live");
    page.0.run("location.href = 'about:blank'");
    drop(page);
    eventually("no reader is left", || (gateway.get("/v1/stats")["admin_clients"] == 0).then_some(()));
}

#[test]
fn issue_7_every_control_of_the_page_has_a_name() {
    let (_gateway, admin) = start(&[]);
    let mut page = Dashboard::open(admin);
    let nameless = page.0.run(
        "[...document.querySelectorAll('input, select, textarea, button')].filter((control) => \
           !(control.labels?.length || control.ariaLabel || control.textContent.trim() || control.id.startsWith('confirm'))).map((it) => it.outerHTML)",
    );
    assert_eq!(nameless, json!([]));
}
