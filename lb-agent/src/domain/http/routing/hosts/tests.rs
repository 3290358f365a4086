//! Names of hosts, and the index beside a list of claims that is gone through.

use rand::{Rng as _, rngs::StdRng};

use super::*;
use crate::domain::chance::{self, one_of};

#[test]
fn the_name_of_a_host() {
    let long = "x".repeat(254);
    let rows = [
        ("echo", Some("echo")),
        ("Echo.Consul.LOCALHOST:4140", Some("echo.consul.localhost")),
        ("echo.:80", Some("echo")),
        ("echo.", Some("echo")),
        ("echo:", Some("echo")),
        ("[2001:DB8::1]:80", Some("[2001:db8::1]")),
        ("[2001:db8::1]", Some("[2001:db8::1]")),
        ("", None),
        (":80", None),
        (".", None),
        (&long, None),
    ];
    for (host, expected) in rows {
        let mut small = [0; LONGEST];
        assert_eq!(name_of(host, &mut small), expected, "{host}");
    }
}

/// Beside an expression, and whatever is written of the same name.
#[test]
fn names_by_chance() {
    let good: [&[u8]; 8] = [
        b"echo",
        b"Echo.Consul.LOCALHOST:4140",
        b"echo.:80",
        b"[2001:DB8::1]:80",
        b"[::1]",
        b"192.0.2.1:8080",
        b"a.b.c.d.e.",
        &[b'x'; 252],
    ];
    let reference = regex::Regex::new("(?s)^(?:(.*):[0-9]*|(.*))$").unwrap();
    let mut random = chance::of_test(35);
    let (mut named, mut none) = (0, 0);
    for _ in 0..20_000 {
        let bytes = chance::mutated(&mut random, &good, b":.[]A0z-\xc3\xa4");
        let host = String::from_utf8_lossy(&bytes);
        let parts = reference.captures(&host).unwrap();
        let expected = parts.get(1).or(parts.get(2)).unwrap().as_str();
        let expected = expected.strip_suffix('.').unwrap_or(expected);
        let expected = expected.to_ascii_lowercase();
        let is_one = (1..=253).contains(&expected.len());
        let mut small = [0; LONGEST];
        let name = name_of(&host, &mut small).map(str::to_owned);
        assert_eq!(name, is_one.then_some(expected), "{host}");
        match name {
            Some(name) => {
                named += 1;
                for other in [host.to_ascii_uppercase(), format!("{name}.:443")] {
                    let mut small = [0; LONGEST];
                    assert_eq!(name_of(&other, &mut small), Some(&*name), "{other}");
                }
            }
            None => none += 1,
        }
    }
    assert!(named > 10_000 && none > 500, "{named} {none}");
}

fn route(random: &mut StdRng) -> TagRoute {
    let hosts = ["a.b.c", "b.c", "*.b.c", "*.c", "*.a.b.c", "c"];
    let path = (*one_of(random, &["/", "/x", "/x/", "/x/y", "/xy"])).to_owned();
    TagRoute {
        host: random
            .random_ratio(3, 4)
            .then(|| (*one_of(random, &hosts)).to_owned()),
        path: match random.random_range(0..3) {
            0 => None,
            1 => Some(Text::Exact(path)),
            _ => Some(Text::Prefix(path)),
        },
    }
}

/// How well a claim fits, the best first: a host goes before a longer path.
fn rank(route: &TagRoute, host: &str, path: &str) -> Option<(usize, usize)> {
    let by_host = match route.host.as_deref() {
        None => 0,
        Some(exact) if exact == host => 1000,
        Some(wildcard) => {
            let domain = wildcard.strip_prefix('*')?;
            let fits = host.len() > domain.len() && host.ends_with(domain);
            fits.then_some(domain.len())?
        }
    };
    let by_path = match &route.path {
        None => 0,
        Some(Text::Exact(exact)) => (exact == path).then_some(1000)?,
        Some(Text::Prefix(prefix)) => path.starts_with(prefix).then_some(prefix.len())?,
        Some(_) => return None,
    };
    Some((by_host, by_path))
}

#[test]
fn the_index_finds_what_a_list_would() {
    let mut random = chance::of_test(36);
    let mut found = 0;
    for _ in 0..2_000 {
        let mut index = Hosts::default();
        let mut list: Vec<(TagRoute, String)> = Vec::new();
        for number in 0..random.random_range(1..12) {
            let route = route(&mut random);
            let service = format!("s{number}");
            let claim = Claim {
                service: service.as_str().into(),
                name: "".into(),
                by_tag: true,
            };
            let taken = list.iter().find(|(known, _)| *known == route);
            let taken = taken.map(|(_, service)| service.clone());
            match (index.claim(&route, claim), taken) {
                (Ok(()), None) => list.push((route, service)),
                (Err(former), Some(known)) => assert_eq!(&*former, known.as_str()),
                (answer, taken) => panic!("{answer:?} with {taken:?}"),
            }
        }
        assert_eq!(index.len(), list.len());
        for host in ["a.b.c", "b.c", "c", "x.a.b.c", "x.b.c", ".c", "d", "xc"] {
            for path in ["/", "/x", "/x/", "/x/y", "/x/yz", "/xy", "/\u{e4}", "*"] {
                let fitting = list.iter().filter_map(|(route, service)| {
                    Some((rank(route, host, path)?, service.as_str()))
                });
                let expected = fitting.max().map(|(_, service)| service);
                let answer = index.find(&format!("{}:80", host.to_uppercase()), path);
                let answer = answer.map(|claim| &*claim.service);
                assert_eq!(answer, expected, "{host}{path} of {list:?}");
                found += usize::from(answer.is_some());
            }
        }
    }
    assert!(found > 10_000, "{found}");
}
