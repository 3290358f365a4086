//! Everything else than the instances of a service: entries, keys, names, datacenters, writing.

use lb_agent::{
    domain::{
        config_entry::EntryKind,
        fleet::{KeyChange, WriteError},
    },
    source::consul_keys::KeyWriter,
};

use super::*;

/// All that can be asked, with a token that may read services and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_services_only() {
    const MASTER: &str = "6a1253d2-1785-24fd-91c2-f8e78c745511";
    const READER: &str = "22222222-2222-3333-4444-555555555555";
    let consul = Consul::with_acl(MASTER);
    consul.put("/v1/agent/service/register", ECHO);
    let policy = r#"{"Name": "reader",
        "Rules": "service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" }"}"#;
    consul.put("/v1/acl/policy", policy);
    let token = format!(r#"{{"SecretID": "{READER}", "Policies": [{{"Name": "reader"}}]}}"#);
    consul.put("/v1/acl/token", &token);
    let with = |token: &str| ConsulOptions {
        token: Some(token.into()),
        ..options(&consul)
    };
    let all = [Topic::Keys, Topic::Names, Topic::instances("echo", None)]
        .into_iter()
        .chain(EntryKind::ALL.map(Topic::Entries));
    let mut source = Source::follow(with(READER), all.collect());
    let (state, _) = source
        .until(LATER, |state| {
            state.entries.len() == EntryKind::ALL.len()
                && state.keys.is_some()
                && state.names.is_some()
                && echo(state).is_some()
        })
        .await;
    for (name, watch) in &state.watches {
        assert_eq!(watch.error, None, "{name}");
    }

    let change = [KeyChange::Set("lb/split/echo".into(), "v1=1".into())];
    let denied = KeyWriter::new(&with(READER)).unwrap().write(&change).await;
    let text = denied.unwrap_err().to_string();
    assert!(text.contains("key:write"), "{text}");
    let writer = KeyWriter::new(&with(MASTER)).unwrap();
    writer.write(&change).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datacenters() {
    let consul = Consul::start();
    consul.put("/v1/agent/service/register", ECHO);
    let topics = [
        Topic::instances("echo", Some("dc1")),
        Topic::instances("echo", Some("nowhere")),
    ];
    let mut source = Source::follow(options(&consul), topics.into());
    let (state, _) = source
        .until(LATER, |state| {
            state.services.contains_key("echo@dc1")
                && state
                    .watches
                    .get("health/echo@nowhere")
                    .is_some_and(|watch| watch.error.is_some())
        })
        .await;
    assert_eq!(state.services["echo@dc1"].len(), 1);
    assert!(!state.services.contains_key("echo@nowhere"));
    assert_eq!(state.watches["health/echo@dc1"].error, None);
}

/// Of those who write the same key at the same moment one wins, and the others are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_written_by_compare_and_set() {
    let consul = Consul::start();
    let mut source = Source::follow(options(&consul), [Topic::Keys].into());
    source.until(LATER, |state| state.keys.is_some()).await;
    let writer = KeyWriter::new(&options(&consul)).unwrap();
    let mut conflicts = 0;
    for round in 0..50 {
        let writes = (0..8).map(|number| {
            let writer = writer.clone();
            tokio::spawn(async move {
                let changes = [
                    KeyChange::Set("lb/split/echo".into(), format!("v{round}=1 v{number}=2")),
                    KeyChange::Set("lb/split/other".into(), format!("v{number}=2")),
                ];
                writer.write(&changes).await.map(|()| number)
            })
        });
        let mut winners = Vec::new();
        for write in writes.collect::<Vec<_>>() {
            match write.await.unwrap() {
                Ok(number) => winners.push(number),
                Err(WriteError::Conflict) => conflicts += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(!winners.is_empty());
        // Both keys are of one writer, who was told that he has won.
        let (state, _) = source
            .until(SOON, |state| {
                let keys = &state.keys.as_ref().unwrap().values;
                keys.get("split/echo")
                    .is_some_and(|value| value.text.starts_with(&format!("v{round}=")))
            })
            .await;
        let keys = &state.keys.as_ref().unwrap().values;
        let other = &keys["split/other"].text;
        assert!(
            keys["split/echo"].text.ends_with(other.as_str()),
            "{keys:?}"
        );
        if conflicts > 0 {
            break;
        }
    }
    assert!(conflicts > 0, "nobody ever met another");
    let both = ["lb/split/echo", "lb/split/other"].map(|key| KeyChange::Delete(vec![key.into()]));
    writer.write(&both).await.unwrap();
    source
        .until(SOON, |state| state.keys.as_ref().unwrap().values.is_empty())
        .await;
    let missing = writer.write(&both).await.unwrap_err();
    assert_eq!(missing, WriteError::Missing("lb/split/echo".into()));

    // What has ended is cleared away with the next write.
    let old = KeyChange::Set(
        "lb/block/192.0.2.1".into(),
        "{\"expires_unix_ms\": 1}".into(),
    );
    writer.write(&[old]).await.unwrap();
    source
        .until(SOON, |state| {
            state
                .keys
                .as_ref()
                .unwrap()
                .values
                .contains_key("block/192.0.2.1")
        })
        .await;
    let split = KeyChange::Set("lb/split/echo".into(), "v1=1".into());
    writer.write(&[split]).await.unwrap();
    source
        .until(SOON, |state| {
            let keys = &state.keys.as_ref().unwrap().values;
            keys.keys().eq(["split/echo"])
        })
        .await;
    let many = vec![both[0].clone(); 65];
    assert_eq!(writer.write(&many).await, Err(WriteError::TooMany(65)));
}
