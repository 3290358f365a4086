//! The status page in a real browser: it shows what the commands say, runs nothing that others
//! wrote, says when it is old, and steers for those only who have the token.

#[path = "page/facts.rs"]
mod facts;
#[path = "page/hostile.rs"]
mod hostile;
#[path = "page/orders.rs"]
mod orders;

use std::{env, fs, path::Path, time::Duration};

use lb_tests::{browser::Browser, process::wait_for};
use serde_json::Value;

use crate::scene::{METRICS, PATIENCE, Scene, VIP, address, reply};

/// Two subsets, probed.
const SERVICE: &str = "subsets = { v1 = { tag = \"v1\" }, v2 = { tag = \"v2\" } }\n\
                       split = { v1 = 90, v2 = 10 }\n\
                       health = { kind = \"http\", path = \"/health\", interval = \"500ms\" }";
/// Directory for pictures of the page, if somebody wants to look at them.
const PICTURES: &str = "LB_PAGE_PICTURES";

/// A browser on the node, with the page open and drawn.
fn browse(scene: &Scene) -> Browser {
    let node = scene.topology.node();
    let mut browser = Browser::start(node, scene.topology.directory()).unwrap();
    browser.view(1280, 1100, false).unwrap();
    browser.open(&format!("http://{METRICS}/")).unwrap();
    wait_for_looks(&mut browser, 1);
    browser
}

/// Waits until the page has looked at the agent so many more times.
fn wait_for_looks(browser: &mut Browser, more: u32) {
    let looks = "Number(document.body?.dataset.looks ?? 0)";
    let before = browser.evaluate(looks).unwrap().as_f64().unwrap();
    let wanted = before + f64::from(more);
    browser
        .wait_until(&format!("{looks} >= {wanted}"))
        .unwrap_or_else(|error| panic!("{error:#}; {:?}", browser.complaints()));
}

/// The text of the first element that a selector finds.
fn text(browser: &mut Browser, selector: &str) -> String {
    let script = format!("document.querySelector({selector:?})?.innerText ?? ''");
    let value = browser.evaluate(&script).unwrap();
    value.as_str().unwrap().to_owned()
}

/// Keeps a picture of the page for a person.
fn picture(browser: &mut Browser, name: &str) {
    if let Some(directory) = env::var_os(PICTURES) {
        let directory = Path::new(&directory);
        fs::create_dir_all(directory).unwrap();
        browser.screenshot(&directory.join(name)).unwrap();
    }
}

#[test]
fn the_page_shows_what_the_commands_say() {
    let tags = ["v1", "v1", "v2", "v2"];
    let mut scene = Scene::listed(&tags, SERVICE, &crate::scene::udp_service(2));
    let blocked = scene.topology.client_addresses()[1];
    let add = |words: &[&str]| {
        let block = [&["block", "add"], words].concat();
        scene.agent.command(&block).unwrap();
    };
    add(&[&blocked.to_string(), "--reason", "scans for passwords"]);
    add(&["203.0.113.0/24", "--ttl", "2h", "--reason", "ticket 4711"]);
    let load = scene.load(200.0);
    let mut browser = browse(&scene);
    // The rate of what is sent is seen, and what is dropped has its reason.
    let client = scene.client().patience(Duration::from_millis(200));
    for _ in 0..5 {
        assert!(client.from(blocked).get(address(VIP), "/").is_err());
    }
    scene.backends[1].set_failing(true).unwrap();
    let shift = [
        "split", "shift", "echo", "v2", "--to", "50", "--step", "15", "--every", "20s",
    ];
    scene.agent.command(&shift).unwrap();
    let fourth = scene.topology.backend_address(4).to_string();
    scene.agent.command(&["drain", "echo", &fourth]).unwrap();
    wait_for_looks(
        &mut browser,
        if env::var_os(PICTURES).is_some() {
            40
        } else {
            5
        },
    );
    let rate = text(&mut browser, "[data-tile=flows] .value");
    let rate: f64 = rate.replace(',', "").parse().unwrap();
    assert!((100.0..300.0).contains(&rate), "{rate} flows a second");

    for (name, width, height, dark) in [
        ("light.png", 1200, 900, false),
        ("dark.png", 1200, 900, true),
        ("phone-light.png", 375, 812, false),
        ("phone-dark.png", 375, 812, true),
    ] {
        browser.view(width, height, dark).unwrap();
        wait_for_looks(&mut browser, 1);
        picture(&mut browser, name);
        let wide = browser
            .evaluate("document.documentElement.scrollWidth")
            .unwrap();
        assert_eq!(wide, width, "nothing stands out to the side");
        let ground = "getComputedStyle(document.body).backgroundColor";
        let ground = browser.evaluate(ground).unwrap();
        let bright = ground.as_str().unwrap().contains("24");
        assert_eq!(bright, !dark, "{ground} in {name}");
    }
    browser.view(1280, 1100, false).unwrap();

    load.stop();
    // What is counted stands still now; what moves by itself is compared until it is the same.
    wait_for("the page to show what the commands say", PATIENCE, || {
        let (said, shown) = (facts::said(&scene.agent), facts::shown(&mut browser));
        Ok((said == shown).then_some(()))
    })
    .unwrap_or_else(|error| {
        let (said, shown) = (facts::said(&scene.agent), facts::shown(&mut browser));
        panic!("{error:#}\nthe commands say {said:#?}\nthe page shows {shown:#?}")
    });
    assert_eq!(browser.complaints().unwrap(), Vec::<String>::new());

    // Gone, it does not look as if it were there; back, the page follows by itself.
    scene.agent.kill9().unwrap();
    browser
        .wait_until("document.body.classList.contains('stale')")
        .unwrap();
    let stale = text(&mut browser, "#stale");
    assert!(stale.contains("The agent does not answer"), "{stale}");
    assert!(stale.contains("What you see is"), "{stale}");
    assert_eq!(text(&mut browser, "#live"), "stale");
    picture(&mut browser, "stale.png");
    scene.agent.restart().unwrap();
    browser
        .wait_until("!document.body.classList.contains('stale')")
        .unwrap();
    assert_eq!(text(&mut browser, "#live"), "live");
}

