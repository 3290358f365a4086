// The list of services, and what is inside those that are open.

import { get, growth } from "./ask.js";
import { bar, el, fillBar, keyed, row, set, show, table, write } from "./dom.js";
import { renewSplit } from "./split.js";
import { clock, counted, number, percent, rate, span, tone } from "./words.js";

const byId = (id) => document.getElementById(id);
const PAGE = 50;
const BACKENDS = 50;
// So few are opened unasked.
const FEW = 4;
// More than so many at a time are work for the agent and nothing to read.
const MOST_OPEN = 8;

const wish = { filter: "", show: "all", offset: 0 };
// By name: where in its list of backends the reader is.
const open = new Map();
let touched = false;
let look = () => {};

// Calls `again` when the reader wants to see something else.
export function onWish(again) {
  look = again;
  const linked = new URLSearchParams(location.hash.slice(1)).getAll("service");
  for (const name of linked.slice(0, MOST_OPEN)) open.set(name, { offset: 0, filter: "" });
  touched = linked.length > 0;
  let timer;
  byId("filter").addEventListener("input", (event) => {
    Object.assign(wish, { filter: event.target.value, offset: 0 });
    clearTimeout(timer);
    timer = setTimeout(again, 200);
  });
  byId("show").addEventListener("change", (event) => {
    Object.assign(wish, { show: event.target.value, offset: 0 });
    again();
  });
}

export async function renewServices({ troubled }) {
  write(byId("show-trouble"), troubled ? `Trouble (${number(troubled)})` : "Trouble");
  const answer = await get("/api/v1/services", { ...wish, limit: PAGE });
  if (!touched && answer.total <= FEW) for (const { name } of answer.services) open.set(name, { offset: 0, filter: "" });
  touched = true;
  const { services, now_unix_ms: now } = answer;
  const list = byId("service-list");
  keyed(list, services.length ? services : [null], (service) => service?.name ?? "", make, (node, service) => {
    if (service) renew(node, service, now);
    else write(node, answer.total ? "No service fits." : "No service is configured yet.");
  });
  pager(byId("service-pager"), answer, PAGE, "service", (offset) => {
    wish.offset = offset;
    look();
  });
  // A service that left while its page is shown is no reason to doubt the rest.
  await Promise.all(services.filter(({ name }) => open.has(name)).map(({ name }) => renewDetail(name)));
}

// What part of a list is shown, and the ways to the others; nothing if all is shown.
export function pager(place, { matched, total, offset }, page, noun, go) {
  const last = Math.min(offset + page, matched);
  const fewer = matched < total ? ` that fit, of ${number(total)}` : "";
  const text = matched <= page && matched === total ? ""
    : `${matched ? `${number(offset + 1)}–${number(last)} of ` : ""}${counted(matched, noun)}${fewer}`;
  if (!place.firstChild) {
    const button = (name) => el("button", { type: "button" }, name);
    place.append(el("span", { class: "dim", role: "status" }), button("Previous"), button("Next"));
  }
  const [said, previous, next] = place.children;
  write(said, text);
  show(previous, matched > page);
  show(next, matched > page);
  previous.disabled = offset === 0;
  next.disabled = last >= matched;
  previous.onclick = () => go(Math.max(0, offset - page));
  next.onclick = () => go(offset + page);
}

function make(service) {
  if (!service) return el("p", { class: "card dim" });
  const toggle = el("button", { type: "button", class: "toggle" },
    el("span", { class: "chevron", "aria-hidden": "true" }), el("span", { class: "name", "data-field": "name" }));
  toggle.addEventListener("click", () => flip(service.name));
  return el("article", { class: "card service" },
    el("div", { class: "line" },
      el("h3", {}, toggle),
      el("span", { class: "badge", "data-field": "health" }),
      el("span", { class: "kind dim", "data-field": "protocol" }),
      el("span", { class: "vips mono", "data-field": "vips" }),
      el("span", { class: "flows", "data-field": "flows" })),
    el("div", { class: "inside", hidden: true }));
}

function flip(name) {
  if (!open.delete(name)) {
    open.set(name, { offset: 0, filter: "" });
    if (open.size > MOST_OPEN) open.delete(open.keys().next().value);
  }
  const names = [...open.keys()].map((each) => ["service", each]);
  history.replaceState(null, "", names.length ? `#${new URLSearchParams(names)}` : location.pathname);
  look();
}

function verdict(service) {
  if (service.panic) return ["bad", "panic: all are used"];
  const of = `${number(service.backends_healthy)} of ${number(service.backends)} healthy`;
  if (!service.backends) return ["warn", "no backends"];
  if (!service.backends_active) return ["bad", `${of}, none active`];
  return [service.backends_healthy < service.backends ? "warn" : "ok", of];
}

function renew(node, service, now) {
  const [line, inside] = node.children;
  const [title, health, kind, vips, flows] = line.children;
  const isOpen = open.has(service.name);
  set(node, { "data-service": service.name });
  write(title.querySelector(".name"), service.name);
  set(title.firstChild, { "aria-expanded": String(isOpen) });
  const [how, text] = verdict(service);
  set(health, { class: `badge ${how}` });
  write(health, text);
  write(kind, `${service.protocol} · ${service.forwarding}${service.affinity === "client" ? " · by client" : ""}`);
  write(vips, service.vips.join("  ") || "no VIP");
  const { counters } = service;
  const each = growth(`service ${service.name}`, counters.flows_created, now);
  write(flows, `${rate(each)} flows/s · ${number(counters.flows_live)} open`);
  show(inside, isOpen);
  if (!isOpen) inside.replaceChildren();
  inside.service = service;
}

