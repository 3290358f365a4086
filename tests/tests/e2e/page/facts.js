// What the page shows, each fact as `kind|key|value|…`.
(() => {
  const facts = [];
  const all = (selector, of = document) => [...of.querySelectorAll(selector)];
  const field = (of, name) => of.querySelector(`[data-field=${name}]`)?.textContent ?? "";
  for (const node of all("article[data-service]")) {
    const name = node.dataset.service;
    facts.push(["service", field(node, "name"), field(node, "protocol"), field(node, "vips"), field(node, "health")]);
    for (const part of all("li[data-subset]", node)) {
      facts.push(["subset", name, part.dataset.subset, field(part, "share_percent")]);
    }
    for (const row of all("tr[data-backend]", node)) {
      const [health, aside, why] = row.querySelector("[data-field=state]").children;
      facts.push(["backend", name, field(row, "subset"), row.querySelector("[data-field=address] .mono").textContent,
        health.textContent, aside.hidden ? "" : aside.textContent, why.textContent.split(" · ")[0],
        row.querySelector("[data-field=share] span:last-child").textContent, field(row, "weight"), field(row, "flows_live")]);
    }
  }
  for (const row of all("tr[data-verdict]")) {
    facts.push(["drop", row.querySelector("strong").textContent, field(row, "packets")]);
  }
  for (const row of all("tr[data-prefix]")) {
    facts.push(["block", row.querySelector(".mono").textContent, field(row, "reason"), field(row, "dropped_packets")]);
  }
  for (const item of all("#problem-list li")) facts.push(["problem", item.textContent]);
  for (const item of all("li[data-change]")) {
    facts.push(["change", item.querySelector("strong").textContent, item.querySelector(".mono").textContent, item.dataset.change]);
  }
  return facts.map((fact) => fact.join("|"));
})()
