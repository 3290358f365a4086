// The node as a whole: state, problems, numbers, drops, Consul, and the agent itself.

import { growth } from "./ask.js";
import { bar, drawSpark, el, fillBar, keyed, row, set, show, spark, table, write } from "./dom.js";
import { ago, clock, counted, moment, number, percent, rate, span } from "./words.js";

const byId = (id) => document.getElementById(id);
const HISTORY = 90;
const history = { flows: [], drops: [] };

export function renewNode(overview) {
  const { status } = overview;
  head(overview);
  problems(overview);
  tiles(overview);
  drops(status);
  consul(overview);
  agent(status);
}

function head({ node, status }) {
  write(byId("node"), node || "lb-agent");
  document.title = node ? `${node} · lb-agent` : "lb-agent";
  const up = span(status.now_unix_ms - status.started_unix_ms);
  write(byId("about"), `lb-agent ${status.agent_version} · up ${up}`);
  const health = byId("health");
  const count = status.problems.length;
  set(health, { class: `badge ${count ? "bad" : "ok"}` });
  write(health, count ? counted(count, "problem") : "healthy");

  const drained = byId("drained");
  const drain = status.node_drain;
  show(drained, Boolean(drain));
  if (drain) {
    const by = drain.by ? ` by ${drain.by}` : "";
    write(drained, `This node is drained${by} since ${moment(drain.since_unix_ms)}: it is not ready for traffic from elsewhere. \`lb-agent node undrain\` puts it back.`);
  }
  write(byId("foot"), `state version ${number(status.snapshot_version)} · agent's clock ${clock(status.now_unix_ms)}`);
}

function problems({ status, left_out }) {
  show(byId("problems"), status.problems.length > 0);
  keyed(byId("problem-list"), status.problems, (text) => text, (text) => el("li", {}, text));
  const note = byId("problems-note");
  show(note, left_out.problems > 0);
  write(note, `${counted(left_out.problems, "further problem")} not shown; \`lb-agent status\` has all.`);
}

const TILES = [
  { id: "flows", name: "New flows a second", curve: true },
  { id: "open", name: "Open flows", bar: true },
  { id: "dropped", name: "Dropped packets a second", curve: true },
  { id: "backends", name: "Healthy backends", bar: true },
];

function makeTile({ id, name, curve }) {
  return el("div", { class: "tile card", "data-tile": id },
    el("h2", {}, name), el("p", { class: "value" }), curve ? spark() : bar(), el("p", { class: "dim" }));
}

function tiles({ status, totals, troubled }) {
  const now = status.now_unix_ms;
  const dropped = status.verdicts.filter((verdict) => verdict.action === "drop")
    .reduce((sum, verdict) => sum + verdict.packets, 0);
  const forwarded = status.verdicts.filter((verdict) => verdict.action === "forward")
    .reduce((sum, verdict) => sum + verdict.packets, 0);
  const flows = growth("node flows", totals.flows_created, now);
  const drops = growth("node drops", dropped, now);
  const packets = growth("node forwarded", forwarded, now);
  remember(history.flows, flows);
  remember(history.drops, drops);
  const used = status.flow_tables.map((table) => (table.slots ? (table.used * 100) / table.slots : 0));
  const fullest = Math.max(0, ...used);
  const { catalog } = status;
  const said = {
    flows: [rate(flows), `${rate(packets)} packets/s forwarded · ${number(totals.flows_created)} flows so far`],
    open: [number(totals.flows_live), `flow table ${percent(fullest)} full`],
    dropped: [rate(drops), `${number(dropped)} so far`],
    backends: [`${number(catalog.backends_healthy)} of ${number(catalog.backends)}`,
      `${counted(catalog.services, "service")}, ${troubled ? `${number(troubled)} with trouble` : "none with trouble"}`],
  };
  keyed(byId("tiles"), TILES, ({ id }) => id, makeTile, (node, { id }) => {
    const [, value, picture, more] = node.children;
    write(value, said[id][0]);
    write(more, said[id][1]);
    if (id === "flows") drawSpark(picture, history.flows);
    if (id === "dropped") drawSpark(picture, history.drops);
    if (id === "open") fillBar(picture, fullest);
    if (id === "backends") {
      const part = catalog.backends ? (catalog.backends_healthy * 100) / catalog.backends : 0;
      fillBar(picture, part);
      set(picture, { class: `bar ${part < 100 ? "warn" : "ok"}` });
    }
  });
}

function remember(list, value) {
  if (value === null) return;
  list.push(value);
  if (list.length > HISTORY) list.shift();
}

