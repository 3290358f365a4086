// Building and renewing the page's tree. Text of others only ever becomes text.

const SVG = "http://www.w3.org/2000/svg";

function attributes(node, given) {
  for (const [name, value] of Object.entries(given ?? {})) {
    if (value === undefined || value === null || value === false) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  return node;
}

// An element with attributes and children; a child that is no node becomes text.
export function el(name, given, ...children) {
  const node = attributes(document.createElement(name), given);
  node.append(...children.filter((child) => child !== null && child !== undefined)
    .map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

// Sets attributes of what is there.
export function set(node, given) {
  return attributes(node, given);
}

// Sets the text, if it is another one: what is selected stays selected.
export function write(node, text) {
  const wanted = String(text ?? "");
  if (node.textContent !== wanted) node.textContent = wanted;
  return node;
}

export function show(node, visible) {
  node.hidden = !visible;
  return node;
}

const kept = new WeakMap();

// Makes `parent` hold one node for each item, in their order, and keeps nodes whose key stays.
export function keyed(parent, items, keyOf, make, renew) {
  const former = kept.get(parent) ?? new Map();
  const present = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    if (present.has(key)) continue;
    const node = former.get(key) ?? make(item);
    former.delete(key);
    present.set(key, node);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
    renew?.(node, item);
  }
  for (const node of former.values()) node.remove();
  kept.set(parent, present);
}

// A table whose head stays and whose rows are renewed: `columns` of {name, kind}.
export function table(caption, columns) {
  const head = el("tr", {}, ...columns.map(({ name, kind }) => el("th", { scope: "col", class: kind }, name)));
  const body = el("tbody");
  const whole = el("table", {}, el("caption", { class: "hidden" }, caption), el("thead", {}, head), body);
  return { whole, body };
}

// A row whose cells are named after their column, for narrow screens.
export function row(columns) {
  const cells = columns.map(({ name, kind, field }) =>
    el("td", { class: kind, "data-label": name, "data-field": field }));
  return el("tr", {}, ...cells);
}

// A bar that fills `percent` of its width.
export function bar(extra) {
  return el("span", { class: `bar ${extra ?? ""}`, "aria-hidden": "true" }, el("i"));
}

export function fillBar(node, percent) {
  const part = Math.max(0, Math.min(100, percent || 0));
  node.firstChild.style.width = `${part}%`;
}

// A curve without axes: how it went lately. Its latest value stands in words beside it.
export function spark() {
  const root = document.createElementNS(SVG, "svg");
  attributes(root, { class: "spark", viewBox: "0 0 100 28", preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const name of ["area", "line"]) {
    const path = document.createElementNS(SVG, "path");
    attributes(path, { class: name, "vector-effect": "non-scaling-stroke" });
    root.append(path);
  }
  return root;
}

// A short history takes the whole width, so that something is seen at once.
export function drawSpark(root, values) {
  const room = Math.max(12, values.length);
  const highest = Math.max(1e-9, ...values);
  const x = (index) => 100 - ((values.length - 1 - index) * 100) / (room - 1);
  const y = (value) => 26 - (value / highest) * 23;
  const points = values.map((value, index) => `${x(index).toFixed(2)},${y(value).toFixed(2)}`);
  const [area, line] = root.children;
  const enough = points.length > 1;
  line.setAttribute("d", enough ? `M${points.join("L")}` : "");
  area.setAttribute("d", enough ? `M${points.join("L")}L100,28L${x(0).toFixed(2)},28Z` : "");
}
