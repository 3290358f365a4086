// The block list and what has happened to backends.

import { get } from "./ask.js";
import { el, keyed, row, set, show, table, write } from "./dom.js";
import { ago, bytes, clock, counted, moment, number, span, tone } from "./words.js";

const byId = (id) => document.getElementById(id);
const RULES = 50;
const EVENTS = 50;

const RULE_COLUMNS = [
  { name: "Prefix", field: "prefix" },
  { name: "Reason", field: "reason" },
  { name: "Packets", kind: "num", field: "dropped_packets" },
  { name: "Bytes", kind: "num", field: "dropped_bytes" },
  { name: "Ends", kind: "num", field: "expires" },
];
const rules = table("Block rules and what they have caught", RULE_COLUMNS);
// Last prefixes of the parts before the one that is shown.
const before = [];
let looked = () => {};

export async function renewBlocks(overview) {
  looked = () => renewBlocks(overview);
  const after = before[before.length - 1];
  const answer = await get("/api/v1/blocks", { after, limit: RULES });
  const { blocks, now_unix_ms: now } = answer;
  fill(byId("blocks"), blocks.length > 0, rules.whole, "Nothing is blocked.");
  keyed(rules.body, blocks, ({ rule }) => rule.prefix, () => row(RULE_COLUMNS), (node, block) => {
    const { rule } = block;
    const [prefix, reason, packets, size, ends] = node.children;
    set(node, { "data-prefix": rule.prefix });
    if (!prefix.firstChild) {
      prefix.append(el("span", { class: "mono" }), el("span", { class: "dim below" }));
      reason.append(el("span", { class: "text" }));
    }
    write(prefix.firstChild, rule.prefix);
    write(prefix.lastChild, `${rule.origin}, ${ago(rule.added_unix_ms, now)}`);
    write(reason.firstChild, rule.reason || "–");
    write(packets, number(block.dropped_packets));
    write(size, bytes(block.dropped_bytes));
    write(ends, rule.expires_unix_ms === null ? "never" : `in ${span(rule.expires_unix_ms - now)}`);
  });
  parts(answer);
}

function parts({ blocks, more, total }) {
  const place = byId("block-pager");
  if (!place.firstChild) {
    place.append(el("span", { class: "dim" }), el("button", { type: "button" }, "First"), el("button", { type: "button" }, "Next"));
  }
  const [said, first, next] = place.children;
  const all = !more && before.length === 0;
  const from = before.length * RULES;
  write(said, all ? "" : `${number(from + 1)}–${number(from + blocks.length)} of ${counted(total, "rule")}`);
  show(first, !all);
  show(next, !all);
  first.disabled = before.length === 0;
  next.disabled = !more;
  first.onclick = () => {
    before.length = 0;
    looked();
  };
  next.onclick = () => {
    before.push(blocks[blocks.length - 1].rule.prefix);
    looked();
  };
}

const list = el("ol", { class: "events" });
const older = el("p", { class: "dim" });

export async function renewEvents({ status }) {
  const { changes, older: left } = await get("/api/v1/events", { limit: EVENTS });
  const events = changes.map((change) => ({ at: change.at_unix_ms, change }));
  const { drift } = status;
  if (drift?.last) events.push({ at: drift.last_unix_ms, mended: drift.last });
  events.sort((a, b) => b.at - a.at);
  const place = byId("events");
  if (!place.firstChild) place.append(list, older);
  const key = ({ at, change, mended }) => JSON.stringify([at, change?.service, change?.address, change?.to, change?.source, mended]);
  keyed(list, events, key, event);
  show(older, left > 0 || !events.length);
  write(older, left > 0 ? `${counted(left, "older event")}: lb-agent backend history` : "Nothing has happened to a backend since the agent started.");
}

function event({ at, change, mended }) {
  const time = el("time", { datetime: new Date(at).toISOString(), title: moment(at) }, clock(at));
  if (mended) {
    return el("li", {}, time, el("div", {}, el("p", {}, el("span", { class: "badge warn" }, "mended"), " in the kernel"), el("p", { class: "dim" }, mended)));
  }
  const same = change.id === change.address;
  return el("li", { "data-change": change.to }, time, el("div", {},
    el("p", {}, el("strong", {}, change.service), " ", el("span", { class: "mono" }, change.address), " ",
      el("span", { class: "dim" }, `${change.from} →`), " ", el("span", { class: `badge ${tone(change.to)}` }, change.to)),
    el("p", { class: "dim" }, `${change.source}${change.reason ? `: ${change.reason}` : ""}${same ? "" : ` · ${change.id}`}`)));
}

function fill(place, some, whole, otherwise) {
  const wanted = some ? whole : place.otherwise ?? (place.otherwise = el("p", { class: "dim" }, otherwise));
  if (place.firstChild !== wanted) place.replaceChildren(wanted);
}
