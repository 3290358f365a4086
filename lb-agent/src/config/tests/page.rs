//! The section `[page]`: what is read from it, and what is wrong with it.

use super::{super::PageConfig, NODE, read, refused};

#[test]
fn every_key_is_read() {
    let rows = [
        ("", PageConfig::default()),
        ("[page]", PageConfig::default()),
        (
            "[page]\nenabled = false\ntoken_file = \"/etc/lb-agent/page.token\"\n\
             hosts = [\"LB1.example\", \"lb1\"]",
            PageConfig {
                enabled: false,
                token_file: Some("/etc/lb-agent/page.token".into()),
                hosts: vec!["lb1.example".into(), "lb1".into()],
            },
        ),
    ];
    for (text, expected) in rows {
        let config = read(&format!("{NODE}\n{text}"), &[]).unwrap();
        assert_eq!(config.page, expected, "{text}");
    }
    let default = PageConfig::default();
    assert!(default.enabled && default.token_file.is_none());
}

#[test]
fn what_is_wrong_with_it() {
    let rows: &[(&str, &[&str])] = &[
        (
            "enabled = ▶1\ntoken_file = ▶\"page.token\"\nhosts = [▶\"lb1:9180\", \"lb2\", ▶\"\"]",
            &[
                "must be true or false",
                "absolute path",
                "write it without scheme and port",
                "is no name of a host",
            ],
        ),
        ("hosts = ▶\"lb1\"", &["must be a list in [ ]"]),
        (
            "▶token = \"x\"",
            &["known here are enabled, token_file, hosts"],
        ),
    ];
    for (marked, words) in rows {
        refused(&format!("NODE\n[page]\n{marked}"), words);
    }
}
