// The split of a service: what each subset is to have and has, how a shift goes, and the ways to
// change it.

import { el, keyed, set, show, write } from "./dom.js";
import { ask } from "./orders.js";
import { percent, shares, shift as sentence, tone } from "./words.js";

const COLOURS = 6;

function build(place) {
  place.append(
    el("div", { class: "stack", "aria-hidden": "true" }),
    el("ul", { class: "legend" }),
    el("p", { class: "shift" }),
    el("p", { class: "dim layers" }),
    el("div", { class: "buttons", role: "group" }));
}

export function renewSplit(place, { service, split }, now) {
  show(place, split.subsets.length > 0);
  if (!split.subsets.length) return;
  if (!place.firstChild) build(place);
  const [stack, legend, shift, layers, buttons] = place.children;
  const colour = (subset) => `s${split.subsets.findIndex((each) => each.subset === subset) % COLOURS}`;

  keyed(stack, split.subsets, ({ subset }) => subset, ({ subset }) => el("i", { class: colour(subset) }), (node, each) => {
    node.style.flexGrow = String(each.share_percent);
    show(node, each.share_percent > 0);
  });
  keyed(legend, split.subsets, ({ subset }) => subset, ({ subset }) => el("li", { "data-subset": subset },
    el("i", { class: `dot ${colour(subset)}`, "aria-hidden": "true" }), el("strong", {}, subset),
    el("span", { "data-field": "share_percent" }), el("span", { class: "dim" })), (node, each) => {
    const [, , has, more] = node.children;
    write(has, percent(each.share_percent));
    const asked = each.share === null ? "" : `share ${each.share} · `;
    write(more, `${asked}${each.backends_active} of ${each.backends} active`);
  });

  show(shift, Boolean(split.shift));
  if (split.shift) {
    if (!shift.firstChild) shift.append(el("span", { class: "badge" }), el("span", { "data-field": "shift" }));
    const { phase } = split.shift;
    set(shift.firstChild, { class: `badge ${phase === "arrived" ? "ok" : tone(phase)}` });
    write(shift.firstChild, phase);
    write(shift.lastChild, sentence(split.shift, now));
  }
  const words = split.layers.map(({ split: said, idle, in_force: counts }) =>
    `${counts ? "in force" : "beneath"}: ${shares(said.shares)} by ${said.source} (${said.origin})${idle ? `, not usable: ${idle}` : ""}`);
  write(layers, words.join(" · ") || "No split: backends share by their weights.");

  set(buttons, { "aria-label": `Split of ${service.name}` });
  keyed(buttons, ways(service, split), ({ key }) => key, ({ label }) => el("button", { type: "button" }, label), (node, way) => {
    set(node, { "data-order": way.kind, class: way.first ? "first" : null });
    node.onclick = () => ask(way);
  });
}

// The orders that make sense at this moment.
function ways(service, { subsets, shift, split, layers }) {
  const { name } = service;
  const order = (kind, label, more) => ({ key: `${kind} ${more?.subset ?? ""}`, kind, label, service: name, ...more });
  if (shift?.phase === "returned") return [order("ack", "Acknowledge", { first: true })];
  const list = [];
  if (shift && shift.phase !== "promoted") list.push(order("promote", `Promote ${shift.subset}`, { first: true, subset: shift.subset }));
  if (shift) list.push(order("rollback", "Roll back"));
  const several = subsets.length > 1;
  if (several) {
    const part = (subset) => subsets.find((each) => each.subset === subset)?.share_percent ?? 0;
    const goals = shift && shift.phase !== "promoted" ? [shift.subset] : subsets.map(({ subset }) => subset);
    for (const subset of goals.filter((each) => part(each) < 99.95)) list.push(order("shift", `Shift to ${subset} …`, { subset }));
    const now = Object.fromEntries(subsets.map(({ subset }) => [subset, split?.shares?.[subset] ?? 0]));
    list.push(order("set", "Set shares …", { shares: now }));
  }
  if (layers.some(({ split: said }) => said.source === "cli")) list.push(order("reset", "Reset"));
  return list;
}
