//! The harness: several hosts on one machine, real peers on them, and everything that needs root.
//!
//! # Code map
//!
//! - [`cleanup`]: what must be undone, whatever ends the process.
//! - [`namespace`], [`link`], [`topology`]: hosts, the cables between them, and the usual layout:
//!   a client, the node, and backends behind it.
//! - [`scratch`]: a directory for the files of one run.
//! - [`process`]: children with their output in a file, which never outlive the test.
//! - [`echo`], [`pattern`], [`backend`]: the service that plays a backend, the bytes it sends, and
//!   its process.
//! - [`web`], [`crowd`], [`calls`], [`http2`]: the service that plays a backend of the proxy, many
//!   clients at once, one of gRPC, and one that says what none would.
//! - [`otlp`]: the service that plays a receiver of spans.
//! - [`client`] (over `exchange`), [`transfer`] (over [`paced`]), [`load`]: single requests, large
//!   bodies, steady traffic.
//! - [`packet`], [`world`]: frames, and a loaded datapath that they are run through.
//! - [`direct`] (over [`unpinned`]): the same world with millions of frames.
//! - [`model`]: what the datapath must do, written a second time, to compare with.
//! - [`cgroup`], [`talk`]: a cgroup of a test's own, and a process in it that makes socket calls
//!   on request.
//! - [`packet`], [`world`] (over [`pins`]): frames, and a loaded datapath that they are run through.
//! - [`agent`], [`browser`], [`consul`], [`docker`], [`prometheus`]: the real programs, run in the node's namespace.
//! - [`notified`]: the service manager that the agent tells how it stands; [`halt`]: one of its
//!   threads made to hang.
//! - [`overlay`]: a copy of the machine's files, for installing packages.
//! - [`screen`]: a program on a pseudo terminal.
//! - [`grafana`]: dashboards, and what they ask Prometheus.
//! - [`compose`]: the demonstration of `compose/` on an engine as of [`docker`].
//! - [`bench`]: samples, goals, table and file of the benchmarks.
//! - [`pace`]: limits that stretch on a slow machine.
//! - [`stats`]: what counts as "as expected" when chance is involved.
//!
//! Traffic only goes to loopback and to addresses inside namespaces made here.

pub mod agent;
pub mod authority;
pub mod backend;
pub mod bench;
pub mod bridge;
pub mod browser;
pub mod calls;
pub mod cgroup;
pub mod cleanup;
pub mod client;
pub mod compose;
pub mod consul;
pub mod crowd;
pub mod direct;
pub mod docker;
pub mod documents;
pub mod echo;
mod exchange;
pub mod frame;
pub mod grafana;
pub mod halt;
pub mod http2;
pub mod link;
pub mod load;
pub mod model;
pub mod namespace;
pub mod notified;
pub mod otlp;
pub mod outcome;
pub mod overlay;
pub mod pace;
pub mod paced;
pub mod packet;
pub mod pattern;
pub mod pins;
pub mod process;
pub mod prometheus;
pub mod scratch;
pub mod screen;
pub mod stats;
pub mod talk;
pub mod tamper;
pub mod topology;
pub mod transfer;
pub mod unpinned;
pub mod web;
pub mod wire;
pub mod world;