/// What of `curl` with these arguments comes back: status, headers in lower case, body.
fn curl(scene: &Scene, args: &[&str], path: &str) -> (u32, String, String) {
    let url = format!("http://{METRICS}{path}");
    let args = [&["-s", "-i"], args, &[&url]].concat();
    let answer = scene.topology.node().tool("curl", &args).unwrap();
    let answer = answer.replace("\r\n", "\n");
    let (head, body) = answer.split_once("\n\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn other_peoples_pages_get_nothing() {
    let scene = Scene::listed(&["v1", "v2"], SERVICE, "");
    let rows = [
        ("127.0.0.1:9180", 200),
        ("localhost:9180", 200),
        ("[::1]", 200),
        ("evil.example:9180", 403),
        ("198.51.100.10", 403),
    ];
    for path in ["/", "/page/main.js", "/api/v1/overview", "/api/v1/events"] {
        for (host, expected) in rows {
            let header = format!("Host: {host}");
            let origin = ["-H", &header, "-H", "Origin: http://evil.example"];
            let (status, head, _) = curl(&scene, &origin, path);
            assert_eq!(status, expected, "{host} {path}");
            for wanted in [
                "content-security-policy: default-src 'none'; script-src 'self'",
                "x-content-type-options: nosniff",
                "cache-control: no-store",
                "cross-origin-resource-policy: same-origin",
            ] {
                assert!(head.contains(wanted), "{path}: {head}");
            }
            assert!(!head.contains("access-control-"), "{head}");
        }
    }
    // Whoever scrapes may call the node what he likes.
    for path in ["/metrics", "/healthz", "/readyz"] {
        let (status, ..) = curl(&scene, &["-H", "Host: lb1.example"], path);
        assert_eq!(status, 200, "{path}");
    }
    let (status, _, body) = curl(&scene, &["-X", "DELETE"], "/api/v1/blocks");
    assert_eq!(status, 405, "{body}");
    let error: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(error["error"]["code"], "UNIMPLEMENTED");
    let (status, _, body) = curl(&scene, &[], "/api/v1/service?name=nobody");
    assert_eq!(status, 404, "{body}");
    assert!(body.contains("there is no service `nobody`"), "{body}");
    // The same words as the command line's.
    let list = reply(&scene.agent, &["service", "list"]);
    let (_, _, body) = curl(&scene, &[], "/api/v1/services?filter=ECH&limit=1");
    let body: Value = serde_json::from_str(&body).unwrap();
    let (ours, theirs) = (&body["services"][0], &list["services"][0]);
    assert_eq!(ours["name"], theirs["name"]);
    let keys = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(ours), keys(theirs));
}
