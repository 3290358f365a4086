//! Which of the splits that different people wrote counts: command line, then Consul's store, then
//! service-splitter, then file, then the default subset of service-resolver; and what lies beneath
//! it.

use std::collections::BTreeSet;

use super::{
    service::ServiceSpec,
    split::{ActiveSplit, Shares, SplitSource},
};

/// What one source says of a service's split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitLayer {
    /// What it says.
    pub split: ActiveSplit,
    /// Why it cannot count, in words for people; `None`: it can.
    pub idle: Option<String>,
}

/// All that is said of a service's split, the strongest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitStack(Vec<SplitLayer>);

impl SplitStack {
    /// Puts what was said of `spec`'s split in order, with what its own file says among it. Of one
    /// source, what comes first is stronger. A split that names a subset which the service
    /// does not have stays in sight and does not count.
    pub fn of(spec: &ServiceSpec, said: impl IntoIterator<Item = ActiveSplit>) -> Self {
        let file = spec.split.as_ref().map(|shares| ActiveSplit {
            shares: shares.clone(),
            source: SplitSource::File,
            origin: spec.origin.to_string(),
            fallback: Vec::new(),
        });
        let known = spec.subset_names();
        let mut layers: Vec<SplitLayer> = said
            .into_iter()
            .chain(file)
            .map(|split| {
                let idle =
                    foreign(&split, &known).map(|subset| format!("there is no subset {subset}"));
                SplitLayer { split, idle }
            })
            .collect();
        // Stable: within one source the order stays.
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.split.source));
        Self(layers)
    }

    /// The one that counts; `None`: nobody has said anything that can.
    pub fn in_force(&self) -> Option<&ActiveSplit> {
        let mut able = self.0.iter().filter(|layer| layer.idle.is_none());
        able.next().map(|layer| &layer.split)
    }

    /// All, the strongest first.
    pub fn layers(&self) -> &[SplitLayer] {
        &self.0
    }
}

/// A subset that a split names and that is not known.
fn foreign<'a>(split: &'a ActiveSplit, known: &BTreeSet<String>) -> Option<&'a str> {
    let all = std::iter::once(&split.shares).chain(&split.fallback);
    let mut named = all.flat_map(Shares::iter).map(|(subset, _)| subset);
    named.find(|subset| !known.contains(*subset))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::domain::service::{Catalog, Forwarding, Origin, Protocol, SubsetRule};

    fn spec(split: Option<&str>) -> ServiceSpec {
        let subset = |name: &str| (name.to_owned(), SubsetRule::default());
        ServiceSpec {
            name: "echo".into(),
            vips: vec!["198.51.100.10:80".parse().unwrap()],
            protocol: Protocol::Tcp,
            forwarding: Forwarding::Nat,
            catalog: Catalog::Static(Vec::new()),
            subsets: ["v1", "v2"].map(subset).into(),
            split: split.map(shares),
            probe: None,
            gate: Default::default(),
            health: Default::default(),
            affinity: Default::default(),
            allow: None,
            http: Default::default(),
            origin: Origin {
                file: PathBuf::from("x.toml"),
                line: 7,
            },
        }
    }

    fn shares(text: &str) -> Shares {
        Shares::parse(&text.split(' ').collect::<Vec<_>>()).unwrap()
    }

    fn said(source: SplitSource, text: &str) -> ActiveSplit {
        ActiveSplit {
            shares: shares(text),
            source,
            origin: source.name().into(),
            fallback: Vec::new(),
        }
    }

    /// Each source in turn falls silent; what lay beneath it counts.
    #[test]
    fn the_strongest_source_counts_and_the_others_stay_in_sight() {
        use SplitSource::{Cli, ConsulKv, File, ServiceResolver, ServiceSplitter};
        let mut all = vec![
            said(ServiceResolver, "v2=1"),
            said(ServiceSplitter, "v1=2"),
            said(Cli, "v1=4"),
            said(ConsulKv, "v1=3"),
            said(Cli, "v1=5"),
        ];
        let expected = [
            (Cli, "v1=4"),
            (Cli, "v1=5"),
            (ConsulKv, "v1=3"),
            (ServiceSplitter, "v1=2"),
            (File, "v1=1"),
            (ServiceResolver, "v2=1"),
        ];
        for cut in 0..expected.len() {
            // The file is no part of what is said: it falls silent by itself.
            let file = (cut <= 4).then_some("v1=1");
            let stack = SplitStack::of(&spec(file), all.clone());
            let layers: Vec<(SplitSource, String)> = stack
                .layers()
                .iter()
                .map(|layer| (layer.split.source, layer.split.shares.to_string()))
                .collect();
            let rest: Vec<(SplitSource, String)> = expected[cut..]
                .iter()
                .map(|(source, text)| (*source, (*text).to_owned()))
                .collect();
            assert_eq!(layers, rest);
            let in_force = stack.in_force().unwrap();
            assert_eq!(in_force.source, expected[cut].0);
            let strongest = all
                .iter()
                .enumerate()
                .max_by_key(|(index, split)| (split.source, std::cmp::Reverse(*index)));
            if let Some((index, _)) = strongest.filter(|_| expected[cut].0 != File) {
                all.remove(index);
            }
        }
        assert_eq!(
            SplitStack::of(&spec(Some("v1=1")), []).layers()[0]
                .split
                .origin,
            "x.toml:7"
        );
        let none = SplitStack::of(&spec(None), []);
        assert_eq!((none.in_force(), none.layers().len()), (None, 0));
    }

    /// One that names an unknown subset, be it in a fallback, leaves the place to the next.
    #[test]
    fn what_cannot_count_says_why() {
        let mut falls_back = said(SplitSource::ConsulKv, "v1=1");
        falls_back.fallback.push(shares("v8=1"));
        let stack = SplitStack::of(
            &spec(Some("v1=1")),
            [said(SplitSource::Cli, "v1=1 v9=1"), falls_back],
        );
        let idle: Vec<Option<&str>> = stack.layers().iter().map(|l| l.idle.as_deref()).collect();
        let expected = [
            Some("there is no subset v9"),
            Some("there is no subset v8"),
            None,
        ];
        assert_eq!(idle, expected);
        assert_eq!(stack.in_force().unwrap().source, SplitSource::File);
    }
}
