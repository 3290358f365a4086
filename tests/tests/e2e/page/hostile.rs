//! Names and reasons of others, as hostile as they can be: they are shown, and nothing more.

use lb_tests::{consul::Registration, process::wait_for};
use serde_json::Value;

use super::{browse, text, wait_for_looks};
use crate::{
    consul::{instance, scene_with},
    entries::until_answer,
    scene::{PATIENCE, reply},
};

/// Would leave a mark on the page if it ever became more than text.
const IMAGE: &str = "<img src=x onerror=window.owned=1>";
const SCRIPT: &str = "</script><script>window.owned=2</script>\"'><svg/onload=window.owned=3>";

#[test]
fn what_others_wrote_is_shown_and_never_run() {
    let (consul, scene) = scene_with(3, "", "auto_publish = true");
    consul.register(instance(&scene, "b1")).unwrap();
    until_answer(&scene, &["b1"]);
    // Of an instance: its id. Of a service: its name, the note on what its tags ask for.
    let hostile_id = Registration {
        id: IMAGE,
        ..instance(&scene, "b2")
    };
    consul.register(hostile_id).unwrap();
    let hostile_name = Registration {
        service: IMAGE,
        id: "third",
        meta: &[("lb-vip", "198.51.100.20:80")],
        ..instance(&scene, "b3")
    };
    consul.register(hostile_name).unwrap();
    let wrong = Registration {
        service: "wrong",
        id: "wrong",
        meta: &[("lb-vip", SCRIPT)],
        ..instance(&scene, "b3")
    };
    consul.register(wrong).unwrap();
    let block = ["block", "add", "203.0.113.9", "--reason", SCRIPT];
    scene.agent.command(&block).unwrap();
    let id = format!("lb-node/{IMAGE}");
    wait_for("the agent to know the hostile backend", PATIENCE, || {
        let list = reply(&scene.agent, &["backend", "list", "echo"]);
        let mut backends = list["backends"].as_array().unwrap().iter();
        Ok(backends
            .any(|backend| backend["id"] == id.as_str())
            .then_some(()))
    })
    .unwrap();
    scene.wait_for_problem(SCRIPT);

    let mut browser = browse(&scene);
    wait_for_looks(&mut browser, 2);
    let whole = text(&mut browser, "body");
    // The same words as the commands', markup and all.
    let services = reply(&scene.agent, &["service", "list"]);
    let names: Vec<&str> = services["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| service["name"].as_str().unwrap())
        .collect();
    eprintln!("services: {names:?}");
    for words in names.iter().copied().chain([id.as_str(), SCRIPT]) {
        assert!(whole.contains(words), "{words} is not in {whole}");
    }
    let foreign = "document.querySelectorAll('img:not([src=\"/page/icon.svg\"]), script:not([src]), \
                   [onerror], [onload], iframe').length";
    assert_eq!(browser.evaluate(foreign).unwrap(), 0);
    assert_eq!(
        browser.evaluate("window.owned ?? null").unwrap(),
        Value::Null
    );
    assert_eq!(browser.complaints().unwrap(), Vec::<String>::new());

    // Even markup that gets in runs nothing: the policy stands behind the text.
    let try_it = "new Promise((done) => { const place = document.createElement('div'); \
                  document.body.append(place); place.innerHTML = '<img src=/page/none onerror=\"window.owned=4\">'; \
                  setTimeout(() => done(window.owned ?? null), 500); })";
    assert_eq!(browser.evaluate(try_it).unwrap(), Value::Null);
    let complaints = browser.complaints().unwrap().join("\n");
    assert!(
        complaints.contains("Content Security Policy"),
        "{complaints}"
    );
}
