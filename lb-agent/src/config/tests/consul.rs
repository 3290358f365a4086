//! `[consul]` and the environment variables behind it.

use std::time::Duration;

use super::{
    super::{ClientIdentity, ConfigError, ConsulConfig, Token},
    NODE, read,
};

fn read_consul(keys: &str, environment: &[(&str, &str)]) -> Result<ConsulConfig, ConfigError> {
    let config = read(&format!("{NODE}\n[consul]\n{keys}"), environment)?;
    Ok(config.consul.unwrap())
}

/// Rows of key, CONSUL_HTTP_ADDR, CONSUL_HTTP_SSL, and the address that comes out.
#[test]
fn addresses() {
    let rows = [
        ("", "", "", "http://127.0.0.1:8500"),
        ("", "", "true", "https://127.0.0.1:8500"),
        ("", "", "0", "http://127.0.0.1:8500"),
        ("", "consul:8500", "", "http://consul:8500"),
        ("", "consul:8500", "1", "https://consul:8500"),
        ("", "http://consul:8500", "1", "https://consul:8500"),
        ("", "https://consul:8501", "0", "https://consul:8501"),
        ("", "[::1]:8500", "", "http://[::1]:8500"),
        ("address = \"a:1\"", "b:2", "", "http://a:1"),
        ("address = \"a:1\"", "", "true", "https://a:1"),
        (
            "address = \"http://a:1\"",
            "https://b:2",
            "true",
            "http://a:1",
        ),
        ("address = \"https://a:1/\"", "unix:///x", "", "https://a:1"),
        (
            "address = \"consul.example\"",
            "",
            "",
            "http://consul.example",
        ),
    ];
    for (key, address, ssl, expected) in rows {
        let environment = [("CONSUL_HTTP_ADDR", address), ("CONSUL_HTTP_SSL", ssl)];
        let config = read_consul(key, &environment).unwrap();
        assert_eq!(config.address, expected, "{key} {environment:?}");
    }
}

/// Rows of keys, TOKEN, TOKEN_FILE, and the token that comes out.
#[test]
fn tokens() {
    let inline = |token: &str| Token::Inline(token.into());
    let file = |path: &str| Token::File(path.into());
    let rows = [
        ("", "", "", Token::None),
        ("", "t", "", inline("t")),
        ("", "t", "/f", file("/f")),
        ("token = \"k\"", "t", "/f", inline("k")),
        ("token_file = \"/k\"", "t", "/f", file("/k")),
    ];
    for (keys, token, token_file, expected) in rows {
        let environment = [
            ("CONSUL_HTTP_TOKEN", token),
            ("CONSUL_HTTP_TOKEN_FILE", token_file),
        ];
        let config = read_consul(keys, &environment).unwrap();
        assert_eq!(config.token, expected, "{keys} {environment:?}");
    }
}

/// The rest comes from the environment where the file is silent, and only there.
#[test]
fn a_key_wins_over_its_variable() {
    let environment = [
        ("CONSUL_CACERT", "/env/ca"),
        ("CONSUL_CLIENT_CERT", "/env/cert"),
        ("CONSUL_CLIENT_KEY", "/env/key"),
        ("CONSUL_TLS_SERVER_NAME", "env"),
    ];
    let identity = |cert: &str, key: &str| {
        Some(ClientIdentity {
            cert: cert.into(),
            key: key.into(),
        })
    };
    let silent = read_consul("", &environment).unwrap();
    assert_eq!(silent.ca_cert, Some("/env/ca".into()));
    assert_eq!(silent.client_identity, identity("/env/cert", "/env/key"));
    assert_eq!(silent.tls_server_name.as_deref(), Some("env"));
    assert_eq!(silent.datacenter, None);
    assert_eq!(
        (silent.wait, silent.hold),
        (Duration::from_secs(30), Duration::from_secs(600))
    );

    let keys = "ca_cert = \"/ca\"\nclient_cert = \"/cert\"\nclient_key = \"/key\"\n\
                tls_server_name = \"name\"\ndatacenter = \"dc1\"\nwait = \"10s\"\n\
                hold = \"0s\"\nmaintenance_deadline = \"5m\"";
    let spoken = read_consul(keys, &environment).unwrap();
    assert_eq!(spoken.ca_cert, Some("/ca".into()));
    assert_eq!(spoken.client_identity, identity("/cert", "/key"));
    assert_eq!(spoken.tls_server_name.as_deref(), Some("name"));
    assert_eq!(spoken.datacenter.as_deref(), Some("dc1"));
    assert_eq!(spoken.wait, Duration::from_secs(10));
    assert_eq!(spoken.hold, Duration::ZERO);
    let deadlines = (silent.maintenance_deadline, spoken.maintenance_deadline);
    assert_eq!(deadlines, (None, Some(Duration::from_secs(300))));

    let mixed = read_consul("client_cert = \"/cert\"", &environment).unwrap();
    assert_eq!(mixed.client_identity, identity("/cert", "/env/key"));
}

/// Rows of a variable, its value, and the words that refuse it.
#[test]
fn a_wrong_variable_is_named() {
    let rows = [
        ("CONSUL_HTTP_ADDR", "unix:///run/c", "Unix sockets"),
        ("CONSUL_HTTP_ADDR", "consul:http", "write http://HOST:PORT"),
        ("CONSUL_HTTP_SSL", "yes", "`yes` is neither true nor false"),
        ("CONSUL_CLIENT_CERT", "/c", "needs its key"),
        ("CONSUL_CLIENT_KEY", "/k", "needs its certificate"),
    ];
    for (name, value, words) in rows {
        let error = read_consul("", &[(name, value)]).unwrap_err().to_string();
        let place = format!("environment variable {name}: ");
        assert!(error.starts_with(&place), "{error}");
        assert!(error.contains(words), "{error}");
    }
}