const DROP_COLUMNS = [
  { name: "Reason", field: "name" },
  { name: "Packets", kind: "num", field: "packets" },
  { name: "A second", kind: "num", field: "rate" },
];
const dropTable = table("Dropped packets by reason", DROP_COLUMNS);

function drops(status) {
  const place = byId("drops");
  const some = status.verdicts.filter(({ action, packets }) => action === "drop" && packets > 0)
    .sort((a, b) => b.packets - a.packets);
  const parts = some.length ? [dropTable.whole] : [el("p", { class: "dim" }, "No packet has been dropped.")];
  if (place.firstChild !== parts[0]) place.replaceChildren(...parts);
  keyed(dropTable.body, some, ({ name }) => name, () => row(DROP_COLUMNS), (node, verdict) => {
    const [name, packets, each] = node.children;
    set(node, { "data-verdict": verdict.name });
    if (!name.firstChild) name.append(el("strong", {}, verdict.name), el("span", { class: "dim below" }, verdict.help));
    write(packets, number(verdict.packets));
    write(each, rate(growth(`drop ${verdict.name}`, verdict.packets, status.now_unix_ms)));
  });
}

const WATCH_COLUMNS = [
  { name: "Watch", field: "name" },
  { name: "Answered", kind: "num", field: "answered" },
  { name: "Changed", kind: "num", field: "changed" },
  { name: "Errors", kind: "num", field: "errors" },
];
const watches = table("What is watched in Consul", WATCH_COLUMNS);
const consulLine = el("p", { class: "dim" });

function consul({ status, left_out }) {
  const place = byId("consul");
  if (!consulLine.parentNode) place.append(consulLine, watches.whole);
  show(watches.whole, status.watches.length > 0);
  if (!status.consul_address) {
    write(consulLine, "Not configured: services and backends come from the configuration file.");
    return;
  }
  const failing = status.watches.filter((watch) => watch.error !== null).length;
  const more = left_out.watches ? `; ${number(left_out.watches)} more not shown` : "";
  const all = status.watches.length + left_out.watches;
  const good = failing ? `${number(failing)} failing` : "all answering";
  write(consulLine, `${status.consul_address} · ${number(all)} watches, ${good}${more}`);
  keyed(watches.body, status.watches, ({ name }) => name, () => row(WATCH_COLUMNS), (node, watch) => {
    const [name, answered, changed, errors] = node.children;
    if (!name.firstChild) name.append(el("span", { class: "mono" }), el("span", { class: "bad-text below" }));
    write(name.children[0], watch.name);
    write(name.children[1], watch.error ?? "");
    write(answered, ago(watch.last_success_unix_ms, status.now_unix_ms));
    write(changed, ago(watch.last_change_unix_ms, status.now_unix_ms));
    write(errors, number(watch.errors));
  });
}

function agent(status) {
  const { drift, evictions, local_clients: local, docker } = status;
  const repairs = Object.values(drift?.repairs ?? {}).reduce((sum, count) => sum + count, 0);
  const compared = drift?.compared_unix_ms ? `compared ${ago(drift.compared_unix_ms, status.now_unix_ms)}` : "not compared yet";
  const facts = [
    ["Interfaces", status.interfaces.map(({ name, mode, adopted }) => `${name} (${mode}${adopted ? ", adopted" : ""})`).join(", ") || "none"],
    ["Local clients", local ? `${number(local.translated)} sent to a backend, ${number(local.refused)} refused` : "not served"],
    ["Containers", docker ? `${number(docker.containers)} running, ${number(docker.registered)} registered` : "not registered"],
    ["Flow tables", status.flow_tables.map(({ family, used, slots }) => `${family} ${number(used)} of ${number(slots)} slots`).join(", ")],
    ["Evictions", evictions ? `${number(evictions.half_open)} unanswered, ${number(evictions.closed)} closed flows` : "none"],
    ["Maglev tables", `${counted(status.maglev_rebuilds.count, "rebuild")}, last ${(status.maglev_rebuilds.last_us / 1000).toFixed(1)} ms`],
    ["Last change", `in the kernel after ${(status.last_apply_us / 1000).toFixed(1)} ms`],
    ["Drift", repairs ? `${counted(repairs, "repair")}; ${compared}` : `none; ${compared}`],
    ["Drained", status.drains.map(({ service, backend_id: id, by }) => `${service} ${id}${by ? ` by ${by}` : ""}`).join(", ") || "no backend"],
  ];
  keyed(byId("agent"), facts, ([name]) => name, ([name]) => el("div", {}, el("dt", {}, name), el("dd")), (node, [, text]) => {
    write(node.lastChild, text);
  });
}

