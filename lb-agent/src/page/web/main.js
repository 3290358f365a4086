// Looks at the agent again and again, hands what it says to the parts of the page, and says so when
// it does not answer.

import { forget, get, reason } from "./ask.js";
import { set, show, write } from "./dom.js";
import { renewBlocks, renewEvents } from "./lists.js";
import { renewNode } from "./node.js";
import { onOrder, renewOrders } from "./orders.js";
import { onWish, renewServices } from "./services.js";
import { clock, span } from "./words.js";

const PACE = 2000;
// Older than so many paces: stale.
const PATIENT = 3;

const page = { pace: PACE, seen: null, error: null, timer: null, looking: false, again: false };
const byId = (id) => document.getElementById(id);

async function look() {
  if (page.looking) {
    page.again = true;
    return;
  }
  page.looking = true;
  clearTimeout(page.timer);
  try {
    const overview = await get("/api/v1/overview");
    page.pace = Math.max(PACE, overview.pace_ms);
    renewNode(overview);
    renewOrders(overview);
    const parts = [renewServices(overview), renewBlocks(overview), renewEvents(overview)];
    const failed = (await Promise.allSettled(parts)).find((part) => part.status === "rejected");
    if (failed) throw failed.reason;
    forget(overview.status.now_unix_ms);
    page.seen = Date.now();
    page.error = null;
    document.body.dataset.looks = String(Number(document.body.dataset.looks ?? 0) + 1);
  } catch (error) {
    page.error = error;
  }
  page.looking = false;
  tellFreshness();
  const wait = page.again ? 0 : page.pace;
  page.again = false;
  page.timer = setTimeout(look, document.hidden ? 10 * wait : wait);
}

// What is shown may be old: then it must not look like the present.
function tellFreshness() {
  const age = page.seen === null ? null : Date.now() - page.seen;
  const stale = page.error !== null || (age !== null && age > PATIENT * page.pace && !page.looking);
  const live = byId("live");
  document.body.classList.toggle("stale", stale);
  show(byId("stale"), stale);
  if (!stale) {
    set(live, { class: `badge ${age === null ? "" : "ok live"}` });
    write(live, age === null ? "connecting" : "live");
    return;
  }
  set(live, { class: "badge bad" });
  write(live, "stale");
  const why = page.error ? reason(page.error) : "it is late";
  const since = age === null
    ? "Nothing has been shown yet."
    : `What you see is ${span(age)} old, as of ${clock(page.seen)}.`;
  write(byId("stale"), `The agent does not answer (${why}). ${since} Traffic goes on in the kernel while the agent is away.`);
}

onWish(look);
onOrder(look);
document.addEventListener("visibilitychange", () => document.hidden || look());
setInterval(tellFreshness, 1000);
look();
