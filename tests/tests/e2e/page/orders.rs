//! Buttons: nobody without the token moves anything, whoever has it does, and `explain` says that
//! it was the page.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use super::{SERVICE, browse, curl, picture, text};
use crate::scene::{METRICS, Scene, reply};

const TOKEN: &str = "5f0e8b1c9d7a4e62b3c1";
const JSON: &str = "Content-Type: application/json";

/// What makes the agent take orders, with the token in `directory`.
fn page(directory: &Path) -> String {
    let path = directory.join("page.token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    format!("[page]\ntoken_file = {path:?}\n")
}

fn shares(scene: &Scene) -> Value {
    let shown = reply(&scene.agent, &["split", "show", "echo"]);
    shown["services"][0]["split"]["shares"].clone()
}

#[test]
fn orders_need_the_token() {
    let directory = tempfile::tempdir().unwrap();
    let scene = Scene::listed(&["v1", "v2"], SERVICE, &page(directory.path()));
    let set = json!({ "service": "echo", "shares": { "v1": 1, "v2": 3 } }).to_string();
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let order = |headers: &[&str], body: &str| {
        let mut args = vec!["-X", "POST", "-d", body];
        headers
            .iter()
            .for_each(|header| args.extend(["-H", header]));
        curl(&scene, &args, "/api/v1/split/set")
    };
    let right = bearer(TOKEN);
    let file = directory.path().join("page.token");
    let mode = |mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(&file, mode).unwrap();
    };
    let before = shares(&scene);
    assert_eq!(before, json!({ "v1": 90, "v2": 10 }));
    let rows: &[(&[&str], &str, u32, &str)] = &[
        (&[JSON], &set, 401, "needs the token"),
        (
            &[JSON, "Authorization: Basic eDp5"],
            &set,
            401,
            "needs the token",
        ),
        (
            &[JSON, &bearer("5f0e8b1c9d7a4e62b3c0")],
            &set,
            401,
            "not the token",
        ),
        (&[JSON, &bearer("")], &set, 401, "token"),
        (&[&right], &set, 415, "application/json"),
        (
            &[&right, JSON, "Host: evil.example"],
            &set,
            403,
            "by its address",
        ),
        (&[&right, JSON], "{", 400, "the order"),
        (
            &[&right, JSON],
            "{\"service\": \"echo\"}",
            400,
            "missing field `shares`",
        ),
        (
            &[&right, JSON],
            "{\"service\": \"echo\", \"shares\": {\"v1\": 1}, \"fleet\": true}",
            400,
            "unknown field `fleet`",
        ),
        (
            &[&right, JSON],
            "{\"service\": \"echo\", \"shares\": {\"v9\": 1}}",
            404,
            "no subset `v9`",
        ),
    ];
    for (headers, body, expected, words) in rows {
        let (status, head, said) = order(headers, body);
        assert_eq!(status, *expected, "{headers:?} {body}: {said}");
        assert!(said.contains(words), "{said}");
        assert!(!said.contains(TOKEN) && !head.contains(TOKEN), "{said}");
        assert_eq!(
            head.contains("www-authenticate: bearer"),
            status == 401,
            "{head}"
        );
        assert_eq!(shares(&scene), before, "{headers:?} {body}");
    }
    // Read anew each time, and not believed while everybody may read it.
    mode(0o644);
    let (status, _, said) = order(&[&right, JSON], &set);
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("has mode 0644"), "{said}");
    assert_eq!(shares(&scene), before);
    mode(0o600);
    let (status, _, said) = order(&[&right, JSON], &set);
    assert_eq!(status, 200, "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["split"]["shares"], json!({ "v1": 1, "v2": 3 }));
    assert_eq!(shares(&scene), json!({ "v1": 1, "v2": 3 }));
    let explained = scene.agent.command(&["explain", "echo"]).unwrap();
    assert!(explained.contains("command line, page"), "{explained}");

    // After a few wrong ones the right one has to wait, too.
    let before = shares(&scene);
    let set = set.replace('3', "7");
    let wrong = bearer("5f0e8b1c9d7a4e62b3c2");
    // Only those count that come within half a minute, which may be short on a slow machine.
    let locked = (0..30).any(|_| order(&[&wrong, JSON], &set).0 == 429);
    assert!(locked, "nobody has to wait");
    let (status, head, said) = order(&[&right, JSON], &set);
    assert_eq!(status, 429, "{said}");
    assert!(head.contains("retry-after: "), "{head}");
    assert_eq!(shares(&scene), before);
}

