//! The block list: rules one by one, lists, exceptions, restarts.

use std::time::Duration;

use super::{bench::Bench, order};
use crate::{
    controller::*,
    datapath::fake::FakeKernel,
    domain::block::{BlockRule, Origin},
};

/// An import beside what there is and in its place; exceptions, and what is said of them.
#[tokio::test]
async fn lists_are_imported_and_excepted_from() {
    let bench = Bench::new().await;
    let nets = |texts: &[&str]| -> Vec<ipnet::IpNet> {
        let parse = |text: &&str| crate::domain::block::parse_prefix(text).unwrap();
        texts.iter().map(parse).collect()
    };
    let handle = &bench.handle;
    let by_hand = nets(&["203.0.113.9"]);
    handle
        .block_add(by_hand, order("hand", None, false))
        .await
        .unwrap();
    let list = nets(&["203.0.113.0/24", "2001:db8::/32"]);
    let reply = handle
        .block_import(list, order("first", None, false), false)
        .await
        .unwrap();
    assert_eq!((reply.count, reply.total), (2, 3));
    assert!(reply.notes.is_empty(), "{:?}", reply.notes);
    let notes = handle.allow(nets(&["203.0.113.9"])).await.unwrap();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[0].contains("203.0.113.9/32 is allowed all the same"),
        "{notes:?}"
    );
    assert_eq!(bench.kernel.inside().allowed.len(), 1);
    let list = nets(&["203.0.113.8/30", "198.51.100.0/25", "203.0.113.9"]);
    let reply = handle
        .block_import(list, order("second", None, false), true)
        .await
        .unwrap();
    let expected = [
        "203.0.113.8/30 is dropped except for 203.0.113.9/32, which is allowed",
        "203.0.113.9/32 is not dropped: 203.0.113.9/32 is allowed, which comes first",
    ];
    assert_eq!(reply.notes, expected);
    let list = handle.block_list(None, 100).await.unwrap();
    let told: Vec<(String, &str)> = list
        .iter()
        .map(|entry| (entry.rule.prefix.to_string(), entry.rule.reason.as_str()))
        .collect();
    let expected = [
        ("198.51.100.0/25".to_owned(), "second"),
        ("203.0.113.8/30".to_owned(), "second"),
        ("203.0.113.9/32".to_owned(), "hand"),
    ];
    assert_eq!(told, expected);
    // By what they caught: of the fake nothing, so that any two may lead, each with its reason.
    let leaders = handle.block_leaders(2).await.unwrap();
    assert_eq!(leaders.len(), 2);
    assert!(leaders.iter().all(|entry| !entry.rule.reason.is_empty()));
    assert_eq!(bench.kernel.inside().blocked.len(), 3);
    // A list that would hurt is refused as a whole, and so is one exception too few.
    let bad = nets(&["198.51.100.0/24", "192.0.2.0/24", "0.0.0.0/0"]);
    let error = handle
        .block_import(bad, order("", None, false), true)
        .await
        .unwrap_err();
    let error = error.to_string();
    assert!(error.contains("192.0.2.1, the Consul server") && error.contains("everybody"));
    assert_eq!(bench.kernel.inside().blocked.len(), 3);
    let error = handle
        .disallow(nets(&["203.0.113.9", "192.0.2.1"]))
        .await
        .unwrap_err();
    assert!(matches!(error, OperatorError::NotAllowed(_)), "{error}");
    assert_eq!(handle.allow_list().await.unwrap().len(), 1);
    // All of it is there after a restart.
    let (kernel, saved) = (bench.kernel.clone(), bench.state.borrow().clone());
    bench.task.abort();
    kernel.inside().allowed.clear();
    let again = Bench::start(kernel.clone(), saved).await;
    assert_eq!(kernel.inside().allowed.len(), 1);
    let again_told = again.handle.block_list(None, 100).await.unwrap();
    assert_eq!(again_told.len(), 3);
    assert_eq!(
        again.handle.disallow(nets(&["203.0.113.9"])).await.unwrap(),
        1
    );
    assert!(kernel.inside().allowed.is_empty());
}

#[tokio::test]
async fn blocks_come_go_and_object() {
    let bench = Bench::new().await;
    let net = |text: &str| crate::domain::block::parse_prefix(text).unwrap();
    let add = |text: &str, ttl, force| {
        bench
            .handle
            .block_add(vec![net(text)], order("test", ttl, force))
    };
    let refused = [
        ("0.0.0.0/0", "is everybody"),
        ("192.0.2.0/24", "the Consul server"),
        ("10.2.0.1", "a backend of service fixed"),
    ];
    for (prefix, why) in refused {
        let error = add(prefix, None, false).await.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("--force"), "{error}");
    }
    assert!(bench.kernel.inside().blocked.is_empty());
    add("192.0.2.0/24", None, true).await.unwrap();
    add("203.0.113.7", Some(Duration::from_millis(50)), false)
        .await
        .unwrap();
    assert_eq!(bench.kernel.inside().cuts, 2);
    assert_eq!(bench.handle.block_list(None, 100).await.unwrap().len(), 2);
    // The second ends by itself.
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(bench.handle.block_list(None, 100).await.unwrap().len(), 1);
    assert_eq!(bench.kernel.inside().blocked.len(), 1);
    let error = bench
        .handle
        .block_del(vec![net("203.0.113.7")])
        .await
        .unwrap_err();
    assert!(matches!(error, OperatorError::NotBlocked(_)));
    assert_eq!(
        bench
            .handle
            .block_del(vec![net("192.0.2.0/24")])
            .await
            .unwrap(),
        1
    );
    assert!(bench.kernel.inside().blocked.is_empty());
}

/// Rules that ended meanwhile go, those that only the kernel knows stay, counters are kept.
#[test]
fn block_lists_of_kernel_and_state_are_brought_together() {
    let now = SystemTime::now();
    let rule = |text: &str, expires| BlockRule {
        prefix: text.parse().unwrap(),
        reason: "saved".into(),
        added: now,
        expires,
        origin: Origin::Operator,
    };
    let mut kernel = FakeKernel::default();
    for text in ["10.9.0.1/32", "10.9.0.2/32", "10.9.0.3/32"] {
        kernel.inside().blocked.insert(text.parse().unwrap());
    }
    let saved = vec![
        rule("10.9.0.1/32", None),
        rule("10.9.0.2/32", Some(now - Duration::from_secs(1))),
        rule("10.9.0.4/32", Some(now + Duration::from_secs(60))),
    ];
    let saved = PersistedState {
        blocks: saved,
        ..PersistedState::default()
    };
    let blocks = Blocks::restore(&mut kernel, &saved, &[], now).unwrap();
    let kept: Vec<(String, bool)> = blocks
        .rules()
        .after(None, 100)
        .into_iter()
        .map(|rule| (rule.prefix.to_string(), rule.reason == "saved"))
        .collect();
    let expected = [
        ("10.9.0.1/32".to_owned(), true),
        ("10.9.0.3/32".to_owned(), false),
        ("10.9.0.4/32".to_owned(), true),
    ];
    assert_eq!(kept, expected);
    let held: Vec<String> = kernel
        .inside()
        .blocked
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(held.iter().eq(expected.iter().map(|(prefix, _)| prefix)));
}