const COLUMNS = [
  { name: "Backend", field: "address" },
  { name: "Subset", field: "subset" },
  { name: "State", field: "state" },
  { name: "Share of new flows", kind: "share", field: "share" },
  { name: "Weight", kind: "num", field: "weight" },
  { name: "Open", kind: "num", field: "flows_live" },
  { name: "Flows/s", kind: "num", field: "rate" },
];

async function renewDetail(name) {
  const at = open.get(name);
  const answer = await get("/api/v1/service", { name, offset: at.offset, filter: at.filter, limit: BACKENDS });
  const node = [...byId("service-list").children].find((each) => each.dataset.service === name);
  const inside = node?.lastChild;
  if (!inside || !open.has(name)) return;
  if (!inside.firstChild) {
    const { whole, body } = table(`Backends of ${name}`, COLUMNS);
    const filter = el("input", { type: "search", placeholder: "Filter backends", "aria-label": `Filter backends of ${name}`, maxlength: 100 });
    filter.addEventListener("input", () => {
      const place = open.get(name);
      if (place) Object.assign(place, { filter: filter.value, offset: 0 });
      look();
    });
    inside.append(el("div", { class: "split" }), el("ul", { class: "notes" }), filter, whole, el("div", { class: "pager" }));
    inside.rows = body;
  }
  const [split, notes, filter, , pages] = inside.children;
  const { service, backends, now_unix_ms: now } = answer;
  renewSplit(split, answer, now);
  show(filter, answer.total > BACKENDS || at.filter !== "");
  const said = [...service.notes];
  if (service.restricted) said.push(`Only clients within ${service.allow.join(", ")} may connect.`);
  if (service.probe) said.push(probe(service.probe));
  keyed(notes, said, (text) => text, (text) => el("li", {}, text));
  keyed(inside.rows, backends, ({ id, address }) => `${id} ${address}`, makeBackend, (each, backend) => renewBackend(each, backend, now));
  pager(pages, answer, BACKENDS, "backend", (offset) => {
    at.offset = offset;
    look();
  });
}

function probe({ kind, path, interval_ms: every, fall, rise }) {
  return `Probed by ${kind}${path ? ` ${path}` : ""} every ${every < 1000 ? `${every}ms` : span(every)}; out after ${fall} failures, back after ${rise} successes.`;
}

function makeBackend() {
  const node = row(COLUMNS);
  const [address, , state, share] = node.children;
  address.append(el("span", { class: "mono" }), el("span", { class: "dim below mono" }));
  state.append(el("span", { class: "badge" }), el("span", { class: "badge warn" }), el("span", { class: "why dim" }));
  share.append(bar(), el("span"));
  return node;
}

function renewBackend(node, backend, now) {
  const [address, subset, state, share, weight, live, each] = node.children;
  set(node, { "data-backend": backend.address, "data-id": backend.id });
  write(address.firstChild, backend.address);
  write(address.lastChild, backend.id === backend.address ? "" : backend.id);
  write(subset, backend.subset ?? "–");
  const [health, other, why] = state.children;
  set(health, { class: `badge ${tone(backend.health)}` });
  write(health, backend.health);
  const apart = aside(backend);
  show(other, apart !== "");
  write(other, apart);
  write(why, reasons(backend, now).join(" · "));
  const [picture, text] = share.children;
  fillBar(picture, backend.share_percent);
  write(text, percent(backend.share_percent));
  write(weight, number(backend.weight));
  write(live, number(backend.counters.flows_live));
  write(each, rate(growth(`backend ${backend.service} ${backend.id} ${backend.address}`, backend.counters.flows_created, now)));
}

// What keeps it from its share besides its health.
function aside(backend) {
  if (!backend.enabled) return backend.disabled_reason;
  if (backend.held_until_unix_ms !== null) return "held";
  return backend.slow_start_percent === null ? "" : `slow start ${backend.slow_start_percent}%`;
}

// Why it has its weight, and what the others say of it.
function reasons(backend, now) {
  const texts = [backend.reason];
  const add = (text) => text && !texts.some((known) => known.includes(text)) && texts.push(text);
  if (backend.ejected_until_unix_ms !== null) add(`ejected for ${span(backend.ejected_until_unix_ms - now)} more: ${backend.ejected_reason}`);
  if (backend.drain_deadline_unix_ms !== null) add(`what is left is cut at ${clock(backend.drain_deadline_unix_ms)}`);
  if (backend.held_until_unix_ms !== null) add(`gone from the catalog, kept until ${clock(backend.held_until_unix_ms)}`);
  add(backend.observed_reason);
  if (backend.catalog_health !== "passing") add(`catalog: ${backend.catalog_health}${backend.catalog_detail ? `, ${backend.catalog_detail}` : ""}`);
  return texts.filter(Boolean);
}