#[test]
fn without_a_token_file_the_page_shows_the_command() {
    let scene = Scene::listed(&["v1", "v2"], SERVICE, "");
    let body = "{\"service\": \"echo\"}";
    let post = [
        "-X",
        "POST",
        "-d",
        body,
        "-H",
        JSON,
        "-H",
        "Authorization: Bearer x",
    ];
    let (status, _, said) = curl(&scene, &post, "/api/v1/split/reset");
    assert_eq!(status, 403, "{said}");
    assert!(said.contains("token_file"), "{said}");
    let mut browser = browse(&scene);
    let click = "document.querySelector('[data-order=shift]').click()";
    browser.evaluate(click).unwrap();
    let said = text(&mut browser, "dialog");
    assert!(said.contains("read-only"), "{said}");
    assert!(
        said.contains("lb-agent split shift echo v1 --to 100"),
        "{said}"
    );
    assert!(!said.contains("Carry out"), "{said}");
    let inputs = "document.querySelectorAll('dialog input[type=password]').length";
    assert_eq!(browser.evaluate(inputs).unwrap(), 0);

    // Switched off, there is nothing; the metrics stay.
    let file = scene.agent.config_file();
    let config = fs::read_to_string(file).unwrap();
    fs::write(file, format!("{config}\n[page]\nenabled = false\n")).unwrap();
    let mut scene = scene;
    scene.agent.stop().unwrap();
    scene.agent.restart().unwrap();
    for (path, expected) in [("/", 404), ("/api/v1/overview", 404), ("/metrics", 200)] {
        let (status, ..) = curl(&scene, &[], path);
        assert_eq!(status, expected, "{path} at {METRICS}");
    }
}

#[test]
fn a_button_shifts_traffic() {
    let directory = tempfile::tempdir().unwrap();
    let scene = Scene::listed(&["v1", "v2"], SERVICE, &page(directory.path()));
    let mut browser = browse(&scene);
    let orders = "[...document.querySelectorAll('[data-order=shift]')].map((b) => b.textContent)";
    let orders = browser.evaluate(orders).unwrap();
    assert_eq!(orders, json!(["Shift to v1 …", "Shift to v2 …"]));
    let open = "[...document.querySelectorAll('[data-order=shift]')][1].click()";
    browser.evaluate(open).unwrap();
    let fill = |token: &str| {
        format!(
            "(() => {{ const [to, step, every] = document.querySelectorAll('dialog input[type=number]'); \
             [to.value, step.value, every.value] = [80, 40, 3600]; \
             to.dispatchEvent(new Event('input', {{ bubbles: true }})); \
             document.querySelector('dialog input[type=password]').value = {token:?}; \
             document.querySelector('dialog [type=submit]').click(); }})()"
        )
    };
    let before = shares(&scene);
    browser.evaluate(&fill("this is not it, surely")).unwrap();
    browser
        .wait_until("document.querySelector('dialog [role=alert]').textContent")
        .unwrap();
    let said = text(&mut browser, "dialog");
    assert!(said.contains("this is not the token"), "{said}");
    assert!(
        said.contains("split shift echo v2 --to 80 --step 40 --every 3600s"),
        "{said}"
    );
    assert_eq!(shares(&scene), before);
    picture(&mut browser, "dialog.png");

    browser.evaluate(&fill(TOKEN)).unwrap();
    browser
        .wait_until("!document.querySelector('dialog').open")
        .unwrap();
    let shown = reply(&scene.agent, &["split", "show", "echo"]);
    let shift = &shown["services"][0]["shift"];
    assert_eq!(shift["phase"], "stepping", "{shown}");
    assert_eq!(shift["to_percent"], 80);
    assert_eq!(shift["percent"], 50.0);
    assert_ne!(shares(&scene), before);
    let explained = scene.agent.command(&["explain", "echo"]).unwrap();
    assert!(explained.contains("command line, page"), "{explained}");
    // The page shows it without being asked, and now offers what can be done with a shift.
    browser
        .wait_until(
            "document.querySelector('[data-field=shift]')?.textContent.includes('v2 has 50.0%')",
        )
        .unwrap();
    let kinds = "[...document.querySelectorAll('[data-order]')].map((b) => b.dataset.order)";
    let kinds = browser.evaluate(kinds).unwrap();
    for kind in ["promote", "rollback", "shift", "set"] {
        assert!(kinds.as_array().unwrap().contains(&json!(kind)), "{kinds}");
    }
    // The token is remembered by the tab alone.
    let kept = "localStorage.length + sessionStorage.length + document.cookie.length";
    assert_eq!(browser.evaluate(kept).unwrap(), 0);
    assert_eq!(
        browser
            .complaints()
            .unwrap()
            .iter()
            // The wrong token of above.
            .filter(|text| !text.contains("401"))
            .count(),
        0
    );
}
