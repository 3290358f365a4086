//! `[docker]` and `DOCKER_HOST` behind it.

use std::time::Duration;

use super::{
    super::{Addresses, ConfigError, DockerConfig},
    NODE, read, refused,
};

fn read_docker(keys: &str, environment: &[(&str, &str)]) -> Result<DockerConfig, ConfigError> {
    let config = read(&format!("{NODE}\n[consul]\n[docker]\n{keys}"), environment)?;
    Ok(config.docker.unwrap())
}

#[test]
fn only_the_address_must_be_given() {
    assert_eq!(read(NODE, &[]).unwrap().docker, None);
    let short = read_docker("address = \"10.0.0.5\"", &[]).unwrap();
    let expected = DockerConfig {
        socket: "/var/run/docker.sock".into(),
        addresses: Addresses::Published("10.0.0.5".parse().unwrap()),
        resync: Duration::from_secs(60),
        tags: vec![],
        explicit: false,
        prefix: None,
    };
    assert_eq!(short, expected);
    let keys = "endpoint = \"unix:///run/d.sock\"\nregister = \"internal\"\nnetwork = \"web\"\n\
                resync = \"10s\"\ntags = [\"a\", \"b c\"]\nexplicit = true\nprefix = \"mine:\"";
    let long = read_docker(keys, &[("DOCKER_HOST", "unix:///env")]).unwrap();
    let expected = DockerConfig {
        socket: "/run/d.sock".into(),
        addresses: Addresses::Internal {
            network: Some("web".into()),
            node: None,
        },
        resync: Duration::from_secs(10),
        tags: vec!["a".into(), "b c".into()],
        explicit: true,
        prefix: Some("mine:".into()),
    };
    assert_eq!(long, expected);
}

/// The variable counts where the file is silent, and is named where it is wrong.
#[test]
fn the_variable_of_docker_itself() {
    let key = "address = \"10.0.0.5\"";
    let from = |value| read_docker(key, &[("DOCKER_HOST", value)]);
    let socket = |value| from(value).unwrap().socket.display().to_string();
    assert_eq!(socket("unix:///env.sock"), "/env.sock");
    assert_eq!(socket(""), "/var/run/docker.sock");
    let error = from("tcp://10.0.0.1:2375").unwrap_err().to_string();
    assert!(
        error.starts_with("environment variable DOCKER_HOST: `tcp://10.0.0.1:2375` is no Unix"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_with_docker() {
    let rows: &[(&str, &[&str])] = &[
        ("▶[docker]\naddress = \"10.0.0.5\"", &["add [consul]"]),
        ("[consul]\n▶[docker]", &["`address` is missing"]),
        (
            "[consul]\n[docker]\naddress = ▶\"10.0.0.5:80\"",
            &["is no IP address"],
        ),
        (
            "[consul]\n[docker]\naddress = ▶\"127.0.0.1\"",
            &["no address that others can reach"],
        ),
        (
            "[consul]\n[docker]\nregister = ▶\"all\"\naddress = \"10.0.0.5\"",
            &["none of `published` and `internal`"],
        ),
        (
            "[consul]\n[docker]\naddress = \"10.0.0.5\"\nnetwork = ▶\"web\"",
            &["with register = \"internal\" only"],
        ),
        (
            "[consul]\n[docker]\naddress = \"10.0.0.5\"\nendpoint = ▶\"tcp://10.0.0.1:2375\"",
            &["write unix:///PATH"],
        ),
        (
            "[consul]\n[docker]\naddress = \"10.0.0.5\"\nendpoint = ▶\"unix://run\"",
            &["write unix:///PATH"],
        ),
        (
            "[consul]\n[docker]\naddress = \"10.0.0.5\"\nprefix = ▶\"a/b\"",
            &["without blanks"],
        ),
        (
            "[consul]\n[docker]\naddress = \"10.0.0.5\"\nresync = ▶\"1ms\"",
            &["from 1s to 1day"],
        ),
        (
            "[consul]\n[docker]\naddress = \"10.0.0.5\"\ntags = [▶\"\"]",
            &["must not be empty"],
        ),
        (
            "[consul]\n[docker]\naddress = \"10.0.0.5\"\n▶adress = 1",
            &["did you mean `address`?"],
        ),
    ];
    for (keys, words) in rows {
        refused(&format!("NODE\n{keys}"), words);
    }
}
