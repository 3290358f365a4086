// Orders: a dialog that says what will be done and how the command line does it, and does it where
// the agent takes orders from this page.

import { order, reason, Refused } from "./ask.js";
import { el, show, write } from "./dom.js";
import { quoted } from "./words.js";

const dialog = document.getElementById("order");
// Of this tab, for as long as it lives; stored nowhere.
let token = "";
let mode = { orders: "off", why: null };
let after = () => {};

export function onOrder(done) {
  after = done;
}

export function renewOrders({ orders, orders_why: why }) {
  mode = { orders, why };
}

const TITLES = {
  set: ({ service }) => `Set the shares of ${service}`,
  shift: ({ service, subset }) => `Shift ${service} to ${subset}`,
  promote: ({ service, subset }) => `Promote ${subset} of ${service}`,
  rollback: ({ service }) => `Roll ${service} back`,
  ack: ({ service }) => `Acknowledge the return of ${service}`,
  reset: ({ service }) => `Reset the split of ${service}`,
};

const MEANINGS = {
  set: () => "New flows follow at once; open ones stay where they are.",
  shift: () => "Step by step, for as long as the gate of the service finds nothing wrong.",
  promote: ({ subset }) => `${subset} gets everything, and the watch over it ends.`,
  rollback: () => "The shift ends; the shares from before it count again.",
  ack: () => "The split can be changed again.",
  reset: () => "What was set here or on the command line is forgotten; the next split beneath it counts.",
};

function field(name, value, bounds, unit) {
  const input = el("input", { type: "number", required: true, step: 1, inputmode: "numeric", value, ...bounds });
  return { input, whole: el("label", { class: "field" }, el("span", {}, name), el("span", { class: "unit" }, input, unit ?? "")) };
}

function fields({ kind, shares }) {
  if (kind === "set") return Object.entries(shares).map(([subset, share]) => [subset, field(subset, share, { min: 0, max: 10000 })]);
  if (kind !== "shift") return [];
  return [
    ["to", field("In the end", 100, { min: 1, max: 100 }, "%")],
    ["step", field("A step", 10, { min: 1, max: 100 }, "%")],
    ["every", field("From one step to the next", 30, { min: 1, max: 86400 }, "s")],
  ];
}

function body({ kind, service, subset }, value) {
  if (kind === "set") return { service, shares: value };
  if (kind !== "shift") return { service };
  return { service, subset, to_percent: value.to, step_percent: value.step, every_ms: value.every * 1000 };
}

function command({ kind, service, subset }, value) {
  const words = ["lb-agent", "split", kind, service];
  if (kind === "set") words.push(...Object.entries(value).map(([name, share]) => `${name}=${share}`));
  if (kind === "shift") words.push(subset, "--to", String(value.to), "--step", String(value.step), "--every", `${value.every}s`);
  return words.map(quoted).join(" ");
}

const READ_ONLY = "This page is read-only. To give it buttons: put a secret into a file that only root and the group of the agent may read, name it as token_file under [page] in the agent's configuration, and restart the agent. Until then, on the node:";

// Opens the dialog for an order.
export function ask(way) {
  const inputs = fields(way);
  const values = () => Object.fromEntries(inputs.map(([name, { input }]) => [name, Math.trunc(Number(input.value))]));
  const may = mode.orders === "token";
  const code = el("code", { tabindex: "0" });
  const copy = el("button", { type: "button" }, "Copy");
  const said = el("p", { class: "bad-text", role: "alert" });
  const secret = el("input", { type: "password", autocomplete: "off", value: token, required: true, "aria-describedby": "token-note" });
  const close = el("button", { type: "button" }, may ? "Cancel" : "Close");
  const go = el("button", { type: "submit", class: "first" }, "Carry out");
  const refresh = () => write(code, command(way, values()));
  for (const [, { input }] of inputs) input.addEventListener("input", refresh);
  refresh();
  copy.addEventListener("click", () => copyText(code, copy));
  close.addEventListener("click", () => dialog.close());

  const why = mode.orders === "broken" ? `This page gives no orders at present: ${mode.why}. On the node:` : READ_ONLY;
  const form = el("form", {},
    el("h2", { id: "order-title" }, TITLES[way.kind](way)),
    el("p", { class: "dim" }, MEANINGS[way.kind](way)),
    ...inputs.map(([, { whole }]) => whole),
    el("p", { class: "note" }, may ? "The same on the command line:" : why),
    el("div", { class: "command" }, code, copy),
    may ? el("label", { class: "field token" }, el("span", {}, "Token"), secret,
      el("span", { class: "dim", id: "token-note" }, "From the file that token_file names. This tab keeps it until it is closed.")) : null,
    said,
    el("div", { class: "buttons" }, close, may ? go : null));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!may) return;
    go.disabled = true;
    write(said, "");
    try {
      token = secret.value.trim();
      await order(way.kind, body(way, values()), token);
      dialog.close();
      after();
    } catch (error) {
      if (error instanceof Refused && error.status === 401) token = "";
      write(said, reason(error));
    }
    go.disabled = false;
  });
  dialog.replaceChildren(form);
  show(dialog, true);
  dialog.showModal();
}

async function copyText(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    write(button, "Copied");
  } catch {
    // Only loopback and HTTPS may write to the clipboard: then the reader copies.
    getSelection().selectAllChildren(code);
    write(button, "Selected");
  }
  setTimeout(() => write(button, "Copy"), 2000);
}
