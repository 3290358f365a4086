// Questions and orders to the agent that served the page, and rates out of its counters.

const PATIENCE = 6000;

export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

async function call(path, options) {
  const response = await fetch(path, {
    ...options,
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    signal: AbortSignal.timeout(PATIENCE),
  });
  let body = null;
  try {
    body = await response.json();
  } catch {
    throw new Refused(response.status, "INTERNAL", `the answer of ${path} is no JSON`);
  }
  if (response.ok) return body;
  throw new Refused(response.status, body?.error?.code, body?.error?.message ?? `status ${response.status}`);
}

export function get(path, query) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(given).toString();
  return call(text ? `${path}?${text}` : path);
}

export function order(kind, body, token) {
  return call(`/api/v1/split/${encodeURIComponent(kind)}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
    body: JSON.stringify(body),
  });
}

// What went wrong, for a person.
export function reason(error) {
  if (error instanceof Refused) return error.message;
  if (error?.name === "TimeoutError") return `no answer within ${PATIENCE / 1000} s`;
  return "the connection was refused or cut";
}

const WINDOW = 10_000;
const FORGOTTEN = 120_000;
const samples = new Map();

// Growth a second of the counter `key` over the last seconds; null until two looks have been taken.
export function growth(key, value, now) {
  const seen = samples.get(key) ?? [];
  const last = seen[seen.length - 1];
  // Counters begin anew when the maps do.
  if (last && value < last.value) seen.length = 0;
  if (!last || now > last.at) seen.push({ at: now, value });
  while (seen.length > 2 && now - seen[1].at >= WINDOW) seen.shift();
  samples.set(key, seen);
  const [first, latest] = [seen[0], seen[seen.length - 1]];
  return latest.at > first.at ? ((latest.value - first.value) * 1000) / (latest.at - first.at) : null;
}

// Lets go of counters that are no longer looked at.
export function forget(now) {
  for (const [key, seen] of samples) {
    if (now - seen[seen.length - 1].at > FORGOTTEN) samples.delete(key);
  }
}
