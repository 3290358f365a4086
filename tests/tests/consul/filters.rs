//! Filters: whom the agent chooses is whom Consul lists for the same expression.

use lb_agent::domain::filter::Filter;

use super::*;

/// Instances of `web` on nodes that differ in everything a filter may ask about.
const NODES: [&str; 4] = [
    r#"{"Node": "m1", "Address": "10.0.0.1", "ID": "40e4a748-2192-161a-0510-9bf59fe950b5",
        "TaggedAddresses": {"lan": "10.0.0.1", "wan": "198.51.100.1"},
        "NodeMeta": {"zone": "a", "r-k": "x y", "none": ""},
        "Service": {"ID": "web-1", "Service": "web", "Port": 8080, "Tags": ["v2", "blue"],
            "Meta": {"version": "2.1"}, "Weights": {"Passing": 3, "Warning": 1},
            "EnableTagOverride": true,
            "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 8080},
                "virtual": {"Address": "203.0.113.5", "Port": 80}}},
        "Checks": [
            {"CheckID": "c1", "Name": "alive", "Status": "passing", "ServiceID": "web-1",
                "Type": "http", "Output": "all \"well\"", "Notes": "asks twice"},
            {"CheckID": "serfHealth", "Name": "Serf", "Status": "warning"}]}"#,
    r#"{"Node": "m2", "Address": "10.0.0.2", "NodeMeta": {"zone": "b"},
        "Service": {"ID": "web-2", "Service": "web", "Port": 8081, "Address": "10.1.0.2",
            "Tags": ["v1"], "Meta": {"version": "1.9", "canary": ""},
            "Connect": {"Native": true}},
        "Checks": [
            {"CheckID": "c2", "Name": "alive", "Status": "critical", "ServiceID": "web-2"}]}"#,
    r#"{"Node": "m3", "Address": "10.0.0.3",
        "Service": {"ID": "web-3", "Service": "web", "Port": 8080}}"#,
    r#"{"Node": "m3", "Address": "10.0.0.3",
        "Service": {"ID": "web-4", "Service": "web", "Port": 8082, "Tags": ["v2"]},
        "Checks": [
            {"CheckID": "c4", "Name": "ready", "Status": "passing", "ServiceID": "web-4"},
            {"CheckID": "c5", "Name": "alive", "Status": "passing", "ServiceID": "web-4"}]}"#,
];

const EXPRESSIONS: [&str; 71] = [
    "Node.Meta.zone == a",
    "Node.Meta.zone != a",
    "not Node.Meta.zone == a",
    "Node.Meta[\"r-k\"] == \"x y\"",
    "Node.Meta.none == \"\"",
    "Node.Meta.other == \"\"",
    "Node.Meta.other != v1",
    // To Consul 1.8 an entry that is not there matches everything, to later ones nothing.
    "zone in Node.Meta and Node.Meta.zone matches \"^[ab]$\"",
    "Node.Meta.zone not matches \"^a\"",
    "Node.Meta.zone contains a",
    "b in Node.Meta.zone",
    "b not in Node.Meta.zone",
    "Node.Meta is empty",
    "Node.Meta is not empty",
    "zone in Node.Meta",
    "zone not in Node.Meta",
    "Node.Meta contains none",
    "Node.Node == m3",
    "Node.Address == \"10.0.0.1\"",
    "Node.Datacenter == dc1",
    "Checks.Status == passing",
    "Checks.Status != passing",
    "not Checks.Status == passing",
    "not Checks.Status != passing",
    "Checks is empty",
    "Checks is not empty",
    "pass in Checks.Status",
    "pass not in Checks.Status",
    "Checks.Status contains crit",
    "Checks.Name == alive and Checks.Status == warning",
    "Checks.Name matches \"^(al|re)\"",
    "Checks.Name not matches \"^al\"",
    "Checks.CheckID == c5",
    "Checks.Node == m2",
    "Checks.Notes == \"asks twice\"",
    "Checks.Output == `all \"well\"`",
    "Checks.Output != \"\"",
    "Checks.ServiceID == \"\"",
    "Checks.ServiceName == web",
    "Checks.ServiceTags is empty",
    "Checks.ServiceTags is not empty",
    "v2 in Checks.ServiceTags",
    "v2 not in Checks.ServiceTags",
    "Service.Address == \"\"",
    "Service.Address != \"10.1.0.2\"",
    "Service.Service == web",
    "Service.Weights.Passing == 3",
    "Service.Weights.Warning != 1",
    "version in Service.Meta and Service.Meta.version matches \"^2[.]\" or canary in Service.Meta",
    "Service.Meta.other != 1 and v2 in Service.Tags",
    "Service.Port == 8080 and not (Node.Meta.zone == a or Checks.Status == critical)",
    "Checks.Type == http",
    "Checks.Type != http",
    "Checks.Type == \"\"",
    "Node.ID == \"40e4a748-2192-161a-0510-9bf59fe950b5\"",
    "Node.ID != \"40e4a748-2192-161a-0510-9bf59fe950b5\"",
    "Service.Kind == \"\"",
    "Service.Kind != \"\"",
    "Node.TaggedAddresses is empty",
    "wan in Node.TaggedAddresses",
    "Node.TaggedAddresses.wan == \"198.51.100.1\"",
    "Node.TaggedAddresses.wan != \"198.51.100.1\"",
    "Service.TaggedAddresses is not empty",
    "virtual in Service.TaggedAddresses",
    "Service.TaggedAddresses.virtual.Address == \"203.0.113.5\"",
    "Service.TaggedAddresses.lan.Address != \"10.0.0.1\"",
    "Service.TaggedAddresses.virtual.Port == 80",
    "Service.TaggedAddresses.virtual.Port != 80",
    "Service.EnableTagOverride == true",
    "Service.Connect.Native != true",
    "Service.ID contains web and Service.Tags is empty",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_choose_whom_consul_lists() {
    let consul = Consul::start();
    for node in NODES {
        consul.put("/v1/catalog/register", node);
    }
    let topic = Topic::Instances {
        service: "web".into(),
        datacenter: None,
        detail: true,
    };
    let mut source = Source::follow(options(&consul), [topic].into());
    let listed = |state: &CatalogState| state.services.get("web").map_or(0, |all| all.len());
    let (state, _) = source
        .until(LATER, |state| listed(state) == NODES.len())
        .await;
    let instances = &state.services["web"];
    let mut answers = BTreeSet::new();
    for text in EXPRESSIONS {
        let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let chosen: BTreeSet<String> = instances
            .iter()
            .filter(|instance| filter.matches(instance))
            .map(|instance| instance.id.to_string())
            .collect();
        let answer = consul.get(&format!("/v1/health/service/web?filter={}", encode(text)));
        let answer: Vec<serde_json::Value> = serde_json::from_str(&answer).unwrap();
        let name = |entry: &serde_json::Value| {
            let word = |path| entry.pointer(path).unwrap().as_str().unwrap().to_owned();
            format!("{}/{}", word("/Node/Node"), word("/Service/ID"))
        };
        let consuls: BTreeSet<String> = answer.iter().map(name).collect();
        assert_eq!(chosen, consuls, "{text}");
        answers.insert(chosen);
    }
    // Were all alike, the comparison would say little.
    assert!(answers.len() > 8, "{answers:?}");
}

/// RFC 3986, section 2.1.
fn encode(text: &str) -> String {
    let encoded = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}
