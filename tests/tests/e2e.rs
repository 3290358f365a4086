//! End to end: real clients, the real agent, real backends, each a host of its own.

#[path = "e2e/announce.rs"]
mod announce;
#[path = "e2e/basics.rs"]
mod basics;
#[path = "e2e/blocks.rs"]
mod blocks;
#[path = "e2e/captures.rs"]
mod captures;
#[path = "e2e/chaos.rs"]
mod chaos;
#[path = "e2e/clients.rs"]
mod clients;
#[path = "e2e/connections.rs"]
mod connections;
#[path = "e2e/consul.rs"]
mod consul;
#[path = "e2e/consul_chaos.rs"]
mod consul_chaos;
#[path = "e2e/dashboards.rs"]
mod dashboards;
#[path = "e2e/dashboards_scene.rs"]
mod dashboards_scene;
#[path = "e2e/deploys.rs"]
mod deploys;
#[path = "e2e/docker.rs"]
mod docker;
#[path = "e2e/docker_life.rs"]
mod docker_life;
#[path = "e2e/doctor.rs"]
mod doctor;
#[path = "e2e/drains.rs"]
mod drains;
#[path = "e2e/drift.rs"]
mod drift;
#[path = "e2e/entries.rs"]
mod entries;
#[path = "e2e/errors.rs"]
mod errors;
#[path = "e2e/explain.rs"]
mod explain;
#[path = "e2e/few_ports.rs"]
mod few_ports;
#[path = "e2e/flows.rs"]
mod flows;
#[path = "e2e/full_disk.rs"]
mod full_disk;
#[path = "e2e/guests.rs"]
mod guests;
#[path = "e2e/health.rs"]
mod health;
#[path = "e2e/json.rs"]
mod json;
#[path = "e2e/life.rs"]
mod life;
#[path = "e2e/local.rs"]
mod local;
#[path = "e2e/local_clients.rs"]
mod local_clients;
#[path = "e2e/local_life.rs"]
mod local_life;
#[path = "e2e/lost.rs"]
mod lost;
#[path = "e2e/million.rs"]
mod million;
#[path = "e2e/mishaps.rs"]
mod mishaps;
#[path = "e2e/page.rs"]
mod page;
#[path = "e2e/paths.rs"]
mod paths;
#[path = "e2e/prometheus.rs"]
mod prometheus;
#[path = "e2e/proxy.rs"]
mod proxy;
#[path = "e2e/proxy_canary.rs"]
mod proxy_canary;
#[path = "e2e/proxy_entries.rs"]
mod proxy_entries;
#[path = "e2e/proxy_front.rs"]
mod proxy_front;
#[path = "e2e/proxy_grpc.rs"]
mod proxy_grpc;
#[path = "e2e/proxy_h2.rs"]
mod proxy_h2;
#[path = "e2e/proxy_h2_floods.rs"]
mod proxy_h2_floods;
#[path = "e2e/proxy_h2_frames.rs"]
mod proxy_h2_frames;
#[path = "e2e/proxy_limits.rs"]
mod proxy_limits;
#[path = "e2e/proxy_load.rs"]
mod proxy_load;
#[path = "e2e/proxy_metrics.rs"]
mod proxy_metrics;
#[path = "e2e/proxy_resolver.rs"]
mod proxy_resolver;
#[path = "e2e/proxy_restart.rs"]
mod proxy_restart;
#[path = "e2e/proxy_restart_h2.rs"]
mod proxy_restart_h2;
#[path = "e2e/proxy_scene.rs"]
mod proxy_scene;
#[path = "e2e/proxy_seen.rs"]
mod proxy_seen;
#[path = "e2e/proxy_stage.rs"]
mod proxy_stage;
#[path = "e2e/proxy_tls.rs"]
mod proxy_tls;
#[path = "e2e/proxy_traces.rs"]
mod proxy_traces;
#[path = "e2e/proxy_wire.rs"]
mod proxy_wire;
#[path = "e2e/proxy_wrk.rs"]
mod proxy_wrk;
#[path = "e2e/publish.rs"]
mod publish;
#[path = "e2e/raw.rs"]
mod raw;
#[path = "e2e/scene.rs"]
mod scene;
#[path = "e2e/server_return.rs"]
mod server_return;
#[path = "e2e/service_manager.rs"]
mod service_manager;
#[path = "e2e/shifts.rs"]
mod shifts;
#[path = "e2e/steering.rs"]
mod steering;
#[path = "e2e/tc.rs"]
mod tc;
#[path = "e2e/top.rs"]
mod top;
#[path = "e2e/traffic.rs"]
mod traffic;
#[path = "e2e/turmoil.rs"]
mod turmoil;
#[path = "e2e/two_nodes.rs"]
mod two_nodes;
#[path = "e2e/unprivileged.rs"]
mod unprivileged;
#[path = "e2e/untouched.rs"]
mod untouched;
#[path = "e2e/visitors.rs"]
mod visitors;
#[path = "e2e/watching.rs"]
mod watching;
#[path = "e2e/without_xdp.rs"]
mod without_xdp;
