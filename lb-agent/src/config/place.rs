//! In which lines a service's backends and its split stand, for the answer to "who said so?".

use std::{collections::BTreeMap, net::SocketAddr};

use super::{locate::Report, service::Read};

/// Lines, from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlaces {
    /// Of each backend that is listed.
    pub backends: BTreeMap<SocketAddr, usize>,
    /// Of the split.
    pub split: Option<usize>,
}

/// The lines of all services, by name.
pub(super) fn places(services: &[Read], report: &Report) -> BTreeMap<String, ServicePlaces> {
    services
        .iter()
        .map(|read| {
            let lines = read.backends.iter();
            let backends = lines.map(|place| (*place.get_ref(), report.line(&place.span())));
            let places = ServicePlaces {
                backends: backends.collect(),
                split: read.split.as_ref().map(|span| report.line(span)),
            };
            (read.spec.name.clone(), places)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn every_fact_has_its_line() {
        let text = "[node]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"echo\"\n\
                    vip = [\"198.51.100.10:80\"]\nbackends = [\n\
                    { address = \"10.1.0.1:80\", subset = \"v1\" },\n\
                    { address = \"10.1.0.2:80\", subset = \"v2\" },\n]\n\
                    split = { v1 = 9, v2 = 1 }\n";
        let config = crate::config::parse_in(text, Path::new("x.toml"), &|_| None).unwrap();
        let places = &config.places["echo"];
        let lines: Vec<usize> = places.backends.values().copied().collect();
        assert_eq!((lines, places.split), (vec![7, 8], Some(10)));
    }
}
