//! What is read about requests.

use std::time::Duration;

use super::{NODE, expand, read};
use crate::{
    config::{
        ProxyConfig,
        proxy::{AccessLogFormat, OtlpTransport},
    },
    domain::{
        http::policy::{Balance, HttpPolicy, ProxyProtocol, RateKey, Upstream, UpstreamVersion},
        service::Protocol,
    },
};

#[test]
fn a_service_needs_no_address_for_clients_and_no_treatment() {
    let text = expand(
        "NODE\n[[service]]\nname = \"web\"\nprotocol = \"grpc\"\n\
         backends = [{ address = \"[2001:db8::1]:80\" }]",
    );
    let config = read(&text, &[]).unwrap();
    let service = &config.services[0];
    assert!(service.vips.is_empty());
    assert_eq!(service.protocol, Protocol::Grpc);
    assert_eq!(*service.http, HttpPolicy::default());
    assert_eq!(config.proxy, ProxyConfig::default());
    // Whose VIP is of another family than a backend: the proxy connects to it itself.
    let text = text.replace("protocol", "vip = [\"198.51.100.10:80\"]\nprotocol");
    assert!(read(&text, &[]).is_ok());
}

#[test]
fn every_key_about_requests_is_read() {
    let text = "NODE\n[[service]]\nname = \"web\"\nprotocol = \"http\"\nbackends = []\n\
        hosts = [\"Web.Example\", \"*.shop.example.\"]\n\
        timeouts = { connect = \"500ms\", per_try = \"2s\", total = \"5s\", idle = \"1m\" }\n\
        retry = { retries = 3, on_status = [503], on_grpc = [14, 8], budget = 10, floor = 5, \
                  backoff = \"10ms\", replay = 0 }\n\
        hedge = { after = \"50ms\" }\n\
        limits = { connections = 10, pending = 20, requests = 30, body = 1000000 }\n\
        rate_limit = [{ requests = 100, per = \"1m\", burst = 20, by = { header = \"X-Key\" }, \
                        except = [\"10.0.0.0/8\"], path = \"/api\" }, { requests = 5 }]\n\
        balance = { cookie = \"lb\" }\n\
        upstream = { version = \"http2\", tls = true, proxy_protocol = 2, idle = 4, warm = 3, host = \"in:80\" }\n\
        [[service.routes]]\npath_prefix = \"/api\"\nmethods = [\"get\"]\nservice = \"api\"\n\
        subset = \"v2\"\nrewrite = \"/\"\ntimeout = \"1s\"\nretries = 0\nretry_on = [502]\n\
        [[service.routes]]\nheaders = { a = \"1\", b = true, c = false, \
                                        d = { regex = \"x+\", invert = true } }\n\
        query = { v = { prefix = \"p\" } }\nsubset = \"v1\"\n\
        timeouts = { connect = \"20ms\", per_try = \"1s\", total = \"3s\", idle = \"2m\" }\n";
    let config = read(&expand(text), &[]).unwrap();
    let http = &config.services[0].http;
    let hosts: Vec<&str> = http.hosts.iter().map(String::as_str).collect();
    assert_eq!(hosts, ["*.shop.example", "web.example"]);
    let timeouts = &http.timeouts;
    assert_eq!(timeouts.connect, Duration::from_millis(500));
    assert_eq!(timeouts.per_try, Some(Duration::from_secs(2)));
    assert_eq!(timeouts.total, Duration::from_secs(5));
    assert_eq!(timeouts.idle, Duration::from_secs(60));
    let retry = &http.retry;
    assert_eq!((retry.retries, retry.budget, retry.floor), (3, 10, 5));
    assert_eq!(
        (retry.replay, retry.backoff),
        (0, Duration::from_millis(10))
    );
    assert_eq!(retry.on_status, [503].into());
    assert_eq!(retry.on_grpc, [8, 14].into());
    let hedge = http.hedge.as_ref().map(|hedge| hedge.after);
    assert_eq!(hedge, Some(Duration::from_millis(50)));
    let limits = &http.limits;
    assert_eq!(
        (limits.connections, limits.pending, limits.requests),
        (10, 20, 30)
    );
    assert_eq!(limits.body, Some(1_000_000));
    let [first, second] = &http.rates[..] else {
        panic!("{:?}", http.rates);
    };
    assert_eq!((first.requests, first.burst), (100, 20));
    assert_eq!(first.by, RateKey::Header("x-key".into()));
    assert_eq!(first.except, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(first.path.as_deref(), Some("/api"));
    assert_eq!((second.burst, second.per), (5, Duration::from_secs(1)));
    assert_eq!((&second.by, &second.path), (&RateKey::Client, &None));
    assert_eq!(http.balance, Balance::Cookie("lb".into()));
    let upstream = &http.upstream;
    assert_eq!(upstream.version, UpstreamVersion::Http2);
    assert_eq!(upstream.proxy_protocol, Some(ProxyProtocol::V2));
    assert_eq!((upstream.idle, upstream.tls.is_some()), (Some(4), true));
    assert_eq!((upstream.warm, Upstream::default().warm), (3, 1));
    assert_eq!(upstream.host.as_deref(), Some("in:80"));
    let routes: Vec<String> = http.routes.iter().map(|route| route.to_string()).collect();
    assert_eq!(
        routes,
        [
            "GET /api* to api.v2",
            "* with header a = 1 with header b without header c without header d = ~x+ with parameter \
             v = p* to subset v1"
        ]
    );
    let to = &http.routes[0].to;
    assert_eq!(
        (to.retries, to.timeout),
        (Some(0), Some(Duration::from_secs(1)))
    );
    assert_eq!(to.retry_on_status, [502]);
    assert_eq!(to.prefix_rewrite.as_deref(), Some("/"));
    // Where it names statuses, what reached nobody is tried again all the same.
    assert!(to.retry_on_connect_failure);
    assert_eq!(to.timeouts(timeouts).connect, Duration::from_millis(500));
    assert_eq!(to.timeouts(timeouts).total, Duration::from_secs(1));
    let to = &http.routes[1].to;
    assert_eq!((to.retries, to.retry_on_connect_failure), (None, false));
    let own = to.timeouts(timeouts);
    assert_eq!(own.connect, Duration::from_millis(20));
    assert_eq!(own.per_try, Some(Duration::from_secs(1)));
    assert_eq!(own.total, Duration::from_secs(3));
    assert_eq!(own.idle, Duration::from_secs(120));
}

#[test]
fn every_key_of_the_proxy_is_read() {
    let text = format!(
        "{NODE}\n[proxy]\nlisten = [\"0.0.0.0:80\", \":4140\", {{ address = \"[::1]:443\", tls = [\
         {{ cert = \"/c\", key = \"/k\" }}], proxy_protocol = true }}]\nthreads = 2\npin = false\n\
         trusted = [\"10.0.0.0/8\"]\nshutdown = \"5s\"\n\
         bounds = {{ connections = 1, per_client = 2, head = 8192, headers = 16, streams = 3, \
         head_timeout = \"4s\", keep_alive = \"5s\" }}\n\
         access_log = {{ file = \"/a.log\", format = \"combined\" }}\n\
         traces = {{ endpoint = \"http://[::1]:4318\", transport = \"http\", sample = 0.25 }}"
    );
    let proxy = read(&text, &[]).unwrap().proxy;
    let listeners: Vec<String> = proxy
        .listeners
        .iter()
        .map(|one| {
            format!(
                "{} {:?} {}",
                one.address, one.certificates, one.proxy_protocol
            )
        })
        .collect();
    let expected = [
        "0.0.0.0:80 [] false",
        "[::]:4140 [] false",
        "[::1]:443 [(\"/c\", \"/k\")] true",
    ];
    assert_eq!(listeners, expected);
    assert_eq!(
        (proxy.threads, proxy.pin, proxy.trusted.len()),
        (2, Some(false), 1)
    );
    assert_eq!(proxy.shutdown, Duration::from_secs(5));
    let bounds = &proxy.bounds;
    assert_eq!(
        (bounds.connections, bounds.per_client, bounds.head),
        (1, 2, 8192)
    );
    assert_eq!((bounds.headers, bounds.streams), (16, 3));
    assert_eq!(bounds.head_timeout, Duration::from_secs(4));
    assert_eq!(bounds.keep_alive, Duration::from_secs(5));
    let log = proxy.access_log.unwrap();
    assert_eq!((log.stderr, log.format), (false, AccessLogFormat::Combined));
    let traces = proxy.traces.unwrap();
    assert_eq!(
        (traces.transport, traces.sample),
        (OtlpTransport::Http, 0.25)
    );
    // A log alone goes to standard error, and traces are all kept.
    let text = format!(
        "{NODE}\n[proxy]\naccess_log = {{}}\ntraces = {{ endpoint = \"https://otel:4317\" }}"
    );
    let proxy = read(&text, &[]).unwrap().proxy;
    assert!(proxy.access_log.unwrap().stderr);
    assert_eq!(proxy.traces.unwrap().sample, 1.0);
}
