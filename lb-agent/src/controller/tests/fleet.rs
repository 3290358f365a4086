//! Keys of the fleet: block rules and splits that every node follows.

use super::{bench::Bench, order, shares};
use crate::{controller::*, datapath::fake::FakeKernel, domain::fleet::KeyChange};

fn blocked(bench: &Bench) -> Vec<String> {
    let mut nets = bench.kernel.clone().blocked().unwrap();
    nets.sort_unstable();
    nets.iter().map(ToString::to_string).collect()
}

async fn problems(bench: &Bench) -> String {
    bench.handle.status().await.unwrap().problems.join("; ")
}

#[tokio::test]
async fn rules_of_the_fleet_are_followed_one_by_one() {
    let bench = Bench::new().await;
    bench.list(&[(1, ""), (2, "")]).await;
    let rows = [
        ("block/203.0.113.1", "{\"reason\": \"scan\"}"),
        ("block/203.0.113.2", ""),
        ("block/nonsense", ""),
        // A backend of this node: foolish here, whatever it is elsewhere.
        ("block/10.1.0.1", ""),
    ];
    bench.keys(5, &rows).await;
    assert_eq!(blocked(&bench), ["203.0.113.1/32", "203.0.113.2/32"]);
    let list = bench.handle.block_list(None, 9).await.unwrap();
    let told: Vec<(&str, &str)> = list
        .iter()
        .map(|entry| (entry.rule.origin.name(), entry.rule.reason.as_str()))
        .collect();
    assert_eq!(told, [("fleet", "scan"), ("fleet", "")]);
    let said = problems(&bench).await;
    assert!(
        said.contains("lb/block/nonsense in Consul is not followed"),
        "{said}"
    );
    assert!(
        said.contains("10.1.0.1/32 contains 10.1.0.1, a backend of"),
        "{said}"
    );
    let change = KeyChange::unblock(&"203.0.113.2/32".parse().unwrap());
    assert!(
        !bench
            .handle
            .fleet_follows(vec![change.clone()])
            .await
            .unwrap()
    );

    // A rule of this node beside one of the fleet: each ends by itself.
    let both: Vec<ipnet::IpNet> = vec!["203.0.113.1/32".parse().unwrap()];
    let add = bench
        .handle
        .block_add(both.clone(), order("own", None, false));
    add.await.unwrap();
    bench.handle.block_del(both.clone()).await.unwrap();
    assert_eq!(blocked(&bench), ["203.0.113.1/32", "203.0.113.2/32"]);
    let error = bench.handle.block_del(both).await.unwrap_err().to_string();
    assert!(
        error.contains("block del --fleet 203.0.113.1/32"),
        "{error}"
    );

    bench.keys(6, &rows[..1]).await;
    assert_eq!(blocked(&bench), ["203.0.113.1/32"]);
    assert!(bench.handle.fleet_follows(vec![change]).await.unwrap());
    assert_eq!(problems(&bench).await, "");

    // An emptied server takes nothing away, neither now nor after a restart.
    bench.keys(1, &[]).await;
    assert_eq!(blocked(&bench), ["203.0.113.1/32"]);
    let said = problems(&bench).await;
    assert!(
        said.contains("Consul lists 1 keys of the fleet no longer"),
        "{said}"
    );
    let saved = bench.state.borrow().clone();
    let bench = Bench::start(FakeKernel::default(), saved).await;
    assert_eq!(blocked(&bench), ["203.0.113.1/32"]);
    bench.keys(1, &[]).await;
    assert_eq!(blocked(&bench), ["203.0.113.1/32"]);
    bench.keys(7, &[]).await;
    assert!(blocked(&bench).is_empty());
}

#[tokio::test]
async fn splits_of_the_fleet_count_below_the_command_line() {
    let bench = Bench::new().await;
    bench.list(&[(1, "v1"), (2, "v2")]).await;
    bench.keys(5, &[("split/echo", "v1=1 v2=3")]).await;
    let weights = bench.echo();
    assert_eq!(weights[0].1 * 3, weights[1].1);
    let own = bench
        .handle
        .split_set("echo", shares(&["v1=1"]))
        .await
        .unwrap();
    assert_eq!(own.source.name(), "cli");
    let next = bench.handle.split_reset("echo").await.unwrap().unwrap();
    assert_eq!(next.source.name(), "consul-kv");
    let check = bench.handle.split_check("echo", shares(&["v9=1"])).await;
    assert!(check.unwrap_err().to_string().contains("no subset `v9`"));
}
